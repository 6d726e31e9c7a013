"""Which clip comes next: exact shares of the sources, as a pure function of (seed, index).

Sources are ordered by name everywhere, so that the order of keys in a file never shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cached_property
from math import gcd
from typing import Literal

import numpy as np

from trainables.training_settings import Share

PLACES = 10_000  # shares are whole numbers of this


def parse_shares(shares: Mapping[str, Share]) -> dict[str, Decimal]:
    """Shares as exact decimals of at most 4 places that sum to exactly 1.

    Raises:
        ValueError: a share that is no number, is negative or is too fine, or a sum that is not 1.
    """
    parsed = {}
    for name, share in shares.items():
        try:
            value = Decimal(str(share))
            fits = value.is_finite() and value * PLACES == int(value * PLACES)
        except InvalidOperation:
            raise ValueError(f"share of {name!r} is {share!r}; it must be a number") from None
        if not fits or value < 0:
            raise ValueError(
                f"share of {name!r} is {share}; it must be between 0 and 1 with at most 4 decimal "
                "places"
            )
        parsed[name] = value
    total = sum(parsed.values(), Decimal(0))
    if total != 1:
        shown = ", ".join(f"{name}: {value}" for name, value in parsed.items())
        raise ValueError(f"shares sum to {total} ({shown or 'none given'}); they must sum to 1")
    return parsed


def exact_shares(shares: Mapping[str, Share], sizes: Mapping[str, int]) -> dict[str, Decimal]:
    """`shares` as `parse_shares` gives them; "proportional" ones follow from the `sizes`.

    Raises:
        ValueError: see `parse_shares`; shares of which only some are proportional.
    """
    proportional = [name for name, share in shares.items() if share == "proportional"]
    if not proportional:
        return parse_shares(shares)
    if len(proportional) < len(shares):
        raise ValueError(
            f"shares {dict(shares)}: either all are 'proportional' or none; correct the others"
        )
    return round_shares({name: sizes[name] for name in shares})


def largest_remainder(shares: Mapping[str, Share], total: int) -> dict[str, int]:
    """`total` divided in proportion to `shares` (any weights) into whole numbers that sum to it.

    Each is less than 1 away from its exact part; ties go to the first name.

    Raises:
        ValueError: a negative share, or none above 0.
    """
    weights = {name: Fraction(str(shares[name])) for name in sorted(shares)}
    whole = sum(weights.values())
    if whole <= 0 or min(weights.values()) < 0:
        raise ValueError(f"shares {dict(shares)}: none may be negative and one must be above 0")
    exact = {name: weight / whole * total for name, weight in weights.items()}
    counts = {name: int(part) for name, part in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def round_shares(weights: Mapping[str, Share]) -> dict[str, Decimal]:
    """The exact shares nearest to `weights`: sizes, a suggestion's floats, or all ones."""
    return {
        name: Decimal(part) / PLACES for name, part in largest_remainder(weights, PLACES).items()
    }


