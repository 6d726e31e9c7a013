from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.space import Space, load_space
from sweeps.planning.forecast import draw
from sweeps.searching.given import given_trials
from sweeps.searching.search import Search
from sweeps.searching.trial_names import trial_name
from sweeps.sweep import Sweep
from tests.toy import STOPPING, at_rung, toy_data, write_toy_sweep


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


def test_a_dry_run_foresees_the_points_of_a_grid_that_baselines_leave_to_it(
    tmp_path: Path,
) -> None:
    shares = {"type": "simplex", "over": ["synthetic", "scenes"], "step": 0.5}
    space = {"parameters": {"align.mixture.shares": shares, "seed": {"type": "choice"}}}
    space["parameters"]["seed"]["values"] = [0, 1]  # the baselines have the first
    settings = {"space": space, "search__sampler": "grid", "search__trials": 8}
    search = make_search(tmp_path, **settings)
    sweep = Sweep(tmp_path / "sweep.yaml", {})
    foreseen = draw(sweep, load_space(sweep.space_file), search, 3)
    run_all(search)
    assert {number: config for number, (_, config) in foreseen.items()} == {
        record.number: search.config(record) for record in search.records[5:]
    }
    assert len(foreseen) == 3


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
    stored = json.loads((search.folder / "trials").read("0000.json"))
    assert assignment is not None and stored["number"] == assignment.number
    assert stored["state"] == "running" and stored["finished_at"] is None


def test_how_a_trial_ended_is_on_disk_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(f"2026-01-01T00:00:{second:02d}+00:00" for second in range(60))
    monkeypatch.setattr("sweeps.searching.search.now", lambda: next(clock))
    search = make_search(tmp_path)
    changed: list[tuple[int, str]] = []
    search.listen(lambda record: changed.append((record.number, record.state)))
    search.ask()
    search.tracked(0, "run of trial 0")
    search.complete(0, {"low": 0.5}, {"weights": "ab12"})
    stored = json.loads((search.folder / "trials").read("0000.json"))
    assert stored["scores"] == {"low": 0.5} and stored["stages"] == {"weights": "ab12"}
    assert stored["mlflow_run_id"] == "run of trial 0"
    assert (stored["started_at"][-8:-6], stored["finished_at"][-8:-6]) == ("00", "01")
    assert changed == [(0, "running"), (0, "running"), (0, "complete")]


def test_a_trial_that_is_handed_out_again_keeps_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = "2026-01-01T00:00:00+00:00"
    monkeypatch.setattr("sweeps.searching.search.now", lambda: began)
    make_search(tmp_path).ask()
    monkeypatch.setattr("sweeps.searching.search.now", lambda: "2026-01-02T00:00:00+00:00")
    again = make_search(tmp_path)
    again.ask()
    assert (again.records[0].started_at, again.records[0].finished_at) == (began, None)


def test_a_trial_that_is_running_is_still_to_run(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    while (assignment := search.ask()) is not None and assignment.number < 5:
        search.complete(assignment.number, {"low": 0.5}, {})
    assert search.unfinished() == 1  # the last one, which a killed sweep must hand out again
    assert make_search(tmp_path).unfinished() == 1


RATES: dict[str, Any] = {
    "parameters": {
        "align.optimizer.lr_peak": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
    }
}
LEARNING: dict[str, Any] = {
    "space": RATES,
    "search__sampler": "tpe",
    "search__trials": 16,
    "search__early_stopping": STOPPING,
}


def test_stopped_and_failed_trials_teach_the_same_before_and_after_a_restart(
    tmp_path: Path,
) -> None:
    def rates(folder: Path, restart: bool) -> list[Any]:
        folder.mkdir()
        search = make_search(folder, **LEARNING)
        while (assignment := search.ask()) is not None:
            number = assignment.number
            rate = assignment.trial["align"]["optimizer"]["lr_peak"]
            # Most are stopped, and the sampler ranks them by where they stood.
            if search.reached(number, at_rung(0.25, rate)):
                search.failed(number, "the loss is nan")
            search = make_search(folder, **LEARNING) if restart else search
        return [record.values for record in search.records]

    assert rates(tmp_path / "restarted", True) == rates(tmp_path / "whole", False)


def test_suggestions_look_at_scores_only_after_the_given_trials_and_a_few_of_their_own(
    tmp_path: Path,
) -> None:
    def suggested(folder: Path, sign: int) -> list[Any]:
        folder.mkdir()
        points = [
            {"name": f"{rate}", "set": {"align.optimizer.lr_peak": rate}} for rate in (2e-3, 5e-3)
        ]
        search = make_search(folder, search__points=points, **LEARNING)
        while (assignment := search.ask()) is not None:
            rate = assignment.trial["align"]["optimizer"]["lr_peak"]
            search.complete(assignment.number, {"low": 0.5 + sign * rate}, {})
        return [record.values for record in search.records]

    one, other = suggested(tmp_path / "one", 1), suggested(tmp_path / "other", -1)
    # Three are given, of them random weights outside the space: four in it must be complete.
    assert one[:5] == other[:5]
    assert one[5:] != other[5:]


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


def test_a_failed_trial_keeps_its_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.failed(search.ask().number, "the loss is nan")
    run_all(search)
    assert (search.records[0].state, search.records[0].reason) == ("failed", "the loss is nan")
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
    stored = json.loads((search.folder / "trials").read("0006.json"))
    assert stored["state"] == "waiting" and len(stored["values"]["average.endpoints"]) == 4
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
    assert "trial 6" not in more  # the earlier soup is no candidate for this one


def test_a_soup_lies_on_the_settings_of_its_best_trial(tmp_path: Path) -> None:
    points = [
        {"name": "long", "set": {"align.epochs": 3, "probe.l2_grid": [2.0]}},
        {"name": "short", "set": {"align.epochs": 1}},
    ]
    search = make_search(
        tmp_path,
        search__space=None,
        search__trials=None,
        search__baselines=False,
        search__greedy_soup=True,
        search__points=points,
    )
    run_all(search, score=lambda number: 0.9 - number / 10)
    assert search.add_soup() == "greedy soup: of the weights of trials 0, 1"
    config = search.config(search.records[2])
    assert config.probe.l2_grid == (2.0,)
    assert [config.endpoint(index).epochs for index in range(2)] == [3, 1]


def test_baselines_that_are_still_to_come_are_known_by_their_numbers_beside_a_soup(
    tmp_path: Path,
) -> None:
    first = make_search(tmp_path, search__trials=3, search__greedy_soup=True)
    assert [name for name, _ in first.known().values()] == [
        "baseline: random weights",
        "baseline: synthetic only",
        "baseline: scenes only",
    ]
    run_all(first)
    first.add_soup()
    run_all(first)
    longer = make_search(tmp_path, search__trials=5, search__greedy_soup=True)
    ahead = {number: name for number, (name, _) in longer.known().items() if number > 3}
    assert ahead == {4: "baseline: equal", 5: "baseline: proportional"}
    run_all(longer)
    assert {r.number: r.name for r in longer.records if r.number > 3} == ahead
