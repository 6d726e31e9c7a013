from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from search_spaces.space import Space, load_space
from sweeps.planning.stage_facts import stage_clips
from sweeps.searching.given import GivenTrial, given_trials
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from tests.sweeps.test_plan import HORIZON_FREE
from tests.sweeps.test_prepare import prepared
from tests.toy import CPU, SPACE, STOPPING, toy_data, write_toy_sweep
from trainables.stage_store import StageStore, Write
from trainables.trial import trial_stages

RATES = {"mae": 1.0, "align": 1.0, "tasks": 1.0}  # clips a second: a clip is a second
HOUR = 1 / 3600


def make_search(folder: Path, seconds: float | None, **overrides: Any) -> Search:
    budget = None if seconds is None else {"gpu_hours": seconds * HOUR}
    overrides = {"execution__clips_per_second": RATES, "search__baselines": False, **overrides}
    sweep = Sweep(write_toy_sweep(folder, search__budget=budget, **overrides), {})
    space = load_space(sweep.space_file) if sweep.space_file else Space({})
    given: list[GivenTrial] = given_trials(sweep, space, {"synthetic": 16, "scenes": 8})
    return Search(sweep, space, given, toy_data())


def run_one(search: Search, store: StageStore, kilobytes: int = 0) -> list[str] | None:
    """The next trial, its stages made at a second a clip: those that were; None: no more trials.

    `kilobytes`: that each of them takes of the storage, beside its record.
    """
    assignment = search.ask()
    if assignment is None:
        return None
    config = search.config(search.records[assignment.number])
    parts = trial_stages(config, toy_data())
    made = []
    for stage in parts.searched():
        if store.record(stage.identity) is None:
            clips = float(stage_clips(stage, toy_data()))
            cost = {"device_seconds": clips, "clips": clips}
            write: dict[str, Write] = {
                "weights.bin": lambda file: file.write(b"w" * 1000 * kilobytes)
            }
            metrics = {"accuracy": 0.5, "interval_low": 0.4, "interval_high": 0.6}
            store.publish(stage, write=write, metrics=metrics, cost=cost)
            made.append(stage.kind)
    stages = {f"{s.kind} {s.identity}": s.identity for s in parts.searched()}
    score = 0.05 * config.align.epochs + 0.1 * config.probe.neighbours
    search.complete(assignment.number, {"low": score}, stages)
    return made


def store_of(folder: Path) -> StageStore:
    return StageStore(folder / "runs" / "stages")


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "random", "grid"])
def test_the_search_ends_when_no_trial_fits_into_what_is_left(tmp_path: Path, sampler: str) -> None:
    # The first trial is 8 (mae) + 16 (align) + 12 s (features), each other 28 s.
    search = make_search(tmp_path, 100.0, search__sampler=sampler)
    while run_one(search, store_of(tmp_path)) is not None:
        pass
    assert len(search.records) == 3  # 8 + 3 x 28 = 92 s; a fourth would make it 120
    assert search.unfinished() == 0
    assert search.budget() == pytest.approx({"device_seconds": 100, "spent": 92, "left": 8})


def test_a_larger_budget_goes_on_where_the_smaller_ended(tmp_path: Path) -> None:
    search = make_search(tmp_path, 60.0)
    while run_one(search, store_of(tmp_path)) is not None:
        pass
    begun = len(search.records)
    longer = make_search(tmp_path, 120.0)
    assert longer.unfinished() > 0
    while run_one(longer, store_of(tmp_path)) is not None:
        pass
    assert len(longer.records) > begun
    assert [r.values for r in longer.records[:begun]] == [r.values for r in search.records]


def test_trials_that_run_are_counted_with_what_they_still_take(tmp_path: Path) -> None:
    search = make_search(tmp_path, 70.0, search__concurrent=4)
    assert search.ask() is not None
    assert search.ask() is not None  # 36 + 28: neither has made a stage yet
    assert search.ask() is None
    assert search.unfinished() == 2


def test_of_two_trials_that_run_the_longer_goes_on_from_the_trunk_of_the_shorter(
    tmp_path: Path,
) -> None:
    points = [{"name": f"{n} epochs", "set": {"align.epochs": n}} for n in (4, 8)]
    shared = {f"trial__{key}": value for key, value in HORIZON_FREE.items()}
    # 32 (align) + 12 s (features), then 64 - 24 (the shorter's trunk) + 12 s.
    search = make_search(tmp_path, 100.0, search__points=points, search__trials=2, **shared)
    assert search.ask() is not None and search.ask() is not None
    assert [record.name for record in search.records] == ["4 epochs", "8 epochs"]


