"""Laws of loss over the shares of a mixture, each fitted to many series of losses at once.

A law is a family of curves over the simplex; one curve is fitted to each downstream dataset, on its
error. A mean over datasets is the mean of their curves: no law says what the mean of laws looks
like, and an exponential of the mean would be monotone and always recommend an end point.

Shapes: shares [N, K], losses [..., N]; a curve takes shares [M, K] and gives losses [..., M].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Curve: TypeAlias = Callable[[Array], Array]

HUBER = 2.0  # residuals past so many robust standard deviations count linearly
STEPS = 15  # of Levenberg and Marquardt, in each of two passes
# In units of a series' range, a weak normal prior on the exponents t: it keeps them finite where
# the data do not say, and decides nothing else.
PRIOR_MEAN, PRIOR_DEVIATION = -1.0, 2.5


@dataclass(frozen=True)
class Exponential:
    """loss(x) = c + exp(t . x): c [...], t [..., K] (data mixing laws, Ye et al. 2024; Olmix).

    There is no separate intercept in the exponent: as shares sum to 1, it is part of every t.
    """

    c: Array
    t: Array

    def __call__(self, shares: Array) -> Array:
        return self.c[..., None] + np.exp(self.t @ shares.T)


def fit_exponential(shares: Array, losses: Array) -> Exponential:
    """Robust least squares (Huber) from up to 2 K + 1 starts; the best of each series is kept."""
    series, low, spread = _in_units(losses)
    sources = shares.shape[1]
    eye = np.eye(sources)
    # The loss falls towards one source, rises towards one, or hardly depends on the mix.
    exponents = np.concatenate([2.0 * eye - 2.0, -2.0 * eye, np.full((1, sources), -1.0)])
    exponents = np.unique(exponents, axis=0)
    start = np.empty((len(exponents), len(series), 1 + sources))
    start[..., 1:] = exponents[:, None]
    start[..., 0] = (series - np.exp(exponents @ shares.T)[:, None]).mean(axis=-1)
    nowhere, tiny = np.full(len(series), np.inf), np.full(len(series), 1e-4)
    tried, costs = _minimise(shares, series, start, nowhere, tiny)
    best = tried[costs.argmin(axis=0), np.arange(len(series))]
    free = max(1, len(shares) - 1 - sources)
    for _ in range(2):  # the second time knowing better which residuals are outliers
        residuals = series - _values(shares, best)
        bend = _bend(residuals, 1 + sources)
        precision = (np.minimum(np.abs(residuals), bend[:, None]) ** 2).sum(axis=-1) / free
        best = _minimise(shares, series, best[None], bend, precision / PRIOR_DEVIATION**2)[0][0]
    c, t = best[:, 0], best[:, 1:]
    shape = losses.shape[:-1]
    return Exponential(
        (low + spread * c).reshape(shape),
        (t + np.log(spread)[:, None]).reshape(*shape, sources),
    )


def _values(shares: Array, parameters: Array) -> Array:
    return parameters[..., :1] + np.exp(np.minimum(parameters[..., 1:] @ shares.T, 50.0))


def _minimise(
    shares: Array, series: Array, start: Array, bend: Array, precision: Array
) -> tuple[Array, Array]:
    """Levenberg-Marquardt on every start [S, B, 1 + K] at once; the parameters and costs [S, B].

    `bend` [B]: where Huber's loss turns linear. `precision` [B]: of the prior, in units of the
    noise's.
    """
    bend, precision = bend[:, None], precision[:, None]
    is_exponent = np.arange(start.shape[-1]) > 0

    def look(parameters: Array) -> tuple[Array, Array, Array, Array]:
        """Exponentials, residuals, distances from the prior, cost."""
        grown = np.exp(np.minimum(parameters[..., 1:] @ shares.T, 50.0))
        residuals = series - parameters[..., :1] - grown
        size = np.abs(residuals)
        bent = np.minimum(size, bend)
        away = np.where(is_exponent, parameters - PRIOR_MEAN, 0.0)
        cost = (bent * (size - bent / 2)).sum(axis=-1) + (precision * away**2).sum(axis=-1) / 2
        return grown, residuals, away, cost

    parameters = start
    grown, residuals, away, costs = look(parameters)
    damping = np.full(costs.shape, 0.01)
    for _ in range(STEPS):
        slopes = grown[..., None] * shares
        jacobian = np.concatenate([np.ones((*slopes.shape[:-1], 1)), slopes], axis=-1)
        weighted = (
            jacobian * np.minimum(1.0, bend / np.maximum(np.abs(residuals), 1e-12))[..., None]
        )
        hessian = np.swapaxes(weighted, -1, -2) @ jacobian
        gradient = (weighted * residuals[..., None]).sum(axis=-2) - precision * away
        diagonal = np.einsum("...ii->...i", hessian)
        diagonal += precision * is_exponent
        diagonal += damping[..., None] * diagonal + 1e-9
        tried = parameters + np.linalg.solve(hessian, gradient[..., None])[..., 0]
        seen = look(tried)
        better = seen[-1] < costs
        parameters = np.where(better[..., None], tried, parameters)
        grown = np.where(better[..., None], seen[0], grown)
        residuals = np.where(better[..., None], seen[1], residuals)
        away = np.where(better[..., None], seen[2], away)
        costs = np.where(better, seen[3], costs)
        damping = np.where(better, damping / 5, damping * 4).clip(1e-7, 1e7)
    return parameters, costs


@dataclass(frozen=True)
class Linear:
    """loss(x) = b . z(x): b [..., P], with P features z of the shares."""

    coefficients: Array
    features: Callable[[Array], Array]  # [M, K] -> [M, P]

    def __call__(self, shares: Array) -> Array:
        return self.coefficients @ self.features(shares).T


def scheffe(shares: Array) -> Array:
    """x_i, and x_i x_j for i < j (Scheffé 1958): a quadratic on the simplex, [M, K (K + 1) / 2]."""
    pairs = combinations(range(shares.shape[1]), 2)
    return np.column_stack([shares, *(shares[:, i] * shares[:, j] for i, j in pairs)])


def fit_quadratic(shares: Array, losses: Array) -> Linear:
    """Robust least squares (Huber) of Scheffé's quadratic."""
    return _fit_linear(shares, losses, scheffe)


