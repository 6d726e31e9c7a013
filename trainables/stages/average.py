"""Averages of weights: the mean of K endpoints, a point between two, Model Stock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainables.stage_run import Outcome, StageRun
from trainables.stages.time_averages import average_over_time
from trainables.stages.weights import check_same_tensors, writer

Weights = Mapping[str, Tensor]


def run_average(run: StageRun) -> Outcome:
    if "aligned" in run.stage.inputs:
        return average_over_time(run)
    settings = run.stage.settings
    metrics: dict[str, Any] = {}
    match settings["method"]:
        case "uniform":
            weights = uniform(endpoints_of(run))
        case "interpolate":
            w0, w1 = endpoints_of(run)
            weights = interpolate(w0, w1, settings["coefficient"])
        case "model_stock":
            base = load_file(run.input_file("base", "weights"))
            weights, ratios = model_stock(base, endpoints_of(run))
            metrics = {
                "ratio_mean": sum(ratios.values()) / len(ratios),
                "ratio_min": min(ratios.values()),
                "ratio_max": max(ratios.values()),
            }
        case method:
            raise AssertionError(method)
    return Outcome(write={"weights.safetensors": writer(weights)}, metrics=metrics)


def endpoints_of(run: StageRun) -> list[dict[str, Tensor]]:
    """The weights of the inputs w0, w1, ..., in this order."""
    roles = sorted((r for r in run.stage.inputs if r != "base"), key=lambda role: int(role[1:]))
    return [load_file(run.input_file(role, "weights")) for role in roles]


def uniform(endpoints: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of K endpoints. Raises ValueError where their tensors differ; see `combined`."""
    return combined(endpoints, [1 / len(endpoints)] * len(endpoints))


def interpolate(w0: Weights, w1: Weights, coefficient: float) -> dict[str, Tensor]:
    """(1 - a) W0 + a W1 (WiSE-FT); a = 0 is W0 and a = 1 is W1, exactly.

    Raises ValueError where their tensors differ; see `combined`.
    """
    return combined([w0, w1], [1 - coefficient, coefficient])


def combined(
    endpoints: Sequence[Weights], coefficients: Sequence[float] | Mapping[str, Sequence[float]]
) -> dict[str, Tensor]:
    """sum_k a_k W_k, summed in float64, in the first endpoint's types.

    `coefficients`: a [K] of all tensors, or by the name of each. Integers (the batches that a
    BatchNorm has counted) are no weights: they are the first endpoint's. A BatchNorm's running
    mean and variance are combined like all else.

    Raises:
        ValueError: tensors that one endpoint lacks, or whose shapes differ; lists them.
    """
    first, *others = endpoints
    for number, other in enumerate(others, start=1):
        check_same_tensors(other, first, f"endpoint w{number} cannot be averaged with w0")
    weights = {}
    for name, tensor in first.items():
        weights[name] = tensor
        if tensor.is_floating_point():
            parts = coefficients[name] if isinstance(coefficients, Mapping) else coefficients
            total = torch.zeros_like(tensor, dtype=torch.float64)
            for part, endpoint in zip(parts, endpoints, strict=True):
                total += part * endpoint[name].double()
            weights[name] = total.to(tensor.dtype)
    return weights


def model_stock(
    base: Weights, endpoints: Sequence[Weights]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """t * mean of the K endpoints + (1 - t) * base, and the t of each tensor that has one.

    Jang et al., "Model Stock" (2024), layer by layer: each tensor of the state dict has its own
    t = K cos / ((K - 1) cos + 1); see `model_stock_ratio`.

    Raises:
        ValueError: tensors that one of them lacks, or whose shapes differ; lists them.
    """
    for number, endpoint in enumerate(endpoints):
        check_same_tensors(endpoint, base, f"endpoint w{number} does not fit the base")
    ratios = {
        name: model_stock_ratio(
            [endpoint[name].double() - start.double() for endpoint in endpoints]
        )
        for name, start in base.items()
        if start.is_floating_point()
    }
    count = len(endpoints)
    parts = {name: [*[t / count] * count, 1 - t] for name, t in ratios.items()}
    return combined([*endpoints, base], parts), ratios


def model_stock_ratio(deltas: Sequence[Tensor]) -> float:
    """t in [0, 1] of one tensor, from what K >= 2 endpoints add to the base, float64.

    cos is the mean over all pairs of deltas. A delta of zero has no direction: its cosines are
    0. A negative mean is taken as 0, for which t is 0 and the base stays: the formula would
    leave the base *against* the endpoints (t < 0).
    """
    flat = [delta.flatten() for delta in deltas]
    cosines = []
    for one, other in combinations(flat, 2):
        norms = (one.norm() * other.norm()).item()
        cosines.append((one @ other).item() / norms if norms else 0.0)
    cosine = min(1.0, max(0.0, sum(cosines) / len(cosines)))
    return len(flat) * cosine / ((len(flat) - 1) * cosine + 1)