def test_a_given_trial_that_is_too_dear_is_passed_over_and_the_search_goes_on(
    tmp_path: Path,
) -> None:
    points = [
        {"name": "long", "set": {"align.epochs": 12}},
        {"name": "short", "set": {"align.epochs": 1}},
    ]
    settings = {"search__points": points, "search__trials": 4}
    search = make_search(tmp_path, 60.0, **settings)  # 8 + 96 + 12 s, 8 + 8 + 12 s
    told = search.too_dear()
    assert told is not None and "no room for 'long' (about 2 min): passed over" in told
    while run_one(search, store_of(tmp_path)) is not None:
        pass
    assert [record.name for record in search.records] == ["short", None]
    ready, _ = prepared(tmp_path, "", search__budget={"gpu_hours": 60 * HOUR}, **settings,
                        search__baselines=False, execution__clips_per_second=RATES)  # fmt: skip
    assert told in ready.notes
    larger = make_search(tmp_path, 1000.0, **settings)
    assert larger.too_dear() is None
    run_one(larger, store_of(tmp_path))
    assert larger.records[2].name == "long"


@pytest.mark.parametrize(("seconds", "expected"), [(None, 12), (240.0, 8)])
def test_the_laws_choose_the_last_trials_that_the_budget_has_room_for(
    tmp_path: Path, seconds: float | None, expected: int
) -> None:
    law = {"weights": None, "kl_to_natural": 0.0, "last_trials": 3}
    fine = deepcopy(SPACE)
    fine["parameters"]["align.mixture.shares"]["step"] = 0.05
    search = make_search(tmp_path, seconds, space=fine, search__law=law, search__trials=12)
    while run_one(search, store_of(tmp_path)) is not None:
        pass
    # 8 (mae) + 8 x 28 s: there would be 12 trials without a budget.
    assert [record.origin for record in search.records] == [
        *["suggested"] * (expected - 3),
        *["law"] * 3,
    ]


def test_an_alignment_that_was_stopped_counts_with_what_it_took_so_far(tmp_path: Path) -> None:
    elastic = {"execution__align": {**CPU, "workers": [1, 2, 4]}}
    search = make_search(tmp_path, 1000.0, search__early_stopping=STOPPING, **elastic)
    store = store_of(tmp_path)
    first, second = search.ask(), search.ask()
    assert first is not None and second is not None
    aligned = [
        trial_stages(search.config(search.records[n]), toy_data()).weights.identity for n in (0, 1)
    ]
    # Device-seconds of all its workers; it ended a rung after its last whole epoch.
    store.add_progress(aligned[0], {"epoch": 1, "device_seconds": 7.0})
    store.add_progress(aligned[1], {"epoch": 1, "device_seconds": 5.0})
    probes = Sweep(tmp_path / "sweep.yaml", {}).probes()
    assert probes is not None
    rung = {"step": 3, "device_seconds": 6.0, "accuracies": {"low": 0.1}}
    store.add_probe(aligned[1], probes.key(toy_data()), rung)
    assert search.budget()["spent"] == 0.0  # both go on: they are counted with what is coming
    search.failed(0, "the loss is nan")
    assert search.budget()["spent"] == 7.0
    search.failed(1, "the loss is nan")
    assert search.budget()["spent"] == 13.0


def test_merges_are_held_against_the_budget_and_stand_in_the_plan(tmp_path: Path) -> None:
    # Random weights 12 s, stage 1 and four alignments 8 + 4 x 28 s; 11 merges of 12 clips 132 s.
    settings = {"search__baselines": True, "search__merge_proxy": {"points": 11}}
    search, store = make_search(tmp_path, 284.0, **settings), store_of(tmp_path)
    search.given_only = True
    while run_one(search, store) is not None:
        pass
    assert search.budget()["spent"] == 132
    assert not search.spending.affords({"align.epochs": 3})  # 36 of the 20 s that merges leave
    merges = search.proposals.merges
    assert merges is not None
    for stage in search.proposals.stages():
        clips = float(stage_clips(stage, toy_data()))
        cost = {"device_seconds": clips, "clips": clips}
        store.publish(stage, write={}, metrics={"accuracy": 0.5}, cost=cost)
    assert search.budget() == {"device_seconds": 284.0, "spent": 264.0, "left": 20.0}
    elsewhere = {"storage": str(tmp_path / "other"), "execution__clips_per_second": RATES}
    plan = prepared(tmp_path, "", **settings, **elsewhere)[0].plan
    of_no_trial = [planned for planned in plan.stages if not planned.trials]
    assert sum(planned.clips for planned in of_no_trial) == 132
    assert all(planned.needed for planned in of_no_trial) and len(of_no_trial) == 2 + 11


def test_what_lay_in_the_store_before_the_sweep_is_not_its_spending(tmp_path: Path) -> None:
    other = make_search(tmp_path, None, name="other")
    run_one(other, store_of(tmp_path))
    time.sleep(1.1)  # records say when they began by the second
    search = make_search(tmp_path, 1000.0)
    assert run_one(search, store_of(tmp_path)) == []  # the same trial, of the same seed
    assert search.budget()["spent"] == 0.0


