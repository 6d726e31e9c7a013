from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.space import Space, load_space
from sweeps.given import given_trials
from sweeps.search import Search, trial_name
from sweeps.sweep import Sweep
from tests.toy import toy_data, write_toy_sweep


def make_search(folder: Path, **overrides: Any) -> Search:
    sweep = Sweep(write_toy_sweep(folder, **overrides), {})
    space = load_space(sweep.space_file) if sweep.space_file else Space({})
    sizes = {"synthetic": 16, "scenes": 8}
    return Search(sweep, space, given_trials(sweep, space, sizes), toy_data())


def run_all(search: Search, score=lambda number: number / 10) -> None:
    while (assignment := search.ask()) is not None:
        search.complete(assignment.number, {"low": score(assignment.number)}, {})


def test_baselines_come_first_then_points_then_suggestions(tmp_path: Path) -> None:
    points = [{"name": "no stage 1", "set": {"mae.epochs": 0}}]
    search = make_search(tmp_path, search__points=points, search__trials=8)
    run_all(search)
    names = [record.name for record in search.records]
    assert names == [
        "baseline: random weights",
        "baseline: synthetic only",
        "baseline: scenes only",
        "baseline: equal",
        "baseline: proportional",
        "no stage 1",
        None,
        None,
    ]
    assert [r.origin for r in search.records[4:7]] == ["baseline", "point", "suggested"]
    proportional = search.config(search.records[4]).align.mixture.shares
    assert {k: float(v) for k, v in proportional.items()} == {"synthetic": 0.6667, "scenes": 0.3333}


@pytest.mark.parametrize("trials", [None, 9])
def test_without_a_space_the_given_trials_are_all_there_are(
    tmp_path: Path, trials: int | None
) -> None:
    points = [{"name": f"seed {seed}", "set": {"seed": seed}} for seed in (1, 2)]
    search = make_search(tmp_path, search__space=None, search__trials=trials, search__points=points)
    assert search.trials == 3
    run_all(search)
    assert [r.name for r in search.records] == ["baseline: random weights", "seed 1", "seed 2"]
    assert search.unfinished() == 0


def test_a_trial_is_on_disk_before_it_starts(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    assignment = search.ask()
    stored = json.loads((search.folder / "trials" / "0000.json").read_text())
    assert assignment is not None and stored["number"] == assignment.number
    assert stored["state"] == "running" and stored["finished_at"] is None


def test_an_interrupted_sweep_hands_out_what_was_unfinished_first_and_redraws_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = make_search(tmp_path / "whole")
    run_all(whole)
    cut = make_search(tmp_path / "cut")
    for _ in range(3):
        assignment = cut.ask()
        cut.complete(assignment.number, {"low": assignment.number / 10}, {})
    cut.ask()  # trial 3 starts, and then the process dies
    again = make_search(tmp_path / "cut")
    assert again.ask().number == 3
    again.complete(3, {"low": 0.3}, {})
    run_all(again)
    assert [r.values for r in again.records] == [r.values for r in whole.records]
    assert [r.score for r in again.records] == [r.score for r in whole.records]
    assert again.records[3].attempts == 2


def test_a_finished_sweep_has_nothing_to_hand_out_and_more_trials_extend_it(tmp_path: Path) -> None:
    run_all(make_search(tmp_path))
    assert make_search(tmp_path).ask() is None
    longer = make_search(tmp_path, search__trials=8)
    run_all(longer)
    assert [r.number for r in longer.records] == list(range(8))
    assert all(r.attempts == 1 for r in longer.records)


def test_failed_and_pruned_trials_keep_their_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.failed(search.ask().number, "the loss is nan")
    search.pruned(search.ask().number, "held-out accuracy 0.1")
    run_all(search)
    assert [(r.state, r.reason) for r in search.records[:2]] == [
        ("failed", "the loss is nan"),
        ("pruned", "held-out accuracy 0.1"),
    ]
    assert len(search.records) == 6 and all(r.finished for r in search.records)


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.complete(search.ask().number, {"low": float("nan")}, {})
    assert search.records[0].state == "failed" and "nan" in search.records[0].reason


def test_a_suggestion_past_the_repetition_cap_fails_at_once_and_says_why(tmp_path: Path) -> None:
    # 16 draws from 8 scenes at a share of 1 are 2 each.
    search = make_search(
        tmp_path, trial__align__mixture__max_repetition=1.5, search__baselines=False
    )
    run_all(search)
    over = [r for r in search.records if r.state == "failed"]
    assert over and all("max_repetition is 1.5" in r.reason for r in over)
    assert all(float(r.values["align.mixture.shares"]["scenes"]) > 0.75 for r in over)


def test_a_point_with_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'x'.*mae.epoch.*did you mean 'mae.epochs'"):
        make_search(tmp_path, search__points=[{"name": "x", "set": {"mae.epoch": 0}}])


def test_a_suggested_trial_is_named_by_its_mix_first(tmp_path: Path) -> None:
    search = make_search(tmp_path, search__baselines=False)
    search.ask()
    values = {
        "average.method": "none",
        "align.mixture.shares": {"synthetic": 0.1, "scenes": 0.9, "other": 0.0},
        "align.optimizer.lr_peak": 0.001,
    }
    named = trial_name(replace(search.records[0], values=values))
    assert named == "0.1 synthetic + 0.9 scenes, average.method none, optimizer.lr_peak 0.001"


def test_the_soup_is_one_more_trial_of_what_shares_a_stage_1(tmp_path: Path) -> None:
    points = [{"name": "other stage 1", "set": {"mae.epochs": 2}}]
    asked: dict[str, Any] = {"search__points": points, "search__greedy_soup": True}
    search = make_search(tmp_path, **asked)
    run_all(search, score=lambda number: 0.9 - number / 10)  # random weights first, then scenes
    told = search.add_soup()
    assert told is not None and "trial 0 was not aligned" in told
    assert "trial 5 another MAE ancestor" in told
    assert search.unfinished() == 1
    run_all(search)
    soup = search.records[-1]
    assert (soup.origin, soup.state, soup.name) == ("soup", "complete", "greedy soup of 4 trials")
    config = search.config(soup)
    assert config.average.method == "greedy_soup" and len(config.average.endpoints) == 4
    assert search.add_soup() is None  # it is there

    again = make_search(tmp_path, **asked)
    assert again.unfinished() == 0 and again.add_soup() is None
    longer = make_search(tmp_path, search__trials=7, **asked)
    assert longer.unfinished() == 1
    run_all(longer)
    assert [r.origin for r in longer.records[5:]] == ["point", "soup", "suggested"]
    more = longer.add_soup()
    assert more is not None and "greedy soup: of the weights" in more
