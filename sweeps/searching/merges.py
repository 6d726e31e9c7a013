"""Merged weights as a proxy of training on a mix (MergeMix, DeMix): no training, one pass.

An expert a source is what the baseline of that source alone trains. Between experts from one start,
W(a) = W_start + sum_k a_k (W_k - W_start) = sum_k a_k W_k, for shares sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import comb

import numpy as np

from search_spaces.gaussian_process import fit_gaussian_process
from search_spaces.law_decision import even_mixes
from search_spaces.mixture_laws import Array, Curve
from sweeps.searching.mixtures import Mixtures
from sweeps.sweep import Sweep
from trainables.data.catalog import Dataset
from trainables.data.mixture import PLACES
from trainables.stage import Stage
from trainables.stage_descriptions import merged_probes
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


class Merges:
    """The merges of a sweep's source-only baselines, `search.merge_proxy`.

    Raises:
        ValueError: `points` are so few that every merge would be an expert itself; the searched mix
            is not that of alignment.
    """

    def __init__(
        self,
        sweep: Sweep,
        points: int,
        mixtures: Mixtures,
        data: Mapping[str, Dataset],
        store: StageStore,
    ) -> None:
        sources = len(mixtures.sources)
        self.mixes = even_mixes(sources, _units(points, sources))
        self.datasets = sweep.settings.trial.downstream
        self._store = store
        self._losses: Array | None = None
        alone = [
            sweep.trial_with({mixtures.path: mixtures.named(mix)}, "an expert")
            for mix in np.eye(sources)
        ]
        self.experts = [trial_stages(trial, data).weights for trial in alone]
        if len({expert.identity for expert in self.experts}) < sources:
            raise ValueError(
                f"{mixtures.path} decides nothing of the sweep's own trial, so that its sources "
                "have no experts; set trial.average.method: none and align.epochs above 0"
            )
        self._probes = {
            name: merged_probes(alone[0], data[name], self.experts, self.mixes.tolist())
            for name in self.datasets
        }

    def stages(self) -> list[Stage]:
        """Those that score the merges."""
        return [probe for probes in self._probes.values() for probe in probes]

    def unscored(self) -> list[Stage]:
        """Those of `stages` that are still to run; none while an expert is missing."""
        if any(self._store.record(expert.identity) is None for expert in self.experts):
            return []
        return [each for each in self.stages() if self._store.record(each.identity) is None]

    def losses(self) -> Array | None:
        """1 - top-1 of the merges on the selection split, [D, M]; None until all are scored."""
        if self._losses is None:
            records = [self._store.record(probe.identity) for probe in self.stages()]
            known = [1 - record.metrics["accuracy"] for record in records if record is not None]
            if len(known) == len(records):
                self._losses = np.reshape(known, (len(self.datasets), -1))
        return self._losses

    def curve(self) -> Curve | None:
        """The merges' losses at any mix, smoothed; None until they are scored."""
        losses = self.losses()
        return None if losses is None else fit_gaussian_process(self.mixes, losses)


def _units(points: int, sources: int) -> int:
    """Of the finest lattice of no more than `points` mixes, whose shares can be trained on."""
    fine = (n for n in range(1, PLACES + 1) if PLACES % n == 0)
    units = max((n for n in fine if comb(n + sources - 1, sources - 1) <= points), default=1)
    if units < 2:
        raise ValueError(
            f"points {points} are too few for merges of {sources} sources; give "
            f"{comb(sources + 1, 2)} at least"
        )
    return units
