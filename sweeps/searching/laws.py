"""Laws of the score over the mix: of which trials, which mix they ask for next, what they say.

They are fitted to mixtures that differ in nothing but mix and seed: a share that was measured at
other epochs, or in another average, says little of this one. Of such groups the one with the best
trial is taken, as long as it has mixes enough, or will have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from search_spaces.law_comparison import Comparison, compare, mixes_needed
from search_spaces.law_decision import (
    Decision,
    decide,
    descend,
    even_mixes,
    kl_divergence,
    widest_gap,
)
from search_spaces.mixture_laws import Array
from sweeps.planning.stage_facts import excess_repetition
from sweeps.records import TrialRecord
from sweeps.search_settings import LawSettings
from sweeps.searching.merges import Merges
from sweeps.searching.mixtures import Group, Mixtures
from sweeps.sweep import Sweep
from trainables.data.catalog import Dataset

MOST_CANDIDATES = 300  # a lattice as fine as this allows, and no finer than 0.01


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The laws of one group, and what they say of its candidates."""

    group: Group
    comparison: Comparison
    candidates: Array  # [M, K]
    drawn: Array  # [B, D, M], losses
    decision: Decision


class Laws:
    """The laws of one sweep, `search.law`."""

    def __init__(
        self,
        sweep: Sweep,
        settings: LawSettings,
        mixtures: Mixtures,
        merges: Merges | None,
        data: Mapping[str, Dataset],
    ) -> None:
        self.mixtures, self.settings = mixtures, settings
        self.datasets = sweep.settings.trial.downstream
        self.seed = sweep.settings.search.seed
        self._sweep, self._merges, self._data = sweep, merges, data
        self.needed = mixes_needed(len(mixtures.sources))

    @property
    def weights(self) -> Array:
        """Of the downstream datasets, [D]; they sum to 1."""
        given = self.settings.weights
        weights = np.array([1.0 if given is None else given.get(d, 0.0) for d in self.datasets])
        return weights / weights.sum()

    def next_values(self, records: Sequence[TrialRecord], left: int) -> dict[str, Any] | None:
        """The trial that takes away most doubt; None where no mixture was completed yet.

        While there are too few mixes for a law, or all score the same, it fills the widest gap.
        `left`: trials that the laws may still choose, this one included.
        """
        groups = self.mixtures.groups(records)
        enough = [g for g in groups if g.mixes(unfinished=True) + left >= self.needed]
        if not enough:
            return None
        group = enough[0]
        candidates = self._candidates(group)
        fitted = self._fit(group, candidates)
        if fitted is None:
            tried = np.array([each.shares for each in group.members])
            chosen = candidates[widest_gap(candidates, tried)]
        else:
            candidates = fitted.candidates
            waiting = [each.shares for each in group.waiting]
            running = [i for i, mix in enumerate(candidates) if tuple(mix.tolist()) in waiting]
            chosen = candidates[fitted.decision.next_trial(running)]
        return self._values(group, chosen)

    def fit(self, records: Sequence[TrialRecord]) -> Fitted | str:
        """The laws of the finished trials, or why there are none."""
        groups = self.mixtures.groups(records)
        most = max((group.mixes(unfinished=False) for group in groups), default=0)
        enough = [g for g in groups if g.mixes(unfinished=False) >= self.needed]
        if not enough:
            return (
                f"laws over {len(self.mixtures.sources)} sources need {self.needed} different "
                f"mixes that differ in nothing else; at most {most} were completed, "
                f"{self.needed - most} more are needed"
            )
        fitted = self._fit(enough[0], self._candidates(enough[0]))
        if fitted is None:
            return "all mixes score the same, so that nothing sets them apart"
        return fitted

    def _fit(self, group: Group, candidates: Array) -> Fitted | None:
        if group.mixes(unfinished=False) < self.needed:
            return None
        shares = np.array([each.shares for each in group.complete])
        losses = 1 - np.array(
            [[each.record.scores[name] for each in group.complete] for name in self.datasets]
        )
        if not np.ptp(losses, axis=-1).any():
            return None
        comparison = compare(shares, losses, self._merges.curve() if self._merges else None)
        natural, cost = self.mixtures.natural(), self.settings.kl_to_natural

        def penalty(mixes: Array) -> Array:
            return cost * kl_divergence(mixes, natural) if cost else np.zeros(len(mixes))

        def objective(mixes: Array) -> Array:
            return self.weights @ comparison(mixes) + penalty(mixes)

        if shares.shape[1] > 3:  # too coarse a lattice to be the last word
            start = candidates[objective(candidates).argmin()]
            units = min(100, self.mixtures.simplex.units)
            finer = descend(objective, start, units, self._allowed(group))
            candidates = np.unique(np.concatenate([candidates, finer]), axis=0)
        drawn = comparison.draws(candidates, seed=self.seed)
        decision = decide(comparison, candidates, drawn, self.weights, penalty(candidates))
        return Fitted(
            group=group,
            comparison=comparison,
            candidates=candidates,
            drawn=drawn,
            decision=decision,
        )

    def _candidates(self, group: Group) -> Array:
        """Mixes of the space that no cap forbids, and those of the group: they can be repeated."""
        sources, units = len(self.mixtures.sources), self.mixtures.simplex.units
        fits = [
            each
            for each in range(1, min(units, 100) + 1)
            if units % each == 0 and comb(each + sources - 1, sources - 1) <= MOST_CANDIDATES
        ]
        allowed = self._allowed(group)
        mixes = [mix for mix in even_mixes(sources, fits[-1]).tolist() if allowed(mix)]
        mixes += sorted({each.shares for each in group.complete})
        return np.array([*dict.fromkeys(map(tuple, mixes))])

    def _allowed(self, group: Group) -> Callable[[Sequence[float]], bool]:
        path, simplex = self.mixtures.path, self.mixtures.simplex
        values = group.best.record.values
        best = self._sweep.trial_with(values, "the best trial")
        capped = any(each and each.mixture.max_repetition for each in (best.mae, best.align))

        def allowed(mix: Sequence[float]) -> bool:
            shares = self.mixtures.named(mix)
            try:
                simplex.encode(path, shares)
            except ValueError:  # past a limit of the space
                return False
            if not capped:
                return True
            trial = self._sweep.trial_with({**values, path: shares}, "a mix of the law")
            return excess_repetition(trial, self._data) is None

        return allowed

    def _values(self, group: Group, mix: Array) -> dict[str, Any]:
        """The best trial's settings with this mix, under a seed that the mix has not had."""
        shares = tuple(mix.tolist())
        seeds = {each.seed for each in group.members if each.shares == shares}
        seed = self._sweep.settings.trial.seed
        while seed in seeds:
            seed += 1
        values = {**group.best.record.values, self.mixtures.path: self.mixtures.named(shares)}
        values.pop("seed", None)
        return values if seed == self._sweep.settings.trial.seed else {**values, "seed": seed}
