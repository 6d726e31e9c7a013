"""Points that a sampler may choose among: at random, beside trials that there are, or all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from search_spaces.parameters import Params, Values
from search_spaces.points import grid
from search_spaces.space import Space, encode, sample

STEP = 0.15  # deviation of a small move, of a parameter's range


class Draw:
    """Draws internal parameters uniformly; `kept` ones stay, `moved` ones move a little."""

    def __init__(
        self, rng: np.random.Generator, kept: Mapping[str, Any], moved: Mapping[str, Any]
    ) -> None:
        self._rng = rng
        self._kept = kept
        self._moved = moved

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        if name in self._kept:
            return float(self._kept[name])
        bottom, top = (math.log(low), math.log(high)) if log else (low, high)
        if name in self._moved:
            there = float(self._moved[name])
            place = ((math.log(there) if log else there) - bottom) / (top - bottom)
            place = float(np.clip(place + STEP * self._rng.standard_normal(), 0.0, 1.0))
        else:
            place = float(self._rng.uniform())
        value = bottom + place * (top - bottom)
        if step is not None:
            return low + step * round((value - low) / step)
        return min(max(math.exp(value) if log else value, low), high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int:
        if name in self._kept:
            return int(self._kept[name])
        if name in self._moved:
            moved = int(self._moved[name]) + step * int(self._rng.choice([-1, 1]))
            return min(max(moved, low), high)
        return low + step * int(self._rng.integers((high - low) // step + 1))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name in self._kept:
            return self._kept[name]
        return choices[int(self._rng.integers(len(choices)))]


def random_points(space: Space, count: int, rng: np.random.Generator) -> list[Values]:
    return [sample(space, Draw(rng, {}, {})) for _ in range(count)]


def neighbours(space: Space, base: Params, count: int, rng: np.random.Generator) -> list[Values]:
    """`count` points for each parameter of `base`: the first drawn anew, the others moved.

    Parameters whose condition only now holds are drawn at random.
    """
    points = []
    for path in space.parameters:
        own = {n: v for n, v in base.items() if n == path or n.startswith(f"{path}[")}
        kept = {n: v for n, v in base.items() if n not in own}
        for index in range(count if own else 0):
            points.append(sample(space, Draw(rng, kept, own if index else {})))
    return points


def few_points(space: Space, most: int) -> list[Values] | None:
    """Every point of the space; None if there are more than `most`, or no steps."""
    try:
        points: Iterator[Values] = grid(space)
    except ValueError:
        return None
    first = list(islice(points, most + 1))
    return first if len(first) <= most else None


def untried(space: Space, points: Sequence[Values], past: Sequence[Params]) -> list[Values]:
    """The points, each once, without those in `past`."""
    new = {_key(encode(space, point)): point for point in points}
    for params in past:
        new.pop(_key(params), None)
    return list(new.values())


def _key(params: Params) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items()))
