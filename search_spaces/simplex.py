"""Whole units split among parts within limits, as numbers in [0, 1] that a sampler draws, and back.

The parts are drawn one after another, each from what it may have beside those before it, so that
every draw is allowed and nothing is rejected. Without limits, uniform numbers give every split the
same chance, those with exact zeros included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Group:
    """Parts that together have at least `low` and at most `high` units."""

    parts: frozenset[int]
    low: int
    high: int


@dataclass(frozen=True)
class Limits:
    """The allowed splits of `units`; `parts` have limits of their own, groups nest or lie apart."""

    units: int
    parts: tuple[tuple[int, int], ...]  # least and most of each
    groups: tuple[Group, ...] = ()

    @cached_property
    def _root(self) -> _Node:
        tops = [
            _Node(Group(frozenset([part]), *limits), ()) for part, limits in enumerate(self.parts)
        ]
        whole = Group(frozenset(range(len(self.parts))), self.units, self.units)
        for group in [*sorted(self.groups, key=lambda group: len(group.parts)), whole]:
            inside = tuple(node for node in tops if node.group.parts <= group.parts)
            assert sum(len(node.group.parts) for node in inside) == len(group.parts), "they cross"
            tops = [*(node for node in tops if node not in inside), _Node(group, inside)]
        return tops[0]

    def conflict(self) -> tuple[Group, int, int] | None:
        """The smallest group that cannot be: with the least and most that its parts may have."""
        return _conflict(self._root)

    def room(self, part: int, fixed: Mapping[int, float]) -> tuple[float, float]:
        """The least and most that `part` may have beside `fixed` parts. Whole if those are."""
        node = self._root
        low, high = float(node.group.low), float(node.group.high)
        while node.inside:
            chosen = next(child for child in node.inside if part in child.group.parts)
            others = [_reach(child, fixed) for child in node.inside if child is not chosen]
            most_of_others = sum(most for _, most in others)
            least_of_others = sum(least for least, _ in others)
            low = max(chosen.group.low, low - most_of_others)
            high = min(chosen.group.high, high - least_of_others)
            node = chosen
        return low, high


@dataclass(frozen=True)
class _Node:
    group: Group
    inside: tuple[_Node, ...]


def _reach(node: _Node, fixed: Mapping[int, float]) -> tuple[float, float]:
    """The least and most that a node's parts may have together."""
    if not node.inside:
        (part,) = node.group.parts
        return (fixed[part],) * 2 if part in fixed else (node.group.low, node.group.high)
    lows, highs = zip(*(_reach(child, fixed) for child in node.inside), strict=True)
    return max(node.group.low, sum(lows)), min(node.group.high, sum(highs))


def _conflict(node: _Node) -> tuple[Group, int, int] | None:
    for child in node.inside:
        if found := _conflict(child):
            return found
    low, high = node.group.low, node.group.high
    if node.inside:
        reached = [_reach(child, {}) for child in node.inside]
        low, high = (int(sum(ends)) for ends in zip(*reached, strict=True))
    if max(low, node.group.low) > min(high, node.group.high):
        return node.group, low, high
    return None


def split(uniforms: Sequence[float], limits: Limits) -> list[int]:
    """Whole units for each part from a number in [0, 1] for each but the last.

    Without limits the first of m + 1 parts of n units has at least k in C(n - k + m, m) of the
    C(n + m, m) splits; limits cut this distribution off at both ends.
    """
    fixed: dict[int, int] = {}
    left = limits.units
    for part, uniform in enumerate(uniforms):
        others = len(limits.parts) - part - 1
        low, high = (int(end) for end in limits.room(part, fixed))
        at_low, past_high = _at_least(low, left, others), _at_least(high + 1, left, others)
        wanted = at_low - uniform * (at_low - past_high)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high)
                if _at_least(middle, left, others) >= wanted
                else (
                    low,
                    middle - 1,
                )
            )
        fixed[part] = low
        left -= low
    return [*fixed.values(), left]


def unsplit(amounts: Sequence[float], limits: Limits) -> list[float]:
    """The inverse of `split`: the middle of the numbers that give these amounts.

    Amounts between whole units are taken too; they must keep to the limits.
    """
    uniforms = []
    fixed: dict[int, float] = {}
    left = float(limits.units)
    for part, amount in enumerate(amounts[:-1]):
        others = len(amounts) - part - 1
        low, high = limits.room(part, fixed)
        at_low, past_high = _at_least(low, left, others), _at_least(high + 1, left, others)
        middle = (_at_least(amount, left, others) + _at_least(amount + 1, left, others)) / 2
        uniforms.append(min(max((at_low - middle) / (at_low - past_high), 0.0), 1.0))
        fixed[part] = amount
        left -= amount
    return uniforms


def _at_least(amount: float, left: float, others: int) -> float:
    """The chance that one of `others` + 1 parts has at least `amount` of what is left."""
    return math.prod(max(left - amount + j, 0.0) / (left + j) for j in range(1, others + 1))


def splits(limits: Limits) -> Iterator[list[int]]:
    """Every allowed split, the first part largest first."""

    def extend(fixed: dict[int, int]) -> Iterator[list[int]]:
        if len(fixed) == len(limits.parts):
            yield [*fixed.values()]
            return
        low, high = limits.room(len(fixed), fixed)
        for amount in range(int(high), int(low) - 1, -1):
            yield from extend({**fixed, len(fixed): amount})

    return extend({})


def most_of(part: int, limits: Limits) -> list[int]:
    """The split with as much of `part` as there may be, then of the others from the first on."""
    fixed: dict[int, int] = {}
    for each in [part, *(other for other in range(len(limits.parts)) if other != part)]:
        fixed[each] = int(limits.room(each, fixed)[1])
    return [fixed[each] for each in range(len(limits.parts))]


def round_shares(shares: Sequence[float], units: int) -> list[int]:
    """Whole numbers in proportion to `shares` that sum to `units`, by largest remainder."""
    total = math.fsum(shares)
    exact = [share / total * units for share in shares]
    rounded = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: rounded[i] - exact[i])
    for i in by_remainder[: units - sum(rounded)]:
        rounded[i] += 1
    return rounded
