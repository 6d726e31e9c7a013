"""Interpolation of two endpoints' weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainables.stage_run import Outcome, StageRun
from trainables.stages.time_averages import average_over_time
from trainables.stages.weights import check_same_tensors, writer


def run_average(run: StageRun) -> Outcome:
    if "aligned" in run.stage.inputs:
        return average_over_time(run)
    w0, w1 = (load_file(run.input_file(role, "weights")) for role in ("w0", "w1"))
    weights = interpolate(w0, w1, run.stage.settings["coefficient"])
    return Outcome(write={"weights.safetensors": writer(weights)}, metrics={})


def interpolate(
    w0: Mapping[str, Tensor], w1: Mapping[str, Tensor], coefficient: float
) -> dict[str, Tensor]:
    """(1 - a) W0 + a W1, summed in float64 (WiSE-FT); a = 0 is W0 and a = 1 is W1, exactly.

    Raises:
        ValueError: tensors that only one endpoint has, or whose shapes differ; lists them.
    """
    check_same_tensors(w1, w0, "endpoint w1 cannot be averaged with w0")
    return {
        name: ((1 - coefficient) * first.to(torch.float64) + coefficient * w1[name].double()).to(
            first.dtype
        )
        for name, first in w0.items()
    }
