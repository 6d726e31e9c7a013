"""Which trials go on: successive halving on how they stand at equal parts of their alignment.

Asynchronous, without pausing (Li et al. 2020, "A System for Massively Parallel Hyperparameter
Tuning"): whoever comes to a rung is compared with those that were there before. With several
datasets or objectives, by non-dominated rank, as in multi-objective ASHA (Schmucker et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cluster.study import RungPoint
from sweeps.search_settings import EarlyStopping
from sweeps.searching.objectives import Objective, fronts, gains, values_of
from trainables.config import TrialConfig
from trainables.trial import trial_score


def reason_to_stop(
    settings: EarlyStopping,
    objectives: Sequence[Objective],
    trial: TrialConfig,
    point: RungPoint,
    earlier: Iterable[tuple[TrialConfig, RungPoint]],
) -> str | None:
    """Why `trial`, which has come to `point`, stops there; None: it goes on.

    `earlier`: the rungs of the other trials. It is compared with those that came to the same rung
    with the same kind of average, as a rung sees the endpoints and not what averaging them gains.
    It goes on if fewer than 1 in `reduction_factor` of all, itself included and rounded up, are
    better. By datasets or objectives, better are those of better fronts, so that a trial that no
    other beats in all of them never stops.
    """
    there = [
        _standing(settings.by, objectives, other, reached)
        for other, reached in earlier
        if reached.rung == point.rung and other.average.method == trial.average.method
    ]
    own = _standing(settings.by, objectives, trial, point)
    ranks = fronts([own, *there])
    better = sum(rank < ranks[0] for rank in ranks)
    if better < math.ceil(len(ranks) / settings.reduction_factor):
        return None
    shown = ", ".join(f"{name} {value:.3f}" for name, value in point.accuracies.items())
    return (
        f"{better} of {len(ranks)} trials stood better by their {settings.by} when "
        f"{point.rung:.0%} of the alignment was done; probes of this one: {shown}"
    )


def _standing(
    by: str, objectives: Sequence[Objective], trial: TrialConfig, point: RungPoint
) -> tuple[float, ...]:
    """What a trial is compared by; larger is better."""
    score = trial_score(trial, point.accuracies)
    if by == "score":
        return (score,)
    if by == "datasets":
        return tuple(point.accuracies[name] for name in trial.downstream)
    values = values_of(objectives, score, point.accuracies, point.device_seconds)
    assert values is not None
    return gains(objectives, values)
