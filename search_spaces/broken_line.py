"""A straight line over the shares of a mixture that bends once, its bend averaged over, not chosen.

The other laws are smooth: they round off the bottom of a loss that turns sharply, where enough of
a source is enough, and lie above it by more than their doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.mixture_laws import Array

BENDS = 19  # places for the bend, for each source


@dataclass(frozen=True)
class BrokenLine:
    """loss(x) = a . x + b max(0, x_k - s): source k and place s are one of G pairs.

    With a flat prior on a and b that scales with the features (Zellner's g, grown large), a pair
    is as probable as its residuals are small: RSS ** -(free / 2).
    """

    sources: NDArray[np.intp]  # [G]
    places: Array  # [G]
    solvers: Array  # [G, K + 1, N]: these times the losses are the coefficients
    coefficients: Array  # [..., G, K + 1]
    weights: Array  # [..., G], of the pairs
    deviation: Array  # [..., G], of the noise

    def __call__(self, shares: Array) -> Array:
        features = _features(shares, self.sources, self.places)
        mean: Array = np.einsum("...g,...gp,gmp->...m", self.weights, self.coefficients, features)
        return mean

    def draws(self, shares: Array, noise: Array, rng: np.random.Generator) -> Array:
        """Curves [B, D, M] from the posterior of D series.

        `noise` [B, D, N] are standard normal draws of the noise of each trial.
        """
        count, series, trials = noise.shape
        features = _features(shares, self.sources, self.places)
        free = trials - features.shape[-1]
        drawn = np.empty((count, series, len(shares)))
        for d in range(series):
            pair = rng.choice(len(self.places), size=count, p=self.weights[d])
            size = self.deviation[d, pair] / np.sqrt(rng.chisquare(free, size=count) / free)
            off = np.einsum("bpn,bn->bp", self.solvers[pair], noise[:, d])
            coefficients = self.coefficients[d, pair] + size[:, None] * off
            drawn[:, d] = np.einsum("bp,bmp->bm", coefficients, features[pair])
        return drawn


def fit_broken_line(shares: Array, losses: Array) -> BrokenLine:
    """Least squares for every bend that has two shares on either side, or that lies on the second.

    Between two sources the bend of one is that of the other.
    """
    pairs: list[tuple[int, float]] = []
    for source in range(shares.shape[1] if shares.shape[1] > 2 else 1):
        inner = np.unique(shares[:, source])[1:-1]
        if len(inner):
            pairs += [(source, place) for place in np.linspace(inner[0], inner[-1], BENDS)]
    pairs = pairs or [(0, 1.0)]  # a bend past all shares is none
    sources, places = np.array([k for k, _ in pairs]), np.array([s for _, s in pairs])
    features = _features(shares, sources, places)
    solvers = np.linalg.pinv(features)
    coefficients = np.einsum("gpn,...n->...gp", solvers, losses)
    residuals = losses[..., None, :] - np.einsum("...gp,gnp->...gn", coefficients, features)
    squares = np.maximum((residuals**2).sum(axis=-1), 1e-16)
    free = len(shares) - features.shape[-1]
    logs = -free / 2 * np.log(squares)
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return BrokenLine(
        sources,
        places,
        solvers,
        coefficients,
        weights / weights.sum(axis=-1, keepdims=True),
        np.sqrt(squares / free),
    )


def _features(shares: Array, sources: NDArray[np.intp], places: Array) -> Array:
    """[G, M, K + 1]"""
    past = np.maximum(0.0, shares[:, sources].T - places[:, None])
    straight = np.broadcast_to(shares, (len(places), *shares.shape))
    return np.concatenate([straight, past[..., None]], axis=-1)
