"""Shares of named sources that sum to 1, within limits, as a parameter of a search space.

A sampler draws k - 1 numbers in [0, 1] for k sources, named `path[source]`; see simplex.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from search_spaces.parameters import ConditionalParameter, Finite, Listed, Params, Suggest, exact
from search_spaces.simplex import Group, Limits, most_of, split, splits, unsplit
from trainables.settings import Settings, nearest, parse

SHARE_UNITS = 10_000  # shares are exact decimals of at most 4 places
Share = Annotated[Finite, Field(ge=0, le=1)]


class GroupLimit(Settings):
    """What some sources may have together: those named, or those that declare these `humans`."""

    sources: Annotated[tuple[str, ...], Listed, Field(min_length=1)] | None = None
    humans: Literal["virtual", "removed", "none", "real"] | None = None
    min: Share = 0.0
    max: Share = 1.0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sources is None) == (self.humans is None):
            raise ValueError("a group is given by 'sources: [...]' or by 'humans: virtual'")
        return self


class SimplexParameter(ConditionalParameter):
    """Shares of named sources that sum to 1: multiples of `step`, or of 0.0001 without one.

    `min` and `max` limit single sources, `groups` several together; groups nest or lie apart.
    """

    type: Literal["simplex"]
    over: Annotated[tuple[str, ...], Listed, Field(min_length=2)]
    step: Finite | None = None
    min: dict[str, Share] = Field(default_factory=dict)
    max: dict[str, Share] = Field(default_factory=dict)
    groups: Annotated[tuple[GroupLimit, ...], Listed] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.over)) != len(self.over):
            raise ValueError(f"over {list(self.over)} names a source twice; keep one of each")
        if self.step is not None and (
            self.step <= 0 or 1 % exact(self.step) or exact(self.step) * SHARE_UNITS % 1
        ):
            raise ValueError(
                f"step {self.step} does not divide 1 within 4 decimal places; use 0.05, for example"
            )
        named = [*self.min, *self.max, *(s for group in self.groups for s in group.sources or ())]
        for source in named:
            if source not in self.over:
                raise ValueError(f"{source!r} is not in over{nearest(source, list(self.over))}")
        self._check_crossing()
        self._check_feasible()
        return self

    @property
    def units(self) -> int:
        return SHARE_UNITS if self.step is None else int(1 / exact(self.step))

    @cached_property
    def limits(self) -> Limits:
        """In whole steps. Groups by `humans` count once `with_humans` has named their sources."""
        part = {source: index for index, source in enumerate(self.over)}
        return Limits(
            self.units,
            tuple(
                (self._steps(self.min.get(s, 0.0), up=True), self._steps(self.max.get(s, 1.0)))
                for s in self.over
            ),
            tuple(
                Group(
                    frozenset(part[source] for source in group.sources),
                    self._steps(group.min, up=True),
                    self._steps(group.max),
                )
                for group in self.groups
                if group.sources is not None
            ),
        )

    def with_humans(self, humans: Mapping[str, str]) -> SimplexParameter:
        """Groups given by `humans` now name their sources (`humans`: source -> its declaration).

        Raises:
            ValueError: no source of a group, or the limits cannot be kept.
        """
        groups = []
        for group in self.groups:
            sources = group.sources or tuple(s for s in self.over if humans[s] == group.humans)
            if not sources:
                raise ValueError(
                    f"a group is of 'humans: {group.humans}', which no source of over declares"
                )
            groups.append({"sources": sources, "min": group.min, "max": group.max})
        return self._changed(groups=groups)

    def at_most(self, most: Mapping[str, float]) -> SimplexParameter:
        """With no source above `most`. Raises ValueError where the limits then cannot be kept."""
        lower = {s: min(self.max.get(s, 1.0), max(0.0, limit)) for s, limit in most.items()}
        return self._changed(max={**self.max, **lower})

    def reordered(self, over: Sequence[str]) -> SimplexParameter:
        """The same shares, drawn in another order."""
        assert sorted(over) == sorted(self.over)
        other = self.model_copy(update={"over": tuple(over)})
        other.__dict__.pop("limits", None)  # model_copy takes cached properties along
        return other

    def suggest(self, path: str, suggest: Suggest) -> dict[str, float]:
        uniforms = [
            suggest.suggest_float(f"{path}[{source}]", 0.0, 1.0, step=None, log=False)
            for source in self.over[:-1]
        ]
        return self._of_units(split(uniforms, self.limits))

    def encode(self, path: str, value: Any) -> Params:
        """Shares between two steps are encoded too: a measured point is worth keeping."""
        shares = self._exact_shares(path, value)
        if broken := self.broken_by(shares):
            raise ValueError(f"{path}: {dict(value)} is not in the search space: {broken}")
        uniforms = unsplit([float(share * self.units) for share in shares.values()], self.limits)
        names = [f"{path}[{source}]" for source in self.over[:-1]]
        return dict(zip(names, uniforms, strict=True))

    def broken_by(self, shares: Mapping[str, Decimal | float]) -> str | None:
        """Which limit these shares break, in words; None if they keep to all."""
        limits = self.limits
        own = [Group(frozenset([i]), *ends) for i, ends in enumerate(limits.parts)]
        for group in [*own, *limits.groups]:
            together = sum((exact(shares[self.over[i]]) for i in group.parts), Decimal(0))
            if together * self.units < group.low:
                return f"{self._names(group)} {self._share(group.low)} at least"
            if together * self.units > group.high:
                return f"{self._names(group)} {self._share(group.high)} at most"
        return None

    def edges(self) -> list[Any]:
        """For each source, the mixture with as much of it as there may be."""
        return [self._of_units(most_of(i, self.limits)) for i in range(len(self.over))]

    def lattice(self, path: str) -> Iterator[Any]:
        """One after another: of ten sources in steps of 0.05 there are ten million."""
        if self.step is None:
            raise ValueError(f"{path}: the grid sampler needs 'step' on a simplex")
        return map(self._of_units, splits(self.limits))

    def _changed(self, **changes: Any) -> SimplexParameter:
        return parse(SimplexParameter, {**self.model_dump(), **changes}, "")

    def _steps(self, share: float, *, up: bool = False) -> int:
        rounding = ROUND_CEILING if up else ROUND_FLOOR
        return int((exact(share) * self.units).to_integral_value(rounding))

    def _exact_shares(self, path: str, value: Any) -> dict[str, Decimal]:
        if not isinstance(value, Mapping):
            raise ValueError(f"{path}: {value!r} is not a mapping of sources to shares")
        if strange := sorted(set(value) - set(self.over)):
            hint = nearest(strange[0], list(self.over))
            raise ValueError(f"{path}: {strange[0]!r} is no source of the search space{hint}")
        try:
            shares = {source: exact(value.get(source, 0)) for source in self.over}
        except InvalidOperation:
            raise ValueError(f"{path}: {dict(value)} holds a share that is no number") from None
        if (
            any(share < 0 or share * SHARE_UNITS % 1 for share in shares.values())
            or sum(shares.values()) != 1
        ):
            raise ValueError(f"{path}: {dict(value)} are not shares of 4 places that sum to 1")
        return shares

    def _of_units(self, units: Sequence[int]) -> dict[str, float]:
        # n / units is the double nearest to the decimal, so it prints as that decimal.
        return {source: n / self.units for source, n in zip(self.over, units, strict=True)}

    def _check_crossing(self) -> None:
        named = [group.sources for group in self.groups if group.sources is not None]
        for i, one in enumerate(named):
            for other in named[:i]:
                both = set(one) & set(other)
                if both and both != set(one) and both != set(other):
                    raise ValueError(
                        f"groups {list(other)} and {list(one)} cross; let one hold the other, or "
                        "let them lie apart"
                    )

    def _check_feasible(self) -> None:
        if (found := self.limits.conflict()) is None:
            return
        group, low, high = found
        least, most = max(low, group.low), min(high, group.high)
        if group.low <= group.high:  # the limit that its sources cannot keep to, and what they can
            least, most = (low, group.high) if low > group.high else (group.low, high)
        steps = "" if self.step is None else f", in steps of {self.step:g}"
        raise ValueError(
            f"{self._names(group)} {self._share(least)} at least and {self._share(most)} at most"
            f"{steps}; lower a min or raise a max"
        )

    def _names(self, group: Group) -> str:
        names = [self.over[i] for i in sorted(group.parts)]
        return f"{names[0]!r} has" if len(names) == 1 else f"{' and '.join(names)} have together"

    def _share(self, units: int) -> str:
        return f"{units / self.units:g}"
