"""Which law fits best, by leaving each mix out; and curves that all of them together hold possible.

Every law is fitted to each dataset's losses. Laws are weighed, dataset by dataset, by how well they
foretell a mix that they have not seen, and draws of the curve come from all of them in these
proportions: the doubt holds the noise of training, the parameters, and which law is true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search_spaces.broken_line import BrokenLine, fit_broken_line
from search_spaces.gaussian_process import GaussianProcess, fit_gaussian_process
from search_spaces.mixture_laws import (
    Array,
    Curve,
    fit_exponential,
    fit_quadratic,
    fit_scaled,
)

DRAWS = 400
ENOUGH_REPEATS = 3  # degrees of freedom from which repeated seeds alone give the noise
ENOUGH_MIXES = 3  # of several sources, from which laws are judged by these alone
SHARPNESS = 4.0  # a law that errs twice as much weighs 2 ** -SHARPNESS as much


@dataclass(frozen=True)
class Law:
    """A family of curves. `fit` takes shares [N, K] and losses [..., D, N]."""

    fit: Callable[[Array, Array], Curve]
    parameters: Callable[[int], int]  # sources -> how many it has


LAWS = {
    "exponential": Law(fit_exponential, lambda sources: sources + 1),
    "quadratic": Law(fit_quadratic, lambda sources: sources * (sources + 1) // 2),
    "broken line": Law(fit_broken_line, lambda sources: sources + 2),
    "gaussian process": Law(fit_gaussian_process, lambda sources: 2),
}
MERGES = "merged weights"  # a + b times the loss of merged weights


def mixes_needed(sources: int) -> int:
    """Different mixes from which laws can be compared: what the exponential has, and one more."""
    return LAWS["exponential"].parameters(sources) + 1


@dataclass(frozen=True)
class Noise:
    """Of one trial's loss: standard deviations [D] of the datasets, and how they are known."""

    deviation: Array
    correlation: Array  # [D, D]
    repeats: int  # degrees of freedom that come from repeated seeds
    from_repeats: bool  # from these alone; else from the residuals of the laws


@dataclass(frozen=True)
class Comparison:
    """Laws fitted to losses [D, N] at shares [N, K]."""

    shares: Array
    losses: Array
    laws: Mapping[str, Law]
    curves: Mapping[str, Curve]
    errors: Mapping[str, Array]  # root mean square, leaving one mix out, [D]
    weights: Mapping[str, Array]  # [D]
    noise: Noise

    def __call__(self, shares: Array) -> Array:
        """The weighted mean of the laws, [D, M]."""
        return _weighted(self.curves, self.weights, shares)

    def best(self) -> str:
        """The law that foretells best over all datasets, by the geometric mean of its errors."""
        return min(self.errors, key=lambda name: float(np.log(self.errors[name] + 1e-9).sum()))

    def alone(self, name: str) -> Comparison:
        """As if this law were known to be the true one."""
        weights = {law: np.full(len(self.losses), float(law == name)) for law in self.laws}
        return replace(self, weights=weights)

    def draws(self, shares: Array, seed: int, count: int = DRAWS) -> Array:
        """Curves [B, D, M]: of each law in proportion to its weight.

        A Gaussian process and a broken line draw from their posterior, the others are fitted again
        to what they foretell with new noise (parametric bootstrap). How large the noise is each law
        judges by its own residuals, so that one that fits badly is in more doubt; and the size is
        itself drawn, for few trials say little of it.
        """
        rng = np.random.default_rng(seed)
        series, trials = self.losses.shape
        root = np.linalg.cholesky(self.noise.correlation)
        noise = np.einsum("de,ben->bdn", root, rng.standard_normal((count, series, trials)))
        weights = np.stack([*self.weights.values()])
        chosen = np.stack(
            [rng.choice(len(weights), size=count, p=weights[:, d]) for d in range(series)], axis=-1
        )
        drawn = np.empty((count, series, len(shares)))
        for index, (name, curve) in enumerate(self.curves.items()):
            those = chosen == index
            if not those.any():
                continue
            if isinstance(curve, GaussianProcess | BrokenLine):
                of_law = curve.draws(shares, noise, rng)
            else:
                law, fitted = self.laws[name], curve(self.shares)
                free = trials - law.parameters(self.shares.shape[1])
                squares = ((self.losses - fitted) ** 2).sum(axis=-1, keepdims=True)
                chi = rng.chisquare(free, size=(count, series, 1))
                of_law = law.fit(self.shares, fitted + np.sqrt(squares / chi) * noise)(shares)
            drawn[those] = of_law[those]
        return drawn


