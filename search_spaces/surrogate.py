"""A Gaussian process over the points of a search space: mixed, conditional and on simplexes.

Matérn 5/2 with a length for each parameter. Numbers lie in [0, 1] (a choice of numbers by its
rank), two different values of any other choice lie 1 apart, and so do two sources alone: a
simplex has one length, so that the order of its sources means nothing. A parameter that a point
does not have stands in the middle of its range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from search_spaces.parameters import ChoiceParameter, Values
from search_spaces.simplex_parameter import SimplexParameter
from search_spaces.space import Parameter, Space

Array: TypeAlias = NDArray[np.float64]
MOST_TO_FIT = 256  # trials that lengths and noise are learned from; all count in the prediction
# Normal priors on the logarithms: (mean, deviation); lengths grow with the root of the dimension.
LENGTH, NOISE = (math.log(0.5), 0.75), (math.log(0.1), 1.5)
PRIOR_TRIALS = 4.0  # what the prior on the signal's variance weighs: it is that of the scores


def features(space: Space, points: Sequence[Values]) -> list[Array]:
    """One array [N, d] a parameter of the space, in their order."""
    return [
        np.array([_place(parameter, point.get(path)) for point in points], float).reshape(
            len(points), len(_place(parameter, None))
        )
        for path, parameter in space.parameters.items()
    ]


def _place(parameter: Parameter, value: Any) -> list[float]:
    if isinstance(parameter, SimplexParameter):
        k = len(parameter.over)
        shares = [1 / k] * k if value is None else [value[source] for source in parameter.over]
        return [share / math.sqrt(2) for share in shares]
    if isinstance(parameter, ChoiceParameter):
        values = list(parameter.values)
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numbers and len(values) > 1:
            ranks = sorted(values)  # type: ignore[type-var]
            return [0.5 if value is None else ranks.index(value) / (len(ranks) - 1)]
        here = values.index(value) if value in values else None  # null may be a choice
        return [math.sqrt(0.5) * (i == here) for i in range(len(values))]
    if value is None:
        return [0.5]
    low, high, value = float(parameter.low), float(parameter.high), float(value)
    if getattr(parameter, "log", False):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return [(value - low) / (high - low)]


def squared_distances(one: Array, other: Array) -> Array:
    """[N, M]"""
    inner = 2 * one @ other.T
    return np.maximum((one**2).sum(1)[:, None] + (other**2).sum(1) - inner, 0.0)


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A fitted process. The mean is flat and unknown; its doubt is part of the deviation."""

    x: list[Array]
    lengths: Array  # [P]
    signal: float  # variance
    noise: Array  # [N], variance over the signal's
    root: Array  # [N, N], lower Cholesky factor of kernel + noise
    weighted: Array  # [N], (kernel + noise)^-1 (scores - mean)
    ones: Array  # [N], (kernel + noise)^-1 1
    mean: float

    def correlation(self, one: list[Array], other: list[Array]) -> Array:
        """[M, N]: between the scores of places, 0 to 1."""
        return _correlation(one, other, self.lengths)

    def predict(self, x: list[Array]) -> tuple[Array, Array]:
        """Mean and standard deviation [M] of what a point scores, its noise aside."""
        cross = self.correlation(x, self.x)
        explained = (solve_triangular(self.root, cross.T, lower=True) ** 2).sum(0)
        of_mean = (1 - cross @ self.ones) ** 2 / self.ones.sum()
        variance = self.signal * np.maximum(1 - explained + of_mean, 1e-12)
        return self.mean + cross @ self.weighted, np.sqrt(variance)

    def believing(self, x: list[Array]) -> Surrogate:
        """As if `x` had scored what is expected of them (a kriging believer: Ginsbourger 2010)."""
        scores = np.concatenate([self._scores(), self.predict(x)[0]])
        both = [np.concatenate(pair) for pair in zip(self.x, x, strict=True)]
        noise = np.concatenate([self.noise, np.full(len(x[0]), np.median(self.noise))])
        return _conditioned(both, scores, noise, self.lengths, self.signal)

    def _scores(self) -> Array:
        return self.mean + self.root @ (self.root.T @ self.weighted)


