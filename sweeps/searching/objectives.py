"""What a sweep is after: the objectives of a trial, and which trials no other beats in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from sweeps.search_settings import GroupSettings, Objective


def name_of(objective: Objective) -> str:
    return objective if isinstance(objective, str) else objective.name


def directions(objectives: Sequence[Objective]) -> list[Literal["maximize", "minimize"]]:
    return ["minimize" if each == "gpu_hours" else "maximize" for each in objectives]


def values_of(
    objectives: Sequence[Objective],
    score: float,
    accuracies: Mapping[str, float],
    device_seconds: float | None,
) -> tuple[float, ...] | None:
    """The objectives of a trial, in their order; None where one of them is not known.

    Args:
        accuracies: top-1 per downstream dataset.
        device_seconds: of all the trial's stages, as if it shared none with another trial, so that
            it does not depend on which trial came first.
    """
    values = []
    for objective in objectives:
        if objective == "score":
            values.append(score)
        elif objective == "gpu_hours":
            if device_seconds is None:
                return None
            values.append(device_seconds / 3600)
        else:
            assert isinstance(objective, GroupSettings)
            group = [accuracies[name] for name in objective.mean_of]
            values.append(sum(group) / len(group))
    return tuple(values)


def gains(objectives: Sequence[Objective], values: Sequence[float]) -> tuple[float, ...]:
    """`values` with the sign that makes larger better."""
    signs = [1 if each == "maximize" else -1 for each in directions(objectives)]
    return tuple(sign * value for sign, value in zip(signs, values, strict=True))


def fronts(points: Sequence[Sequence[float]]) -> list[int]:
    """The non-dominated rank of each point, larger values being better: 0 is the Pareto front.

    Rank r + 1 is the front of what is left without ranks 0 to r (Goldberg 1989; Deb et al. 2002).
    """
    if not points:
        return []
    values = np.asarray(points, dtype=float)
    as_good = np.all(values[:, None] >= values[None], axis=2)  # [i, j]: i is nowhere below j
    beats = as_good & ~as_good.T
    beaten_by = beats.sum(axis=0)
    ranks = np.full(len(values), -1)
    rank = 0
    while (ranks < 0).any():
        front = (ranks < 0) & (beaten_by == 0)
        ranks[front] = rank
        beaten_by = beaten_by - beats[front].sum(axis=0)
        rank += 1
    return [int(each) for each in ranks]
