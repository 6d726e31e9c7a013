"""Averages over the time of one alignment, from what it kept while it trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainables.posthoc_ema import reconstruction
from trainables.stage_run import Outcome, StageRun
from trainables.stages.weights import writer


def average_over_time(run: StageRun) -> Outcome:
    """Methods last_k (LAWA), ema and posthoc_ema.

    A BatchNorm's statistics: last_k averages them, the others have those of the last weights.

    Raises:
        ValueError: an ema_length that cannot be made from what was kept.
    """
    settings, epochs = run.stage.settings, _aligned(run)["epochs"]
    metrics: dict[str, Any] = {}

    def kept(role: str) -> Path:
        return run.input_file("aligned", role)

    match settings["method"]:
        case "last_k":
            last = settings["last"]
            assert last <= min(epochs, _aligned(run)["keep"]["last"])
            files = [kept(f"epoch_{epoch}") for epoch in range(epochs - last + 1, epochs + 1)]
            weights = weighted_sum((file, 1 / last) for file in files)
        case "ema":
            weights = load_file(kept("ema"))
        case "posthoc_ema":
            coefficients, error = reconstruction(epochs, settings["ema_length"])
            parts = [
                (kept(f"power_ema_{index}_{epoch}"), coefficient)
                for index, row in enumerate(coefficients.tolist())
                for epoch, coefficient in enumerate(row, start=1)
            ]
            weights = {**load_file(kept("weights")), **weighted_sum(parts)}
            metrics["profile_error"] = error
        case method:
            raise AssertionError(method)
    return Outcome(write={"weights.safetensors": writer(weights)}, metrics=metrics)


def _aligned(run: StageRun) -> dict[str, Any]:
    settings: dict[str, Any] = run.stage.inputs["aligned"].settings["align"]
    return settings


def weighted_sum(parts: Iterable[tuple[Path, float]]) -> dict[str, Tensor]:
    """The files' tensors times their coefficients, summed in float64, in the tensors' own type.

    One file is in memory at a time. Integers (batches that a BatchNorm has counted) are the last
    file's.
    """
    sums: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for file, coefficient in parts:
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                term = coefficient * tensor.to(torch.float64)
                sums[name] = sums[name] + term if name in sums else term
    return {
        name: sums[name].to(tensor.dtype) if name in sums else tensor
        for name, tensor in tensors.items()
    }
