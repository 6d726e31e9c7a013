"""A sampler that pays for each stage once: improvement over the cost that is left.

Of many candidates it suggests the one with the greatest E[I(x)] / c(x)^eta, where c(x) is what a
trial at x still costs after all that is computed already, and eta falls from 1 to 0 as the budget
is spent (EEIPU, memoisation-aware search). Candidates are drawn at random and beside trials that
there are, so that many share their early stages; among those that promise nearly the same, the
cheapest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from scipy.special import erfcx, ndtr

from search_spaces.candidates import few_points, neighbours, random_points, untried
from search_spaces.parameters import Values
from search_spaces.space import Space, encode, sample
from search_spaces.surrogate import Array, features, fit, squared_distances

# Of each point: device-seconds that a trial there takes beside all that is computed or under way;
# infinite where that is more than the budget has left, or where the score is known already.
Costs: TypeAlias = Callable[[Sequence[Values]], Sequence[float]]

WHOLE = 768  # a space of at most so many points is looked at whole
RANDOM, BASES, BESIDE = 384, 12, 3  # else: at random, trials, and points a parameter beside each
PRICED, PRICED_BESIDE = 48, 16  # candidates whose cost is asked for: in all, and a parameter
OVERHEAD = 0.05  # of a typical trial's cost, that a trial of cached stages counts as
NEARLY = 0.02  # promise a cost that may be given up for a cheaper trial
DOUBT = 4.0  # variance of what a trial that did not end well tells, over that of a score


class CostAwareSampler(BaseSampler):
    """Suggestions are a pure function of the seed and the history, costs included.

    Args:
        distributions: of every internal parameter of `space`.
        spent: how much of the budget is spent, 0 to 1.
        startup_trials: trials that must be complete before scores are modelled; until then points
            lie far from those that there are, for their cost.
    """

    def __init__(
        self,
        space: Space,
        distributions: dict[str, BaseDistribution],
        *,
        costs: Costs,
        spent: float,
        seed: int,
        startup_trials: int,
    ) -> None:
        self._space = space
        self._distributions = distributions
        self._costs = costs
        self._eta = 1.0 - min(max(spent, 0.0), 1.0)
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._startup_trials = max(startup_trials, 1)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The internal parameters of one point; those whose condition does not hold are left out.

        Nothing where every point was tried: then each parameter is drawn at random.
        """
        self._raise_error_if_multi_objective(study)
        past = [each for each in study.get_trials(deepcopy=False) if each.params]
        past = [each for each in past if each.number != trial.number]
        points = self._candidates(past)
        if not points:
            return {}
        there = features(self._space, [self._values(each) for each in past])
        places = features(self._space, points)
        complete = [each for each in past if each.state == TrialState.COMPLETE]
        if len(complete) < self._startup_trials:
            apart = squared_distances(np.concatenate(places, 1), np.concatenate(there, 1))
            promise = np.log(apart.min(1, initial=1.0) + 1e-6) / 2
        else:
            sign = 1.0 if study.direction.name == "MAXIMIZE" else -1.0
            promise = self._promise(past, there, places, sign)
        differs = [squared_distances(a, b) > 1e-9 for a, b in zip(places, there, strict=True)]
        chosen = self._best(points, promise, differs)
        return dict(encode(self._space, points[chosen]))

    def _candidates(self, past: list[FrozenTrial]) -> list[Values]:
        tried = [each.params for each in past]
        if (every := few_points(self._space, WHOLE)) is not None:
            every = untried(self._space, every, tried)
            return [every[i] for i in self._rng.permutation(len(every))]  # ties fall by chance
        points = random_points(self._space, RANDOM, self._rng)
        known = [each for each in past if each.state != TrialState.FAIL]
        by_value = sorted(
            (each for each in known if each.state == TrialState.COMPLETE),
            key=lambda each: each.value or 0.0,
        )
        some = [known[i] for i in self._rng.permutation(len(known))]
        bases = [*by_value[: BASES // 3], *by_value[-BASES // 3 :], *some[: BASES // 3]]
        for base in {each.number: each for each in bases}.values():
            points += neighbours(self._space, base.params, BESIDE, self._rng)
        return untried(self._space, points, tried)

    def _promise(
        self, past: list[FrozenTrial], there: list[Array], places: list[Array], sign: float
    ) -> Array:
        """The logarithm of the expected improvement of each candidate."""
        states = np.array([each.state for each in past])
        complete, running = states == TrialState.COMPLETE, states == TrialState.RUNNING
        scores, ended = told_scores(past, sign), ~running
        doubt = np.where(complete, 1.0, DOUBT)
        process = fit([x[ended] for x in there], scores[ended], doubt[ended], self._rng)
        best = float(process.predict([x[complete] for x in there])[0].max())
        if running.any():
            process = process.believing([x[running] for x in there])
        mean, deviation = process.predict(places)
        return log_expected_improvement(mean, deviation, best)

    def _best(self, points: list[Values], promise: Array, differs: list[Any]) -> int:
        """The index of the greatest promise for its cost.

        Costs take time to find: they are asked for the most promising candidates, and for the most
        promising of those that differ from some trial in one parameter alone, for each parameter.

        `differs`, for each parameter [N, M]: whether candidate N differs from trial M in it.
        """
        order = np.argsort(-promise, kind="stable")
        priced = dict.fromkeys(order[:PRICED].tolist())
        one = np.sum(differs, axis=0, dtype=np.int8) == 1
        for parameter in differs:
            beside = (parameter & one).any(1)
            priced |= dict.fromkeys(order[beside[order]][:PRICED_BESIDE].tolist())
        chosen = np.array(list(priced))
        costs = np.array(self._costs([points[i] for i in chosen]), float)
        within = np.isfinite(costs)
        typical = float(costs[within].max(initial=0.0)) or 1.0
        counted = np.where(within, costs, 1.0) + OVERHEAD * typical
        value = np.where(within, promise[chosen] - self._eta * np.log(counted), -np.inf)
        nearly = np.flatnonzero(value >= value.max() + math.log(1 - NEARLY))
        return int(chosen[nearly[np.argmin(costs[nearly])]])

    def _values(self, trial: FrozenTrial) -> Values:
        return sample(self._space, FixedTrial(dict(trial.params)))


def told_scores(trials: Sequence[FrozenTrial], sign: float) -> Array:
    """`sign` x what each trial tells; NaN where it runs.

    A pruned trial stood somewhere among the complete ones at its last step: it counts as the score
    of that rank, at most as the median. A failed one counts as the worst.
    """
    complete = [each for each in trials if each.state == TrialState.COMPLETE]
    finals = [sign * float(each.value or 0.0) for each in complete]
    told = np.full(len(trials), np.nan)
    for index, each in enumerate(trials):
        if each.state == TrialState.COMPLETE:
            told[index] = sign * float(each.value or 0.0)
        elif each.state != TrialState.RUNNING:
            rank = 0.0
            if each.state == TrialState.PRUNED and each.intermediate_values:
                step, value = max(each.intermediate_values.items())
                others = [c.intermediate_values.get(step) for c in complete]
                worse = [sign * other < sign * value for other in others if other is not None]
                rank = float(np.mean(worse)) if worse else 0.0
            told[index] = float(np.quantile(finals, min(rank, 0.5)))
    return told


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """log E[max(0, f - best)], f normal; in a form that keeps small ones apart (Ament 2023)."""
    z = (mean - best) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    plain = np.log(np.maximum(density + z * ndtr(z), 1e-300))
    below = np.minimum(z, -1.0)
    # z Phi(z) / phi(z) through the scaled complementary error function, without cancellation.
    ratio = -below * math.sqrt(math.pi / 2) * erfcx(-below / math.sqrt(2))
    far = -(below**2) / 2 - math.log(2 * math.pi) / 2 + np.log(np.maximum(1 - ratio, 1e-16))
    return np.log(deviation) + np.where(z > -1.0, plain, far)
