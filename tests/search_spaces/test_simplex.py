from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from optuna.trial import FixedTrial

from search_spaces.candidates import few_points
from search_spaces.points import edges, grid
from search_spaces.simplex import Group, Limits, split, splits, unsplit
from search_spaces.space import Space, encode, parse_space, sample
from search_spaces.study import Study

FREE = Limits(8, ((0, 8),) * 3)
TIGHT = Limits(
    20,
    ((2, 20), (0, 9), (0, 20), (3, 6)),
    (Group(frozenset({0, 1}), 4, 10), Group(frozenset({0, 1, 2}), 0, 15)),
)
LIMITED: dict[str, Any] = {
    "type": "simplex",
    "over": ["wan", "t2v", "scenes"],
    "step": 0.1,
    "min": {"scenes": 0.1},
    "max": {"t2v": 0.3},
    "groups": [{"sources": ["wan", "t2v"], "min": 0.3, "max": 0.6}],
}


def space_of(simplex: dict[str, Any]) -> Space:
    return parse_space({"parameters": {"m": simplex}}, where="test.yaml")


def allowed(shares: dict[str, float]) -> bool:
    wan, t2v, scenes = (round(10 * shares[name]) for name in ("wan", "t2v", "scenes"))
    return scenes >= 1 and t2v <= 3 and 3 <= wan + t2v <= 6


def test_uniform_numbers_give_every_split_the_same_chance() -> None:
    rng = np.random.default_rng(0)
    seen = Counter(tuple(split(list(rng.uniform(size=2)), FREE)) for _ in range(9_000))
    assert len(seen) == 45  # C(10, 2), exact zeros and wholes among them
    assert min(seen.values()) > 130 and max(seen.values()) < 270  # 200 each, 5 deviations


@pytest.mark.parametrize("limits", [FREE, TIGHT], ids=["free", "tight"])
def test_every_split_is_drawn_from_the_numbers_that_it_gives(limits: Limits) -> None:
    for amounts in splits(limits):
        assert split(unsplit(amounts, limits), limits) == amounts


def test_the_lattice_is_all_that_the_limits_allow_and_no_draw_leaves_it() -> None:
    every = [
        [a, b, c, 20 - a - b - c]
        for a, b, c in product(range(2, 21), range(10), range(21))
        if 3 <= 20 - a - b - c <= 6 and 4 <= a + b <= 10 and a + b + c <= 15
    ]
    assert sorted(splits(TIGHT)) == sorted(every)
    rng = np.random.default_rng(0)
    drawn = {tuple(split(list(rng.uniform(size=3)), TIGHT)) for _ in range(3_000)}
    assert drawn == {tuple(amounts) for amounts in every}


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "gp", "random", "grid"])
def test_every_sampler_keeps_to_the_limits(sampler: str) -> None:
    study = Study(space_of(LIMITED), sampler=sampler, seed=0, startup_trials=4)
    for _ in range(6 if sampler == "gp" else 12):
        trial = study.ask()
        assert trial is not None
        assert allowed(trial.values["m"])
        study.tell(trial.number, "complete", [trial.values["m"]["t2v"]])  # outwards, to the limit


def test_grid_and_edges_keep_to_the_limits() -> None:
    space = space_of(LIMITED)
    points = [values["m"] for values in grid(space)]
    assert len(points) == sum(
        allowed({"wan": w / 10, "t2v": t / 10, "scenes": (10 - w - t) / 10})
        for w in range(11)
        for t in range(11 - w)
    )
    assert all(allowed(shares) for shares in points)
    assert [values["m"] for values in edges(space)] == [
        {"wan": 0.6, "t2v": 0.0, "scenes": 0.4},
        {"wan": 0.3, "t2v": 0.3, "scenes": 0.4},
        {"wan": 0.3, "t2v": 0.0, "scenes": 0.7},
    ]


def test_a_lattice_of_millions_of_points_is_not_made_to_begin_with() -> None:
    many = space_of({"type": "simplex", "over": list("abcdefghij"), "step": 0.05})
    assert next(grid(many))["m"]["a"] == 1.0
    assert few_points(many, 100) is None


def test_a_point_past_a_limit_is_not_in_the_space() -> None:
    space = space_of(LIMITED)
    with pytest.raises(ValueError, match="wan and t2v have together 0.6 at most"):
        encode(space, {"m": {"wan": 0.5, "t2v": 0.2, "scenes": 0.3}})
    with pytest.raises(ValueError, match="'scenes' has 0.1 at least"):
        encode(space, {"m": {"wan": 0.95, "scenes": 0.05}})


def test_the_order_in_which_the_sources_stand_changes_no_suggestion() -> None:
    def suggested(over: list[str], sampler: str) -> list[dict[str, float]]:
        simplex = {**LIMITED, "over": over}
        study = Study(space_of(simplex), sampler=sampler, seed=1, startup_trials=4)
        shares = []
        for _ in range(6):
            trial = study.ask()
            assert trial is not None
            shares.append(trial.values["m"])
            study.tell(trial.number, "complete", [-((trial.values["m"]["wan"] - 0.4) ** 2)])
        return shares

    for sampler in ("cost_aware", "tpe", "gp", "random"):
        first = suggested(["wan", "t2v", "scenes"], sampler)
        assert suggested(["scenes", "wan", "t2v"], sampler) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min": {"wan": 0.6, "t2v": 0.5}}, "have together 1.1 at least and 1 at most"),
        ({"max": {"wan": 0.3, "t2v": 0.3, "scenes": 0.3}}, "1 at least and 0.9 at most"),
        ({"min": {"wan": 0.6}, "max": {"wan": 0.5}}, "'wan' has 0.6 at least and 0.5 at most"),
        ({"groups": [{"sources": ["wan", "t2v"], "min": 0.8}], "max": {"wan": 0.2, "t2v": 0.3}},
         "wan and t2v have together 0.8 at least and 0.5 at most, in steps of 0.1; lower a min"),
        ({"min": {"wan": 0.55}, "max": {"wan": 0.55}}, "'wan' has 0.6 at least and 0.5 at most"),
        ({"min": {"wann": 0.5}}, "'wann' is not in over; did you mean 'wan'"),
        ({"max": {"wan": 1.5}}, "less than or equal to 1"),
        ({"groups": [{"sources": ["wan", "scene"]}]}, "did you mean 'scenes'"),
        ({"groups": [{"min": 0.2}]}, "given by 'sources"),
        ({"groups": [{"sources": ["wan", "t2v"]}, {"sources": ["t2v", "scenes"]}]}, "cross"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be_kept_are_an_error_that_says_why(
    changes: dict[str, Any], message: str
) -> None:
    simplex = {"type": "simplex", "over": ["wan", "t2v", "scenes"], "step": 0.1, **changes}
    with pytest.raises(ValueError, match=message):
        space_of(simplex)


def test_what_caps_allow_depends_on_the_other_parameters() -> None:
    space = parse_space(
        {
            "parameters": {
                "m": {"type": "simplex", "over": ["a", "b"], "step": 0.1},
                "epochs": {"type": "choice", "values": [1, 4]},
            }
        },
        where="test.yaml",
    )
    capped = Space(space.parameters, caps=lambda path, values: {"a": 1.0 / values["epochs"]})
    points = list(grid(capped))
    assert {values["epochs"]: values["m"]["a"] for values in reversed(points)} == {1: 1.0, 4: 0.2}
    assert len(points) == 11 + 3
    for values in points:
        assert sample(capped, FixedTrial(encode(capped, values))) == values
