"""Which of the varied settings the score hangs on. Imports optuna; suggests nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from optuna import create_study, create_trial, logging
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

TOP = 0.25  # what counts as good: the best quarter of the trials
ENOUGH_TRIALS = 40  # with fewer, under ten of them are good, and chance decides what these share


def importances(points: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[str, float]:
    """Setting -> its part in what sets the best quarter of trials apart; they sum to 1.

    PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023, arXiv:2304.10255) as Optuna has it, over
    the ranges that were tried. `points`: dotted path -> value, a mixture as source -> share; where
    a setting does not exist, its point has no value. A mixture counts as one setting. Empty if
    there are under two points, nothing varies, or all score the same.
    """
    flat = [_flat(point) for point in points]
    spaces = {name: space for name in _names(flat) if (space := _space(name, flat)) is not None}
    if len(set(scores)) < 2 or not spaces:
        return {}
    logging.set_verbosity(logging.WARNING)  # not a line for the study made here
    study = create_study(direction="maximize")
    study.add_trials(
        _trial({name: point[name] for name in spaces if name in point}, spaces, score)
        for point, score in zip(flat, scores, strict=True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # of few trials: the report says it
        evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP)
        found = get_param_importances(study, evaluator=evaluator)
    summed: dict[str, float] = {}
    for name, value in found.items():
        path = name.partition("[")[0]
        summed[path] = summed.get(path, 0.0) + value
    return dict(sorted(summed.items(), key=lambda item: (-item[1], item[0])))


def _flat(point: Mapping[str, Any]) -> dict[str, Any]:
    """A mixture as a number for each source but the last, which follows from the others."""
    flat: dict[str, Any] = {}
    for path, value in point.items():
        if isinstance(value, Mapping):
            flat |= {f"{path}[{source}]": float(value[source]) for source in [*value][:-1]}
        else:
            flat[path] = value
    return flat


def _names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point))


def _space(name: str, points: Sequence[Mapping[str, Any]]) -> BaseDistribution | None:
    """The range that was tried; None where nothing varied."""
    values = list(dict.fromkeys(point[name] for point in points if name in point))
    if len(values) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(values)


def _trial(
    params: dict[str, Any], spaces: Mapping[str, BaseDistribution], score: float
) -> FrozenTrial:
    numbers = {
        name: float(value) if isinstance(spaces[name], FloatDistribution) else value
        for name, value in params.items()
    }
    return create_trial(
        value=score, params=numbers, distributions={name: spaces[name] for name in numbers}
    )