def _fit_linear(shares: Array, losses: Array, features: Callable[[Array], Array]) -> Linear:
    series, low, spread = _in_units(losses)
    design = features(shares)
    ridge = 1e-8 * np.eye(design.shape[1])
    weights = np.ones_like(series)
    coefficients = np.empty((len(series), design.shape[1]))
    for _ in range(8):
        weighted = design * weights[..., None]
        normal = np.swapaxes(weighted, -1, -2) @ design + ridge
        moments = (weighted * series[..., None]).sum(axis=-2)
        coefficients = np.linalg.solve(normal, moments[..., None])[..., 0]
        residuals = series - coefficients @ design.T
        bend = _bend(residuals, design.shape[1])[:, None]
        weights = np.minimum(1.0, bend / np.maximum(np.abs(residuals), 1e-12))
    # Back in the losses' own units: a constant is `low` on every source, as shares sum to 1.
    constant = np.linalg.lstsq(design, np.ones(len(design)), rcond=None)[0]
    coefficients = coefficients * spread[:, None] + low[:, None] * constant
    return Linear(coefficients.reshape(*losses.shape[:-1], -1), features)


@dataclass(frozen=True)
class Scaled:
    """loss_d(x) = a + b merged_d(x), b >= 0: a and b [..., D], `merged` gives [D, M]."""

    a: Array
    b: Array
    merged: Curve

    def __call__(self, shares: Array) -> Array:
        return self.a[..., None] + self.b[..., None] * self.merged(shares)


def fit_scaled(shares: Array, losses: Array, merged: Curve) -> Scaled:
    """Least squares on losses [..., D, N]; a loss that falls where the merge's rises has b = 0."""
    known = merged(shares)
    centred = known - known.mean(axis=-1, keepdims=True)
    away = losses - losses.mean(axis=-1, keepdims=True)
    spread = (centred**2).sum(axis=-1)
    b = (away * centred).sum(axis=-1) / np.maximum(spread, 1e-12)
    b = np.maximum(b, 0.0)
    return Scaled(losses.mean(axis=-1) - b * known.mean(axis=-1), b, merged)


def _in_units(losses: Array) -> tuple[Array, Array, Array]:
    """Series [B, N] from 0 to 1, and what they were shifted and divided by, [B]."""
    series = losses.reshape(-1, losses.shape[-1])
    low = series.min(axis=-1)
    spread = np.ptp(series, axis=-1)
    spread = np.where(spread > 1e-12, spread, 1.0)
    return (series - low[:, None]) / spread[:, None], low, spread


def _bend(residuals: Array, parameters: int) -> Array:
    """Where Huber's loss of each series turns linear, [B]; never, where none can be told.

    The scale is the median absolute residual, corrected for the parameters that were fitted, but
    not less than half the mean: half of few points may lie on the curve by chance.
    """
    count = residuals.shape[-1]
    if count < parameters + 3:
        return np.full(len(residuals), np.inf)
    correction = np.sqrt(count / (count - parameters))
    typical = 1.4826 * np.median(np.abs(residuals), axis=-1)
    least = np.abs(residuals).mean(axis=-1) / 2
    return HUBER * correction * np.maximum(np.maximum(typical, least), 1e-9)
