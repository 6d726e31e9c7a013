from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from search_spaces.points import edges, grid, standard_baselines
from search_spaces.space import encode, load_space, parse_space

MIXING = load_space(Path(__file__).parents[2] / "search_spaces" / "mixing.yaml")


def space_of(parameters: dict[str, Any]) -> Any:
    return parse_space({"parameters": parameters}, where="test.yaml")


SIMPLEX = {"type": "simplex", "over": ["a", "b", "c"], "step": 0.25}
CHOICE = {"type": "choice", "values": ["x", "y"]}


def test_the_grid_expands_a_conditional_parameter_only_where_its_condition_holds() -> None:
    points = list(grid(MIXING))
    assert len(points) == 2 * (21 + 5)  # epochs x (shares or coefficients)
    for values in points:
        assert ("average.coefficient" in values) == (values["average.method"] == "interpolate")
        assert ("align.mixture.shares" in values) == (values["average.method"] == "none")


def test_grid_points_differ_and_lie_in_the_space() -> None:
    space = space_of({"m": SIMPLEX, "x": {"type": "float", "low": 0, "high": 1, "grid": [0, 0.3]}})
    params = [tuple(encode(space, values).items()) for values in grid(space)]
    assert len(set(params)) == len(params) == 15 * 2


@pytest.mark.parametrize(
    "parameter",
    [{"type": "float", "low": 0, "high": 1}, {"type": "simplex", "over": ["a", "b"]}],
)
def test_a_grid_over_a_parameter_without_steps_is_an_error(parameter: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a\.b: the grid sampler needs 'step'"):
        grid(space_of({"a.b": parameter}))


def test_the_baselines_are_each_source_alone_equal_and_in_proportion_to_size() -> None:
    points = standard_baselines(space_of({"m": SIMPLEX}), {"a": 1, "b": 2, "c": 4})
    assert {point.name: tuple(point.values["m"].values()) for point in points} == {
        "baseline: a only": (1.0, 0.0, 0.0),
        "baseline: b only": (0.0, 1.0, 0.0),
        "baseline: c only": (0.0, 0.0, 1.0),
        "baseline: equal": (0.3334, 0.3333, 0.3333),
        "baseline: proportional": (0.1429, 0.2857, 0.5714),
    }


def test_a_baseline_that_equals_another_is_not_run_twice() -> None:
    points = standard_baselines(MIXING, {"synthetic": 40, "scenes": 40})
    assert [point.name for point in points] == [
        "baseline: synthetic only",
        "baseline: scenes only",
        "baseline: equal",
    ]


def test_two_simplexes_have_no_standard_baselines() -> None:
    with pytest.raises(ValueError, match="m and n are both simplexes"):
        standard_baselines(space_of({"m": SIMPLEX, "n": SIMPLEX}), {"a": 1, "b": 1, "c": 1})
    assert standard_baselines(space_of({"x": CHOICE}), {}) == []


def test_the_edges_show_every_choice_and_both_ends_of_every_range() -> None:
    space = space_of(
        {
            "a": {"type": "choice", "values": ["x", "y", "z"]},
            "b": {**CHOICE, "when": {"a": ["y", "z"]}},
            "c": {"type": "float", "low": 0, "high": 1, "when": {"a": "z", "b": "y"}},
            "m": SIMPLEX,
        }
    )
    points = list(edges(space))
    shown = {(path, str(value)) for values in points for path, value in values.items()}
    assert {("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("b", "y")} <= shown
    assert {("c", "0.0"), ("c", "1.0"), ("m", "{'a': 0.0, 'b': 1.0, 'c': 0.0}")} <= shown
    assert all(encode(space, values) for values in points)
    assert all(first != second for first, second in pairwise(points[-3:]))
