"""What was told of trials, as Optuna's studies, samplers and distributions.

Each draw makes a study anew, of a thousand trials as of ten, so each must be quick to add.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.parameters import Params, Values
from search_spaces.simplex_parameter import SimplexParameter
from search_spaces.space import Space, encode

State: TypeAlias = Literal["waiting", "running", "complete", "failed", "pruned"]
Direction: TypeAlias = Literal["maximize", "minimize"]
Distributions: TypeAlias = dict[str, BaseDistribution]

MOST_ORDERS = 24  # of sources that encoded trials are kept in: all those of four
BEGAN = datetime(2020, 1, 1)  # Optuna wants times; nothing here goes by them
STATES = {
    "waiting": TrialState.RUNNING,  # it will run: the samplers keep away from its point
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
}


@dataclass
class Told:
    """A trial. Its params and values never change."""

    params: Params  # empty outside the space
    values: Values
    state: State = "running"
    objectives: tuple[float, ...] | None = None
    intermediate: dict[int, float] = field(default_factory=dict)
    settled: bool = True


class Encodings:
    """The params of trials with the sources of each simplex in an order that differs from draw to
    draw: kept for the next draw in that order, for encoding takes longer than all else of an ask.
    """

    def __init__(self) -> None:
        self._orders: dict[tuple[Sequence[str], ...], list[Params]] = {}

    def params(self, space: Space, told: Sequence[Told]) -> list[Params]:
        """Of each trial, empty outside the space. `told`: those of the last time, and later ones.

        `space` is always the same one but for the order.
        """
        parameters = space.parameters.values()
        order = tuple(each.over for each in parameters if isinstance(each, SimplexParameter))
        known = self._orders.pop(order, [])
        known += [encode(space, each.values) if each.params else {} for each in told[len(known) :]]
        self._orders[order] = known  # now the last that was used
        if len(self._orders) > MOST_ORDERS:
            del self._orders[next(iter(self._orders))]
        return known


def as_study(
    told: Sequence[Told],
    params: Sequence[Params],
    distributions: Distributions,
    directions: Sequence[Direction],
    sampler: BaseSampler,
) -> optuna.Study:
    """A study in memory of these trials, whose `params` may be in another order of sources."""
    storage = InMemoryStorage()
    towards = [StudyDirection[direction.upper()] for direction in directions]
    study_id = storage.create_new_study(towards, "sweep")
    for each, its in zip(told, params, strict=True):  # `Study.add_trial` would check each again
        storage.create_new_trial(study_id, _frozen(each, its, distributions, len(directions)))
    return optuna.load_study(study_name="sweep", storage=storage, sampler=sampler)


def _frozen(
    told: Told, params: Params, distributions: Distributions, objectives: int
) -> FrozenTrial:
    outside = not params  # a failed trial then keeps its number, and teaches nothing
    state = TrialState.FAIL if outside else STATES[told.state]
    return _Known(
        number=-1,  # the storage gives it both
        trial_id=-1,
        state=state,
        value=None,
        values=None if outside else told.objectives,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={},
        system_attrs={},
        # With several objectives Optuna takes no values on the way (optuna#3450): such a trial
        # then is to its samplers one that was stopped, at no known height.
        intermediate_values={} if outside or objectives > 1 else dict(told.intermediate),
        datetime_start=BEGAN,
        datetime_complete=BEGAN if state.is_finished() else None,
    )


class _Known(FrozenTrial):
    """A trial that a study is made with: its storage copies it, but not what it holds, for that is
    never changed. Copying it all took most of the time of an ask."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Known:
        other = object.__new__(_Known)
        other.__dict__.update(self.__dict__)
        return other


def sampler_named(name: str, seed: int, startup_trials: int) -> BaseSampler:
    if name == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Grouped: parameters that occur together are modelled together, where they occur.
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup_trials, multivariate=True, group=True
            )
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup_trials)
    return optuna.samplers.RandomSampler(seed=seed)


class _Recorder:
    """Stands in for a trial, to learn the distributions that a space suggests from."""

    def __init__(self) -> None:
        self.distributions: Distributions = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        self.distributions[name] = FloatDistribution(low, high, step=step, log=log)
        return low

    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int:
        self.distributions[name] = IntDistribution(low, high, step=step)
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.distributions[name] = CategoricalDistribution(choices)
        return choices[0]


def distributions_of(space: Space) -> Distributions:
    """Every internal parameter's distribution, conditions left aside."""
    recorder = _Recorder()
    for path, parameter in space.parameters.items():
        parameter.suggest(path, recorder)
    return recorder.distributions


def anchored(params: Params, distributions: Distributions) -> Params:
    """With a constant for each parameter whose condition does not hold; empty if `params` is."""
    anchors = {name: _anchor(each) for name, each in distributions.items()}
    return {**anchors, **params} if params else {}


def _anchor(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low