def quota_pattern(shares: Mapping[str, Share]) -> np.ndarray:
    """int16 [period <= 10,000]: indices into the sorted names, to be repeated for ever.

    In every prefix of the repetition each source's count is less than 1 away from its share.
    The j-th draw of a source with share p may stand at the positions floor((j-1)/p) to
    ceil(j/p) - 1; the earliest deadline first fills them all, for any number of sources
    (Baruah et al. 1996, proportionate progress; the sequence that Tijdeman's 1980 chairman
    assignment asks for).
    """
    parsed = parse_shares(shares)
    parts = [int(parsed[name] * PLACES) for name in sorted(parsed)]
    divisor = gcd(*parts)
    weights = [part // divisor for part in parts]
    period = PLACES // divisor
    drawn = [0] * len(weights)
    pattern = np.empty(period, np.int16)
    for position in range(period):
        _, chosen = min(
            (-(-(drawn[i] + 1) * period // weight), i)
            for i, weight in enumerate(weights)
            if weight and drawn[i] * period // weight <= position
        )
        drawn[chosen] += 1
        pattern[position] = chosen
    return pattern


def kept_clips(sizes: Mapping[str, int], shares: Mapping[str, Share]) -> dict[str, int]:
    """Clips of each source that `match_repetition` keeps: share x (the smallest size), at least 1.

    Then the number of different clips, and how often each is drawn, depend neither on the source
    nor on the shares. That takes the `sizes` of all sources of a sweep, also those with share 0.
    """
    parts = largest_remainder(shares, min(sizes.values()))
    return {name: max(1, part) for name, part in parts.items()}


@dataclass(frozen=True, slots=True)
class Draw:
    source: str
    clip: int  # index into the source's training clips
    seed: int  # of everything random about this view of the clip, 0 <= seed < 2**63
    clip_seed: int  # of what all views of this use of the clip share; the first view's `seed`


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The stream of views of a run: index 0 to `total` - 1, over all epochs.

    Each clip that is drawn is used `views_per_clip` times in a row. Where the granularity is a
    clip, shares are exact to one clip with all its views.

    `sizes`: training clips that exist, per source; `match_repetition`: see `kept_clips`.

    Raises:
        ValueError: shares that `parse_shares` refuses or of an unknown source; an empty source;
            a batch that does not hold whole clips.
    """

    sizes: Mapping[str, int]
    shares: Mapping[str, Share]
    granularity: Literal["clip", "batch"]
    batch_size: int  # views of a global batch
    seed: int
    total: int  # views of the whole run
    match_repetition: bool = False
    views_per_clip: int = 1
    _orders: dict[str, tuple[int, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in parse_shares(self.shares):
            if name not in self.sizes:
                known = ", ".join(sorted(self.sizes))
                raise ValueError(f"shares name {name!r}, which is no source; sources are {known}")
        for name, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"source {name!r} has no training clips; give it some or drop it")
        if self.batch_size % self.views_per_clip:
            raise ValueError(
                f"optimizer.batch_size {self.batch_size} is not a multiple of views_per_clip "
                f"{self.views_per_clip}; a batch holds all views of its clips: change one of them"
            )

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(sorted(self.shares))

    @cached_property
    def kept(self) -> dict[str, int]:
        """Clips that the run may draw from, per source."""
        if self.match_repetition:
            return kept_clips(self.sizes, self.shares)
        return {name: self.sizes[name] for name in self.sources}

    @cached_property
    def _pattern(self) -> np.ndarray:
        return quota_pattern(self.shares)

    @cached_property
    def _before(self) -> np.ndarray:
        """int64 [period + 1, sources]: units of each source among the first of a period."""
        one_hot = self._pattern[:, None] == np.arange(len(self.sources))
        return np.concatenate([np.zeros((1, len(self.sources)), np.int64), one_hot.cumsum(0)])

    @property
    def _unit(self) -> int:
        return self.views_per_clip if self.granularity == "clip" else self.batch_size

    def _drawn(self, stop: int) -> np.ndarray:
        """int64 [sources]: views of each source among the first `stop`."""
        period = len(self._pattern)
        unit, inside = divmod(stop, self._unit)
        passes, position = divmod(unit, period)
        units = passes * self._before[-1] + self._before[position]
        drawn: np.ndarray = units * self._unit
        drawn[self._pattern[position]] += inside
        return drawn

    def source_index(self, index: int) -> int:
        """Index into `sources` of the source that `index` draws from."""
        assert 0 <= index < self.total, f"index {index} is outside the run of {self.total} views"
        return int(self._pattern[index // self._unit % len(self._pattern)])

    def draw(self, index: int) -> Draw:
        """The view at `index`; within a source no clip is drawn again before all were drawn."""
        source_index = self.source_index(index)
        source, first = self.sources[source_index], self._first_view(index)
        nth = int(self._drawn(first)[source_index]) // self.views_per_clip
        clip = self._clip(source, nth)
        seeds = [hashed(self.seed, "draw", view) for view in (index, first)]
        return Draw(source, clip, *seeds)

    def replacement(self, index: int, attempt: int) -> Draw | None:
        """The stand-in to try (`attempt` 1, 2, ...) for a clip that cannot be read.

        Another clip of the same source, never one tried before, and the same for all views of the
        clip; None when there is none left.
        """
        unreadable, first = self.draw(index), self._first_view(index)
        others = np.delete(self._subset(unreadable.source), self._place(unreadable))
        if attempt > len(others):
            return None
        seed = hashed(self.seed, "replacement", first)
        clip = np.random.default_rng(seed).permutation(others)[attempt - 1]
        seeds = [hashed(self.seed, "draw", view, attempt) for view in (index, first)]
        return Draw(unreadable.source, int(clip), *seeds)

    def counts(self, start: int, stop: int) -> dict[str, int]:
        """Views of each source among the indices from `start` to `stop` - 1."""
        drawn = self._drawn(stop) - self._drawn(start)
        return {name: int(count) for name, count in zip(self.sources, drawn, strict=True)}

    def repetition(self, total: int) -> dict[str, float]:
        """How often `total` views use each source's clips: drawn / (existing and kept)."""
        counts = self.counts(0, total)
        return {name: count / self.kept[name] for name, count in counts.items()}

    def _first_view(self, index: int) -> int:
        return index - index % self.views_per_clip

    def _place(self, draw: Draw) -> int:
        return int(np.flatnonzero(self._subset(draw.source) == draw.clip)[0])

    def _subset(self, source: str) -> np.ndarray:
        """The clips kept of a source; a smaller subset is part of a larger one."""
        size, kept = self.sizes[source], self.kept[source]
        if kept == size:
            return np.arange(size)
        seed = hashed(self.seed, "subset", source)
        return np.random.default_rng(seed).permutation(size)[:kept]

    def _clip(self, source: str, nth: int) -> int:
        """The `nth` draw of a source: a fresh permutation each pass over its clips."""
        which_pass, place = divmod(nth, self.kept[source])
        cached = self._orders.get(source)
        if cached is None or cached[0] != which_pass:
            rng = np.random.default_rng(hashed(self.seed, "order", source, which_pass))
            cached = (which_pass, rng.permutation(self._subset(source)))
            self._orders[source] = cached
        return int(cached[1][place])


def hashed(*parts: int | str) -> int:
    """A number below 2**63 that is the same in every process and on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
