"""Trials that are chosen beside the sampler: the best merge's mix, and the laws' last trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search_spaces.mixture_laws import Array
from search_spaces.space import Space
from sweeps.planning.stage_facts import stage_clips
from sweeps.records import Origin, TrialRecord
from sweeps.searching.given import GivenTrial
from sweeps.searching.laws import Laws
from sweeps.searching.merges import Merges
from sweeps.searching.mixtures import Mixtures
from sweeps.sweep import Sweep
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import StageStore


class Proposals:
    """Of one sweep; both `laws` and `merges` are None where it asks for neither.

    Raises:
        ValueError: the space has no simplex, or several; see `Merges`.
    """

    def __init__(self, sweep: Sweep, space: Space, data: Mapping[str, Dataset]) -> None:
        search = sweep.settings.search
        self.laws: Laws | None = None
        self.merges: Merges | None = None
        if search.law is None and search.merge_proxy is None:
            return
        where = "search.merge_proxy" if search.law is None else "search.law"
        try:
            self.mixtures = Mixtures(sweep, space, data)
            if search.merge_proxy is not None:
                where, store = "search.merge_proxy", StageStore(sweep.storage / "stages")
                points = search.merge_proxy.points
                self.merges = Merges(sweep, points, self.mixtures, data, store)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if search.law is not None:
            self.laws = Laws(sweep, search.law, self.mixtures, self.merges, data)

    @property
    def weights(self) -> Array:
        """Of the downstream datasets, [D]; they sum to 1."""
        if self.laws:
            return self.laws.weights
        assert self.merges is not None
        return np.full(len(self.merges.datasets), 1 / len(self.merges.datasets))

    def next(
        self, records: Sequence[TrialRecord], left: int
    ) -> tuple[Origin, dict[str, Any]] | None:
        """Origin and values of the next trial; None where the sampler is to choose it.

        `left`: trials of the sweep that are not chosen yet and that its budget has room for.
        """
        if values := self._best_merge(records):
            return "proxy", values
        if self.laws and left <= self.laws.settings.last_trials:
            if values := self.laws.next_values(records, left):
                return "law", values
        return None

    def _best_merge(self, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
        """Training on the best merge's mix, once: where the proxy is right it is a good start."""
        if self.merges is None or (losses := self.merges.losses()) is None:
            return None
        best = self.merges.mixes[(self.weights @ losses).argmin()]
        values = {self.mixtures.path: self.mixtures.named(best)}
        look = self.mixtures.look(values)
        return None if look in map(self.mixtures.look_at, records) else values

    def stages(self) -> list[Stage]:
        """What they make beside the trials: passes over the merges, and the probes of these."""
        probes = self.merges.stages() if self.merges else []
        passes = {each.identity: each for probe in probes for each in probe.inputs.values()}
        return [*passes.values(), *probes]

    def lines(self, data: Mapping[str, Dataset]) -> list[str]:
        """What they add to the plan, in sentences."""
        lines = []
        if self.merges:
            clips = sum(stage_clips(stage, data) for stage in self.stages())
            lines.append(
                f"{len(self.merges.mixes)} merges of the {len(self.merges.experts)} source-only "
                f"baselines are scored before the search: {clips:,} clips, nothing is trained."
            )
        if self.laws and (last := self.laws.settings.last_trials):
            lines.append(f"The last {last} trials are chosen by laws over the mix.")
        return lines

    def check(self, given: Sequence[GivenTrial], trials: int) -> None:
        """Whether what is asked for can come about in a sweep of so many trials.

        Raises:
            ValueError: too few mixes for a law, with how many more; a source has no baseline.
        """
        if self.laws is None and self.merges is None:
            return
        to_run = given[:trials]
        looks = [look for each in to_run if (look := self.mixtures.look(each.values))]
        if self.laws:
            mixes: dict[tuple[str, ...], set[tuple[float, ...]]] = {}
            for look in looks:
                mixes.setdefault(look.settings, set()).add(look.shares)
            most = max(map(len, mixes.values()), default=0) + trials - len(to_run)
            if (lacking := self.laws.needed - most) > 0:
                raise ValueError(
                    f"search.law: {len(self.mixtures.sources)} sources need {self.laws.needed} "
                    f"different mixes that differ in nothing else, and {trials} trials can have "
                    f"{most} at most; raise search.trials by {lacking}, or set law: null"
                )
        if self.merges:
            for place, source in enumerate(self.mixtures.sources):
                mix = tuple(float(place == i) for i in range(len(self.mixtures.sources)))
                own = self.mixtures.look({self.mixtures.path: self.mixtures.named(mix)})
                if own not in looks:
                    raise ValueError(
                        f"search.merge_proxy: its expert of {source!r} is what the baseline of "
                        "that source alone trains, and there is none; set baselines: true and "
                        "let max_repetition admit it, or set merge_proxy: null"
                    )