def compare(shares: Array, losses: Array, merges: Curve | None = None) -> Comparison:
    """Fit and weigh every law that the data can hold.

    Args:
        shares: [N, K]; a mix may stand there several times, from several seeds.
        losses: [D, N].
        merges: losses [D, M] of merged weights at shares [M, K], where they were scored.

    Raises:
        ValueError: too few different mixes, or a loss that is no finite number.
    """
    if not np.isfinite(losses).all():
        raise ValueError("a loss is no finite number; leave its trial out")
    mixes, mix_of = np.unique(shares, axis=0, return_inverse=True)
    mix_of = mix_of.reshape(-1)
    sources = shares.shape[1]
    if len(mixes) < (needed := mixes_needed(sources)):
        raise ValueError(
            f"laws over {sources} sources need {needed} different mixes, there are {len(mixes)}: "
            f"{needed - len(mixes)} more"
        )
    laws = {name: law for name, law in LAWS.items() if len(mixes) > law.parameters(sources)}
    if merges is not None:
        laws[MERGES] = Law(lambda at, series: fit_scaled(at, series, merges), lambda sources: 2)
    judged_by = np.arange(len(mixes))
    if merges is not None:
        # Of one source alone the merge is what was trained: left out, its loss would still be told.
        several = np.flatnonzero((mixes > 0).sum(axis=1) > 1)
        judged_by = several if len(several) >= ENOUGH_MIXES else judged_by
    squares = {name: np.zeros(losses.shape) for name in laws}
    for left_out in judged_by:
        out, kept = mix_of == left_out, mix_of != left_out
        for name, law in laws.items():
            curve = law.fit(shares[kept], losses[:, kept])
            squares[name][:, out] = (losses[:, out] - curve(shares[out])) ** 2
    counted = np.isin(mix_of, judged_by)
    errors = {name: np.sqrt(each[:, counted].mean(axis=-1)) for name, each in squares.items()}
    logs = np.stack([-SHARPNESS * np.log(error + 1e-9) for error in errors.values()])
    shared = np.exp(logs - logs.max(axis=0))
    weights = dict(zip(laws, shared / shared.sum(axis=0), strict=True))
    curves = {name: law.fit(shares, losses) for name, law in laws.items()}
    taken = sum(
        weights[name]
        * (
            curve.degrees()
            if isinstance(curve, GaussianProcess)
            else laws[name].parameters(sources)
        )
        for name, curve in curves.items()
    )
    noise = _noise(losses, mix_of, _weighted(curves, weights, shares), np.asarray(taken))
    return Comparison(shares, losses, laws, curves, errors, weights, noise)


def _weighted(curves: Mapping[str, Curve], weights: Mapping[str, Array], shares: Array) -> Array:
    parts = [weights[name][:, None] * curve(shares) for name, curve in curves.items()]
    return np.sum(parts, axis=0)


def _noise(losses: Array, mix_of: NDArray[np.intp], fitted: Array, taken: Array) -> Noise:
    """From repeated seeds of the same mix where there are enough, else from what no law explains.

    `taken` [D]: degrees of freedom that the fit took up.
    """
    mixes = range(int(mix_of.max()) + 1)
    means = np.stack([losses[:, mix_of == mix].mean(axis=-1) for mix in mixes], axis=-1)
    repeats = len(mix_of) - len(mixes)
    from_repeats = repeats >= ENOUGH_REPEATS
    residuals = losses - (means[:, mix_of] if from_repeats else fitted)
    degrees = np.full(len(losses), float(repeats))
    if not from_repeats:
        degrees = np.maximum(len(mix_of) - taken, 1.0)
    squares = residuals @ residuals.T
    size = np.sqrt(np.diag(squares)).clip(1e-9)
    few = 4.0 / (4.0 + degrees.mean())  # a correlation from few is drawn towards none
    correlation = (1 - few) * squares / np.outer(size, size)
    np.fill_diagonal(correlation, 1.0)
    return Noise(size / np.sqrt(degrees), correlation, repeats, from_repeats)