def test_a_budget_smaller_than_one_trial_is_an_error_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    rates = {"execution__clips_per_second": RATES}
    with pytest.raises(ValueError, match=r"gpu_hours 0\.00833333 is 30 s .* about 36 s; raise it"):
        prepared(tmp_path, "", search__budget={"gpu_hours": 30 * HOUR}, **rates)
    ready, _ = prepared(tmp_path, "", search__budget={"gpu_hours": 40 * HOUR}, **rates)
    assert ready.plan.budget == "Budget: 40 s of device time, 0 s spent, 40 s left."


TWO_LENGTHS = {
    "mae.epochs": {"type": "choice", "values": [25, 0]},
    "align.epochs": {"type": "choice", "values": [8, 1]},
}


@pytest.mark.parametrize(
    "beside", [{}, {"align.optimizer.lr_peak": {"type": "float", "low": 1e-4, "high": 1e-3}}]
)
def test_a_budget_that_has_room_for_a_trial_between_the_edges_is_taken(
    tmp_path: Path, beside: dict[str, Any]
) -> None:
    settings = {"space": {"parameters": {**TWO_LENGTHS, **beside}}, "search__baselines": True,
                "execution__clips_per_second": RATES}  # fmt: skip
    # Without stage 1, for an epoch: 8 + 12 s. The edges take 276, 220 and 76 s.
    prepared(tmp_path, "", search__budget={"gpu_hours": 22 * HOUR}, **settings)
    with pytest.raises(ValueError, match="cheapest trial of the search space takes about 20 s"):
        prepared(tmp_path, "", search__budget={"gpu_hours": 18 * HOUR}, **settings)


def test_a_budget_that_has_room_for_a_point_of_the_file_is_taken(tmp_path: Path) -> None:
    settings = {"search__budget": {"gpu_hours": 18 * HOUR}, "execution__clips_per_second": RATES}
    point = {"name": "no training", "set": {"mae.epochs": 0, "align.epochs": 0}}  # 12 s
    prepared(tmp_path, "", search__points=[point], **settings)
    with pytest.raises(ValueError, match="gpu_hours 0.005 is 18 s"):  # random weights take 12 s
        prepared(tmp_path, "", **settings)


def test_without_prices_the_budget_ends_the_search_by_what_was_spent(tmp_path: Path) -> None:
    search = make_search(tmp_path, 30.0, execution__clips_per_second=None)
    assert not search.spending.costs.known
    assert run_one(search, store_of(tmp_path)) is not None
    assert run_one(search, store_of(tmp_path)) is None
    assert search.unfinished() == 0


def test_the_cost_aware_sampler_takes_what_is_there_already(tmp_path: Path) -> None:
    space = {
        "parameters": {
            "align.epochs": {"type": "int", "low": 1, "high": 6},
            "probe.neighbours": {"type": "choice", "values": [1, 3]},
        }
    }
    sweep = Sweep(write_toy_sweep(tmp_path, space, search__sampler="cost_aware",
                                  search__baselines=False, search__trials=12,
                                  execution__clips_per_second=RATES), {})  # fmt: skip
    search = Search(sweep, load_space(sweep.space_file), [], toy_data())
    trained = 0
    for _ in range(6):
        trained += "align" in (run_one(search, store_of(tmp_path)) or [])
    assert trained <= 4  # half of the points stand on an alignment that another trained


def test_the_cost_aware_sampler_asks_for_no_score_that_it_knows(tmp_path: Path) -> None:
    space = {
        "parameters": {
            "align.mixture.shares": {
                "type": "simplex", "over": ["synthetic", "scenes"], "step": 0.5,
            },
            "average.coefficient": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.5},
        }
    }  # fmt: skip
    averages = {"method": "interpolate", "endpoints": [{"mixture.shares": {"scenes": 1}}, {}]}
    changes = {f"trial__average__{name}": value for name, value in averages.items()}
    sweep = Sweep(write_toy_sweep(tmp_path, space, search__sampler="cost_aware",
                                  search__baselines=False, search__trials=9, **changes,
                                  execution__clips_per_second=RATES), {})  # fmt: skip
    search = Search(sweep, load_space(sweep.space_file), [], toy_data())
    made = [run_one(search, store_of(tmp_path)) for _ in range(9)]
    # Of the nine points five differ in what is scored: scenes alone, and two coefficients of two
    # other mixes. Once they are scored the others are all there is.
    assert all(made[:5]) and not any(made[5:])


def test_the_summary_says_what_is_left(tmp_path: Path) -> None:
    from sweeps.reporting.summary import make_summary

    search = make_search(tmp_path, 1000.0)
    search.ask()
    search.failed(0, "for the test")
    summary = make_summary(
        Sweep(tmp_path / "sweep.yaml", {}), search, toy_data(), store_of(tmp_path)
    )
    assert summary["budget"] == {"device_seconds": 1000.0, "spent": 0.0, "left": 1000.0}
    assert json.dumps(summary)
