"""Shares that sum to exactly 1, as numbers in [0, 1] that a sampler can draw, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence


def break_stick(uniforms: Sequence[float]) -> list[float]:
    """k shares from k - 1 numbers in [0, 1]; uniform numbers give shares uniform on the simplex.

    Dirichlet(1, ..., 1) by stick-breaking (Sethuraman 1994; Frigyik, Kapila and Gupta 2010, section
    2.2): part i of what is left is Beta(1, k - i), i = 1 .. k - 1, whose inverse distribution
    function is v_i = 1 - (1 - u_i)^(1 / (k - i)).
    """
    shares, left = [], 1.0
    for after, uniform in zip(range(len(uniforms), 0, -1), uniforms, strict=True):
        part = 1.0 - (1.0 - uniform) ** (1.0 / after)
        shares.append(left * part)
        left *= 1.0 - part
    return [*shares, left]


def mend_stick(units: Sequence[int]) -> list[float]:
    """The inverse of `break_stick` for shares given as whole units: k - 1 numbers in [0, 1]."""
    uniforms, left = [], sum(units)
    for after, unit in zip(range(len(units) - 1, 0, -1), units[:-1], strict=True):
        part = unit / left if left else 0.0  # nothing left: any number gives 0
        uniforms.append(1.0 - (1.0 - part) ** after)
        left -= unit
    return uniforms


def round_shares(shares: Sequence[float], units: int) -> list[int]:
    """Whole numbers in proportion to `shares` that sum to `units`, by largest remainder."""
    total = math.fsum(shares)
    exact = [share / total * units for share in shares]
    rounded = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: rounded[i] - exact[i])
    for i in by_remainder[: units - sum(rounded)]:
        rounded[i] += 1
    return rounded


def lattice(parts: int, units: int) -> Iterator[list[int]]:
    """Every way to split `units` into `parts` whole numbers, the first part largest first."""
    if parts == 1:
        yield [units]
        return
    for first in range(units, -1, -1):
        for rest in lattice(parts - 1, units - first):
            yield [first, *rest]
