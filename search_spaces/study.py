"""What to try next: Optuna behind ask and tell.

Before each suggestion an in-memory study is rebuilt from what was told, and the sampler is seeded
with (sweep seed, trial number, draw). So a suggestion is a pure function of the seed, its number
and the history: an interrupted sweep asks for the points that an uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import optuna
from optuna.trial import FixedTrial

from search_spaces.cost_aware import CostAwareSampler, Costs
from search_spaces.parameters import Params, Values
from search_spaces.points import grid
from search_spaces.space import Space, encode, sample, shuffled
from search_spaces.told import (
    Direction,
    Encodings,
    State,
    Told,
    anchored,
    as_study,
    distributions_of,
    sampler_named,
)
from trainables.settings import nearest

SAMPLERS = ("cost_aware", "tpe", "gp", "random", "grid")
SAMPLER_DRAWS, RANDOM_DRAWS = 3, 50  # tries for a point that was not tried before
Ending: TypeAlias = Literal["complete", "failed", "pruned"]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of a point: from a stored trial, or from a trial of an earlier sweep."""

    values: Values  # dotted path -> value; outside the space, the sampler does not see it
    state: State
    objectives: tuple[float, ...] | None = None  # one a direction; None: it is not complete
    intermediate: Mapping[int, float] = field(default_factory=dict)  # step -> value on the way
    settled: bool = True  # a trial there would end the same again, so it is not suggested


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A trial to run. `params` (Optuna's names and values) is empty outside the search space."""

    number: int
    params: Params
    values: Values  # dotted path -> value


class Study:
    """Suggests points that are best by its objectives. Trials are numbered from 0 without gaps.

    Args:
        sampler: one of SAMPLERS. `gp` needs torch and scipy.
        seed: of the sweep.
        startup_trials: trials that must be complete before `tpe` and `gp` model the objectives;
            until then they draw at random.
        directions: of the objectives, one or several.
        past: the stored trials in the order of their numbers. Unfinished ones count as running.
            Their values are encoded anew, so that the space may be another than they came from.
        earlier: what other sweeps found. They have no numbers here.
        costs: what trials at some points still cost; `cost_aware` goes by it.

    Raises:
        ValueError: no such sampler; a grid over a parameter that has no steps.
    """

    def __init__(
        self,
        space: Space,
        *,
        sampler: str,
        seed: int,
        startup_trials: int,
        directions: Sequence[Direction] = ("maximize",),
        past: Iterable[Observation] = (),
        earlier: Iterable[Observation] = (),
        costs: Costs = lambda points: [1.0] * len(points),
    ) -> None:
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler {sampler!r} is unknown{nearest(sampler, list(SAMPLERS))}")
        if sampler == "grid":
            grid(space)  # raises where there is none
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # not a line for every study made
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._startup_trials = startup_trials
        self._costs = costs
        self._directions = list(directions)
        self._told = [self._observed(trial) for trial in past]
        self._earlier = [self._observed(trial) for trial in earlier]
        self._encodings = Encodings()

    def add(self, values: Values) -> Suggestion:
        """Take up a given point: a baseline, or one that a person asks for.

        A point outside the search space is a trial like any other, unseen by the sampler.
        """
        return self._take(self._encoded(values), values)

    def ask(
        self, *, spent: float = 0.0, affordable: Callable[[Values], bool] = lambda values: True
    ) -> Suggestion | None:
        """The next point to try; None once every point of the grid is taken, or none is affordable.

        A point that was tried would score the same again, so it is drawn anew: by the sampler, then
        at random. It is repeated only where all of that fails, in a space that is used up.

        Args:
            spent: how much of the sweep's budget or trials is spent, 0 to 1.
            affordable: whether the budget has room for a trial at these values.
        """
        taken = [told.params for told in [*self._earlier, *self._told] if told.settled]
        if self._sampler == "grid":
            for values in grid(self._space):
                params = encode(self._space, values)
                if params not in taken and affordable(values):
                    return self._take(params, values)
            return None
        repeated: tuple[Params, Values] | None = None
        new = False
        for attempt in range(SAMPLER_DRAWS + RANDOM_DRAWS):
            name = self._sampler if attempt < SAMPLER_DRAWS else "random"
            values = self._draw(name, attempt, spent)
            params = encode(self._space, values)  # those of the rounded shares, not those drawn
            if params in taken:
                repeated = (params, values)
            elif affordable(values):
                return self._take(params, values)
            else:
                new = True
        return None if new or repeated is None else self._take(*repeated)

    def report(self, number: int, step: int, value: float) -> None:
        """An intermediate value of a running trial."""
        self._told[number].intermediate[step] = value

    def tell(self, number: int, state: Ending, objectives: Sequence[float] | None = None) -> State:
        """End a trial. Returns its state: a complete one with a value that is not finite failed."""
        told = self._told[number]
        assert told.state in ("waiting", "running"), f"trial {number} has been told {told.state}"
        told.state, told.objectives = self._ended(state, objectives)
        return told.state

    def _take(self, params: Params, values: Values) -> Suggestion:
        self._told.append(Told(params, values))
        return Suggestion(number=len(self._told) - 1, params=dict(params), values=dict(values))

    def _observed(self, trial: Observation) -> Told:
        state, objectives = self._ended(trial.state, trial.objectives)
        params, steps = self._encoded(trial.values), dict(trial.intermediate)
        return Told(params, trial.values, state, objectives, steps, trial.settled)

    def _encoded(self, values: Values) -> Params:
        try:
            return encode(self._space, values)
        except ValueError:
            return {}

    def _ended(
        self, state: State, objectives: Sequence[float] | None
    ) -> tuple[State, tuple[float, ...] | None]:
        if state != "complete":
            return state, None
        if objectives is None or not all(map(math.isfinite, objectives)):
            return "failed", None
        assert len(objectives) == len(self._directions), f"{objectives} for {self._directions}"
        return state, tuple(objectives)

    def _draw(self, name: str, attempt: int, spent: float) -> Values:
        seeds = np.random.SeedSequence((self._seed, len(self._told), attempt))
        seed = int(seeds.generate_state(1)[0])
        space = shuffled(self._space, str(seed))
        distributions = distributions_of(space)
        sampler: optuna.samplers.BaseSampler
        if name == "cost_aware":
            sampler = CostAwareSampler(
                space,
                distributions,
                costs=self._costs,
                spent=spent,
                seed=seed,
                startup_trials=self._startup_trials,
            )
        else:
            sampler = sampler_named(name, seed, self._startup_trials)
        told = [*self._earlier, *self._told]
        params = self._encodings.params(space, told)
        if self._sampler == "gp":
            params = [anchored(each, distributions) for each in params]
        study = as_study(told, params, distributions, self._directions, sampler)
        if name == "gp":
            # The GP models only parameters that every trial has: draw all, keep what holds.
            values = sample(space, FixedTrial(study.ask(distributions).params))
        else:
            values = sample(space, study.ask())
        return sample(self._space, FixedTrial(encode(self._space, values)))  # in the file's order