def fit(x: list[Array], scores: Array, doubt: Array, rng: np.random.Generator) -> Surrogate:
    """Lengths and noise by restricted maximum likelihood with weak priors.

    Args:
        scores: [N], at least one.
        doubt: [N], how much noisier each score is than a plain one (1.0), in variance.
        rng: which trials lengths are learned from, where there are more than MOST_TO_FIT.
    """
    level, spread = float(scores.mean()), float(scores.std())
    spread = spread if spread > 1e-12 else 1.0
    y = (scores - level) / spread
    some = np.arange(len(y))
    if len(y) > MOST_TO_FIT:  # the best, and others by chance
        best = np.argsort(-y, kind="stable")
        rest = rng.permutation(best[MOST_TO_FIT // 4 :])
        some = np.concatenate([best[: MOST_TO_FIT // 4], rest])[:MOST_TO_FIT]
    apart = np.stack([squared_distances(each[some], each[some]) for each in x])
    centre = np.full(len(x) + 1, LENGTH[0] + math.log(len(x)) / 2)
    centre[-1] = NOISE[0]
    found = minimize(
        _loss,
        centre,
        args=(apart, y[some], doubt[some], centre),
        jac=True,
        method="L-BFGS-B",
        bounds=[(math.log(0.02), math.log(50.0))] * len(x) + [(math.log(1e-4), math.log(10.0))],
        options={"maxiter": 40},
    )
    lengths, noise = np.exp(found.x[:-1]), float(np.exp(found.x[-1])) * doubt
    process = _conditioned(x, scores, noise, lengths, 1.0)
    squares = float((scores - process.mean) @ process.weighted) / spread**2
    signal = (squares + PRIOR_TRIALS) / (len(y) - 1 + PRIOR_TRIALS)
    return replace(process, signal=signal * spread**2)


def _loss(log: Array, apart: Array, y: Array, doubt: Array, centre: Array) -> tuple[float, Array]:
    """Minus the log posterior of log lengths and log noise, and its gradient.

    The restricted likelihood with the signal's variance at its best; see Rasmussen and Williams
    2006, sections 2.7 and 5.4.1.
    """
    lengths, noise = np.exp(log[:-1]), math.exp(log[-1])
    kernel, slope = _matern(np.tensordot(lengths**-2.0, apart, axes=1))
    root = cholesky(kernel + np.diag(noise * doubt + 1e-8), lower=True)
    inverse = cho_solve((root, True), np.eye(len(y)))
    ones = inverse.sum(0)
    projected = inverse - np.outer(ones, ones) / ones.sum()
    weighted = projected @ y
    free = len(y) - 1 + PRIOR_TRIALS
    squares = float(y @ weighted) + PRIOR_TRIALS
    deviation = np.full(len(log), LENGTH[1])
    deviation[-1] = NOISE[1]
    prior = (log - centre) / deviation
    loss = (
        free / 2 * math.log(squares)
        + float(np.log(np.diag(root)).sum())
        + math.log(ones.sum()) / 2
        + float(prior @ prior) / 2
    )
    pull = projected - free / squares * np.outer(weighted, weighted)
    gradient = np.empty(len(log))
    for p, length in enumerate(lengths):
        gradient[p] = (pull * slope * apart[p]).sum() / (2 * length**2)
    gradient[-1] = noise * float(np.diag(pull) @ doubt) / 2
    return loss, gradient + prior / deviation


def _conditioned(
    x: list[Array], scores: Array, noise: Array, lengths: Array, signal: float
) -> Surrogate:
    kernel = _correlation(x, x, lengths)
    root = cholesky(kernel + np.diag(noise + 1e-8), lower=True)
    ones = cho_solve((root, True), np.ones(len(scores)))
    mean = float(ones @ scores / ones.sum())
    return Surrogate(
        x=x,
        lengths=lengths,
        signal=signal,
        noise=noise,
        root=root,
        weighted=cho_solve((root, True), scores - mean),
        ones=ones,
        mean=mean,
    )


def _correlation(one: list[Array], other: list[Array], lengths: Array) -> Array:
    near, far = (
        np.concatenate([each / length for each, length in zip(x, lengths, strict=True)], axis=1)
        for x in (one, other)
    )
    return _matern(squared_distances(near, far))[0]


def _matern(squared: Array) -> tuple[Array, Array]:
    """The kernel, and its derivative by a log length over that parameter's scaled distance."""
    a = np.sqrt(5.0 * squared)
    decay = np.exp(-a)
    return (1 + a + a**2 / 3) * decay, 5.0 / 3.0 * (1 + a) * decay
