from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces.space import load_space
from sweeps.search_settings import GroupSettings
from sweeps.searching.objectives import directions, fronts, values_of
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from tests.sweeps.test_search import make_search, run_all
from tests.toy import toy_data, toy_dataset, write_toy_sweep

PEOPLE = GroupSettings(name="people", mean_of=("ucf", "hmdb"))
SCORES = {"ucf": 0.8, "hmdb": 0.4, "ssv2": 0.1}


def test_the_objectives_of_a_trial_are_its_score_its_hours_alone_and_means_of_groups() -> None:
    objectives = ("score", "gpu_hours", PEOPLE)
    assert directions(objectives) == ["maximize", "minimize", "maximize"]
    assert values_of(objectives, 0.5, SCORES, 1800.0) == pytest.approx((0.5, 0.5, 0.6))
    assert values_of(objectives, 0.5, SCORES, None) is None
    assert values_of(("score", PEOPLE), 0.5, SCORES, None) == pytest.approx((0.5, 0.6))


def test_fronts_are_those_of_optuna() -> None:
    from optuna.study._multi_objective import _fast_non_domination_rank

    rng = np.random.default_rng(0)
    for size, heights in ((1, 1), (7, 1), (40, 2), (60, 3)):
        points = rng.integers(0, 6, (size, heights)).astype(float)  # with ties and repeats
        assert fronts(points.tolist()) == _fast_non_domination_rank(-points).tolist()
    assert fronts([]) == []


@pytest.mark.parametrize(
    "sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow), "random", "grid"]
)
def test_every_sampler_takes_several_objectives_and_continues(sampler: str, tmp_path: Path) -> None:
    def search(folder: Path) -> Search:
        folder.mkdir(exist_ok=True)
        return make_search(
            folder,
            search__sampler=sampler,
            search__trials=8,
            search__objectives=["score", "gpu_hours"],
        )

    whole = search(tmp_path / "whole")
    run_all(whole)
    cut = search(tmp_path / "cut")
    while (assignment := cut.ask()) is not None:
        cut.complete(assignment.number, {"low": assignment.number / 10}, {})
        cut = search(tmp_path / "cut")
    assert [r.values for r in cut.records] == [r.values for r in whole.records]
    assert len(whole.records) == (7 if sampler == "grid" else 8)  # of a grid, two are left
    assert whole.records[6].device_seconds == 0.0


@pytest.mark.slow
def test_with_two_objectives_the_sampler_looks_at_both_ends_of_the_front(tmp_path: Path) -> None:
    """One dataset is best without synthetic clips, the other with nothing else."""
    groups = [{"name": "people", "mean_of": ["low"]}, {"name": "places", "mean_of": ["high"]}]
    space = {
        "parameters": {"align.mixture.shares": {"type": "simplex", "over": ["synthetic", "scenes"]}}
    }
    path = write_toy_sweep(
        tmp_path,
        space,
        trial__downstream=["low", "high"],
        search__sampler="gp",
        search__trials=20,
        search__baselines=False,
        search__objectives=groups,
    )
    sweep = Sweep(path, {})
    data = {**toy_data(), "high": toy_dataset("high", 8, heldout=4, humans="real")}
    search = Search(sweep, load_space(sweep.space_file), [], data)
    tried: list[float] = []
    while (assignment := search.ask()) is not None:
        share = float(assignment.trial["align"]["mixture"]["shares"]["synthetic"])
        tried.append(share)
        # Good between 0.2 and 0.4, each dataset at its own end; bad elsewhere.
        off = max(0.0, 0.2 - share, share - 0.4)
        search.complete(
            assignment.number, {"low": share - 3 * off, "high": 1 - share - 3 * off}, {}
        )
    modelled = tried[8:]
    assert sum(0.15 <= share <= 0.45 for share in modelled) >= len(modelled) // 2
    assert min(modelled) < 0.27 and max(s for s in modelled if s <= 0.45) > 0.33


def test_a_sweep_continues_with_other_objectives_space_and_sampler(tmp_path: Path) -> None:
    run_all(make_search(tmp_path))
    wider: dict[str, Any] = {
        "parameters": {
            "align.mixture.shares": {"type": "simplex", "over": ["synthetic", "scenes"]},
            "align.epochs": {"type": "int", "low": 1, "high": 3},
        }
    }
    more = make_search(
        tmp_path,
        space=wider,
        search__trials=10,
        search__sampler="tpe",
        search__seed=5,
        search__objectives=["score", "gpu_hours"],
    )
    assert more.varied(more.records[3]) == {
        "align.mixture.shares": {"synthetic": 0.5, "scenes": 0.5},
        "align.epochs": 2,  # which it was trained for, though it was not searched then
    }
    assert more.varied(more.records[0]) == {}  # random weights lie outside of it too
    run_all(more)
    assert [r.number for r in more.records] == list(range(10))
    assert all("align.epochs" in r.values for r in more.records[6:])
    assert all(r.attempts == 1 for r in more.records)


def test_points_may_be_added_to_a_begun_sweep(tmp_path: Path) -> None:
    run_all(make_search(tmp_path))
    points = [{"name": "long", "set": {"align.epochs": 5}}]
    more = make_search(tmp_path, search__trials=8, search__points=points)
    known = more.known()
    assert known[6][0] == "long" and 7 not in known
    run_all(more)
    assert [r.origin for r in more.records[5:]] == ["suggested", "point", "suggested"]


def test_a_point_that_sets_what_all_trials_have_lies_in_the_space(tmp_path: Path) -> None:
    own = [
        {"name": "as all", "set": {"mae.epochs": 1}},
        {"name": "longer", "set": {"mae.epochs": 2}},
    ]
    search = make_search(tmp_path, search__trials=7, search__points=own)
    run_all(search)
    inside = [bool(search.varied(record)) for record in search.records[5:7]]
    assert [record.name for record in search.records[5:7]] == ["as all", "longer"]
    assert inside == [True, False]
