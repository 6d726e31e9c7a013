"""The mixtures among a sweep's trials, in groups that differ in nothing but mix and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search_spaces.simplex_parameter import SimplexParameter
from search_spaces.space import Space
from sweeps.records import TrialRecord
from sweeps.searching.sampler_view import at
from sweeps.sweep import Sweep
from trainables.data.catalog import Dataset
from trainables.data.mixture import exact_shares
from trainables.trial import trial_stages


class Look(NamedTuple):
    """What a mixture is."""

    shares: tuple[float, ...]  # of the simplex's sources, in their order
    seed: int
    settings: tuple[str, ...]  # the same for all trials that differ in mix and seed alone


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A trial whose score depends on its shares."""

    record: TrialRecord
    shares: tuple[float, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """Mixtures with the same settings, by number."""

    members: tuple[Mixture, ...]
    settings: tuple[str, ...]

    @property
    def complete(self) -> tuple[Mixture, ...]:
        return tuple(each for each in self.members if each.record.score is not None)

    @property
    def best(self) -> Mixture:
        """The best that is complete, of equals the first."""
        return max(self.complete, key=lambda each: (each.record.score, -each.record.number))

    @property
    def waiting(self) -> tuple[Mixture, ...]:
        return tuple(each for each in self.members if not each.record.finished)

    def mixes(self, *, unfinished: bool) -> int:
        """How many different mixes are complete, or will be with those that are under way."""
        counted = self.complete + (self.waiting if unfinished else ())
        return len({each.shares for each in counted})


class Mixtures:
    """What is a mixture, and of which group, in a sweep whose space has one simplex."""

    def __init__(self, sweep: Sweep, space: Space, data: Mapping[str, Dataset]) -> None:
        self.path, self.simplex = simplex_of(space)
        self.sources = self.simplex.over
        self._sweep, self._data = sweep, data
        self.sizes = {name: len(dataset.split("train")) for name, dataset in data.items()}
        self._looks: dict[int, Look | None] = {}  # by number

    def groups(self, records: Iterable[TrialRecord]) -> list[Group]:
        """The groups that have a complete trial, the one with the best score first.

        Of trials that are the same in all, mix and seed too, one stands for all.
        """
        by_settings: dict[tuple[str, ...], dict[Any, Mixture]] = {}
        for record in records:
            if (look := self.look_at(record)) is None:
                continue
            members = by_settings.setdefault(look.settings, {})
            twin = members.get((look.shares, look.seed))
            if twin is None or twin.record.score is None:
                mixture = Mixture(record=record, shares=look.shares, seed=look.seed)
                members[look.shares, look.seed] = mixture
        groups = [
            Group(members=tuple(members.values()), settings=settings)
            for settings, members in by_settings.items()
        ]
        complete = [group for group in groups if group.complete]
        return sorted(complete, key=lambda g: (-(g.best.record.score or 0.0), g.best.record.number))

    def named(self, shares: Iterable[float]) -> dict[str, float]:
        return {source: float(share) for source, share in zip(self.sources, shares, strict=True)}

    def natural(self) -> NDArray[np.float64]:
        """Shares in proportion to the clips that the sources have."""
        sizes = np.array([float(self.sizes[source]) for source in self.sources])
        return sizes / sizes.sum()

    def look_at(self, record: TrialRecord) -> Look | None:
        """The same of a trial that there is; a soup is no mixture."""
        if record.number not in self._looks:  # its values never change
            soup = record.origin == "soup"
            self._looks[record.number] = None if soup else self.look(record.values)
        return self._looks[record.number]

    def look(self, values: Mapping[str, Any]) -> Look | None:
        """Of a trial with these values; None where its score does not depend on the simplex."""
        config = self._sweep.trial_with(values, "a mixture")
        exact = exact_shares(at(config.model_dump(mode="json"), self.path), self.sizes)
        if any(share and source not in self.sources for source, share in exact.items()):
            return None
        # What stays when mix and seed are set alike is what the trial's other settings are. (Not a
        # source alone, for which head and granularity decide nothing.)
        settings, otherwise = self._results(values, 0.5), self._results(values, 0.25)
        if settings == otherwise:
            return None
        return Look(tuple(float(exact.get(s, 0)) for s in self.sources), config.seed, settings)

    def _results(self, values: Mapping[str, Any], share: float) -> tuple[str, ...]:
        """Identities of its results if it had so much of the first source, the rest of the last."""
        mix = self.named([share, *[0.0] * (len(self.sources) - 2), 1 - share])
        config = self._sweep.trial_with({**values, self.path: mix, "seed": 0}, "a mixture")
        return tuple(stage.identity for stage in trial_stages(config, self._data).scored.values())


def simplex_of(space: Space) -> tuple[str, SimplexParameter]:
    """The one simplex of a space and its path. Raises ValueError if there is none, or more."""
    found = {p: each for p, each in space.parameters.items() if isinstance(each, SimplexParameter)}
    if len(found) != 1:
        raise ValueError(
            f"the space has {len(found)} simplexes{': ' if found else ''}{', '.join(found)}; laws "
            "and merges are over the shares of exactly one"
        )
    ((path, simplex),) = found.items()
    return path, simplex
