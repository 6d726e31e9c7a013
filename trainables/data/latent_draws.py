"""Random draws as a function of Gaussian numbers: what is made of them has a latent to move in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import betaincinv, ndtr


class LatentDraws(np.random.Generator):
    """Draws that follow from (z + scale w) / sqrt(1 + scale^2), with z and w standard normal.

    Each draw takes the next of these numbers through the inverse of its distribution, so it moves
    little for a small scale (an outcome of a choice seldom) and has the same distribution at every
    scale: what is drawn by a moved latent is as likely as by the first. At scale 0 nothing moves;
    for a large one the draws are those of another latent. Who draws one number more because a
    choice came out otherwise draws other numbers from there on.

    `z` and `w`: words of seeds. Only the methods below move.
    """

    def __init__(self, z: Sequence[int], w: Sequence[int], scale: float) -> None:
        super().__init__(np.random.PCG64(np.random.SeedSequence(z)))
        self._z, self._w = np.random.default_rng(z), np.random.default_rng(w)
        self._scale = scale

    def _latent(self, size: Any) -> Any:
        z, w = self._z.standard_normal(size), self._w.standard_normal(size)
        return (z + self._scale * w) / np.sqrt(1 + self._scale**2)

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        assert out is None
        drawn = np.minimum(ndtr(self._latent(size)), np.nextafter(1.0, 0.0))
        return float(drawn) if size is None else drawn.astype(dtype)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return low + (high - low) * self.random(size)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        assert out is None
        drawn = self._latent(size)
        return float(drawn) if size is None else drawn.astype(dtype)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return loc + scale * self.standard_normal(size)

    def beta(self, a: Any, b: Any, size: Any = None) -> Any:
        return betaincinv(a, b, self.random(size))

    def integers(
        self,
        low: Any,
        high: Any = None,
        size: Any = None,
        dtype: Any = np.int64,
        endpoint: bool = False,
    ) -> Any:
        first, last = (0, low) if high is None else (low, high)
        drawn = np.floor(self.uniform(first, last + endpoint, size))
        return int(drawn) if size is None else drawn.astype(dtype)

    def choice(
        self,
        a: Any,
        size: Any = None,
        replace: bool = True,
        p: Any = None,
        axis: int = 0,
        shuffle: bool = True,
    ) -> Any:
        assert size is None and axis == 0, "one of a list is all that generators choose"
        options = np.arange(a) if isinstance(a, int | np.integer) else np.asarray(a)
        parts = np.full(len(options), 1 / len(options)) if p is None else np.asarray(p)
        place = int(np.searchsorted(np.cumsum(parts), self.random(), side="right"))
        return options[min(place, len(options) - 1)]

    def permutation(self, x: Any, axis: int = 0) -> Any:
        assert axis == 0
        options = np.arange(x) if isinstance(x, int | np.integer) else np.asarray(x)
        return options[np.argsort(self._latent(len(options)))]
