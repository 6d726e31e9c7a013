"""Points of a search space that no sampler draws: its grid, the standard baselines, its edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.parameters import Values
from search_spaces.simplex import round_shares
from search_spaces.simplex_parameter import SHARE_UNITS, SimplexParameter
from search_spaces.space import Space, requirements


@dataclass(frozen=True)
class Point:
    """A named point; paths that `values` leaves out keep the value of the sweep's trial."""

    name: str
    values: Values


def grid(space: Space) -> Iterator[Values]:
    """Every combination, the last parameter fastest, after all others the simplexes.

    Conditional ones only where they hold.

    Raises:
        ValueError: a float has neither `step` nor `grid`, or a simplex has no `step`.
    """
    for path, parameter in space.parameters.items():
        parameter.lattice(path)  # raises where there is none

    def extend(values: Values, paths: list[str]) -> Iterator[Values]:
        if not paths:
            yield {path: values[path] for path in space.parameters if path in values}
        elif not space.parameters[paths[0]].holds(values):
            yield from extend(values, paths[1:])
        else:
            for value in space.at(paths[0], values).lattice(paths[0]):
                yield from extend({**values, paths[0]: value}, paths[1:])

    return extend({}, space.order())


def standard_baselines(space: Space, sizes: Mapping[str, int]) -> list[Point]:
    """Each source alone, equal shares, and shares in proportion to `sizes` (clips per source).

    Values are given for the simplex only, rounded to 4 places; no simplex, no baselines.

    Raises:
        ValueError: there are two simplexes, so that what a baseline is must be written down.
    """
    simplexes = {
        path: parameter
        for path, parameter in space.parameters.items()
        if isinstance(parameter, SimplexParameter)
    }
    if not simplexes:
        return []
    if len(simplexes) > 1:
        raise ValueError(
            f"{' and '.join(simplexes)} are both simplexes, for which there are no standard "
            "baselines; write the baselines down as points of the sweep"
        )
    ((path, simplex),) = simplexes.items()
    weights = {
        f"{source} only": [float(source == s) for s in simplex.over] for source in simplex.over
    }
    weights["equal"] = [1.0] * len(simplex.over)
    weights["proportional"] = [float(sizes[source]) for source in simplex.over]
    points: list[Point] = []
    for name, weight in weights.items():
        units = round_shares(weight, SHARE_UNITS)
        shares = {s: n / SHARE_UNITS for s, n in zip(simplex.over, units, strict=True)}
        if all(point.values[path] != shares for point in points):
            points.append(Point(f"baseline: {name}", {path: shares}))
    return points


def edges(space: Space) -> Iterator[Values]:
    """Points that show every choice and both ends of every range at least once.

    A sweep checks its settings on these, so that a value that no trial accepts is found at once.
    """
    for path, parameter in space.parameters.items():
        needed: dict[str, Any] = {p: ok[0] for p, ok in requirements(space, path).items()}
        for edge in parameter.edges():
            fixed = {**needed, path: edge}
            values: Values = {}
            for other in space.order():
                if space.parameters[other].holds(values):
                    candidate = space.at(other, values)
                    values[other] = fixed[other] if other in fixed else candidate.edges()[0]
            yield {other: values[other] for other in space.parameters if other in values}
