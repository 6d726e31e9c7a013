"""What follows from the laws: which mix to propose, how sure that is, and what to try next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from search_spaces.law_comparison import Comparison
from search_spaces.mixture_laws import Array

LEVEL = 0.9
# Part of simulated sweeps in which an interval at `LEVEL` held the truth: the least and the most
# over the kinds of truth, for the proposed mix and for the best mix there is. From
# `benchmarks/law_coverage.py`; docs/results.md, 2026-11-25, the entry with a broken line.
HELD_BY_PROPOSED = (0.835, 0.98)
HELD_BY_BEST = (0.815, 0.975)
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(15)  # weights sum to sqrt(2 pi)


@dataclass(frozen=True)
class Decision:
    """Over candidate mixes [M, K]; `losses` are weighted over the datasets, lower is better.

    `objective` is the loss and what a mix costs beside it (its distance from the natural mix).
    """

    candidates: Array
    losses: Array  # [M]
    objective: Array  # [M]
    drawn_losses: Array  # [B, M]
    noise: float  # standard deviation of one trial's weighted loss

    @property
    def proposed(self) -> int:
        """The candidate that is proposed; of equals the first."""
        return int(self.objective.argmin())

    def regret(self) -> float:
        """Expected loss of the proposal above that of the best mix: how much doubt is left."""
        return float(self._drawn_regret().mean())

    def sure_within(self, tolerance: float) -> float:
        """How probable it is that no mix is better than the proposal by more than this."""
        return float((self._drawn_regret() <= tolerance).mean())

    def best_shares(self) -> tuple[Array, Array]:
        """Between which shares of each source the best mix lies, [K] and [K], at `LEVEL`."""
        best = self.candidates[self._drawn_objective().argmin(axis=-1)]
        return interval(best, method="nearest")

    def next_trial(self, running: Sequence[int] = ()) -> int:
        """The candidate whose trial is expected to take away most doubt.

        That is the one after which the mix that is then proposed is expected to be best (knowledge
        gradient, Frazier, Powell and Dayanik 2009, on the mean and covariance of the draws). At a
        mix that was tried already it is a repeated seed. `running`: candidates whose trials are
        under way; what they will say is no longer in doubt.
        """
        spread = self.drawn_losses - self.drawn_losses.mean(axis=0)
        covariance = spread.T @ spread / (len(spread) - 1)
        variance = self.noise**2 + 1e-12
        for place in running:
            seen = covariance[place]
            covariance = covariance - np.outer(seen, seen) / (seen[place] + variance)
        change = covariance / np.sqrt(np.diag(covariance) + variance)[:, None]
        # After a trial of i the objective of j is objective[j] + change[i, j] z, z standard normal.
        best = [(self.objective + change * node).min(axis=-1) for node in NODES]
        return int((NODE_WEIGHTS @ np.stack(best)).argmin())

    def _drawn_objective(self) -> Array:
        return self.drawn_losses + (self.objective - self.losses)

    def _drawn_regret(self) -> Array:
        objective = self._drawn_objective()
        return objective[:, self.proposed] - objective.min(axis=-1)


def decide(
    comparison: Comparison, candidates: Array, drawn: Array, weights: Array, penalty: Array
) -> Decision:
    """What `comparison` says of `candidates` [M, K].

    Args:
        drawn: curves [B, D, M] at the candidates, `comparison.draws`.
        weights: [D], of the datasets; they sum to 1.
        penalty: [M], added to the loss of each candidate where mixes are compared.
    """
    losses = weights @ comparison(candidates)
    noise = comparison.noise
    deviations = weights * noise.deviation
    return Decision(
        candidates=candidates,
        losses=losses,
        objective=losses + penalty,
        drawn_losses=np.einsum("d,bdm->bm", weights, drawn),
        noise=float(np.sqrt(deviations @ noise.correlation @ deviations)),
    )


def interval(drawn: Array, method: str = "linear") -> tuple[Array, Array]:
    """The middle `LEVEL` of draws [B, ...]."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0, method=method)  # type: ignore[call-overload]
    return low, high


def widest_gap(candidates: Array, tried: Array) -> int:
    """The candidate [M, K] farthest from all that was tried [N, K]; of equals the first."""
    apart = np.linalg.norm(candidates[:, None] - tried[None], axis=-1).min(axis=1, initial=np.inf)
    return int(np.round(apart, 9).argmax())


def even_mixes(sources: int, units: int) -> Array:
    """Every mix of shares that are multiples of 1 / units, [C(units + K - 1, K - 1), K]."""
    bars = list(combinations(range(units + sources - 1), sources - 1))
    places = np.array(bars, dtype=np.float64).reshape(len(bars), sources - 1)
    before, after = np.full((len(bars), 1), -1.0), np.full((len(bars), 1), units + sources - 1.0)
    return (np.diff(np.concatenate([before, places, after], axis=1), axis=1) - 1) / units


def descend(
    objective: Callable[[Array], Array],
    start: Array,
    units: int,
    allowed: Callable[[Sequence[float]], bool],
) -> Array:
    """The mixes [S, K] on the way down from `start` [K], the best last.

    A step moves a share, first a fifth and at last 1 / units, from one source to another.
    """
    mix = np.round(start * units).astype(int)
    mix[mix.argmax()] += units - mix.sum()
    way, least = [], np.inf
    if allowed((mix / units).tolist()):
        way, least = [mix], float(objective(mix[None] / units)[0])
    step = max(1, units // 5)
    moves = np.eye(len(mix), dtype=int)[:, None] - np.eye(len(mix), dtype=int)
    moves = moves.reshape(-1, len(mix))
    while True:
        near = [m for m in mix + step * moves if m.min() >= 0 and allowed((m / units).tolist())]
        losses = objective(np.array(near) / units) if near else np.array([np.inf])
        if losses.min() < least - 1e-12:
            mix, least = near[int(losses.argmin())], float(losses.min())
            way.append(mix)
        elif step == 1:
            return np.array(way).reshape(-1, len(mix)) / units
        else:
            step //= 2


def kl_divergence(shares: Array, natural: Array) -> Array:
    """KL(shares || natural) in nats, [M]; infinite where a source of no natural share is used."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(shares / natural), 0.0)
    return terms.sum(axis=-1)
