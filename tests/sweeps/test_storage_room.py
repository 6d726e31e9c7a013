"""A sweep ends when one more trial would go past the budget of its storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.planning import storage_room
from sweeps.planning.storage_room import left_out
from sweeps.reporting.report import write_report
from sweeps.reporting.summary import make_summary
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from tests.sweeps.test_spending import make_search, run_one, store_of
from tests.toy import toy_data

KILOBYTE = 1e-6  # in GB
STAGE_KB = 10  # with their records the first trial's 6 stages take 66 kB, each other's 4 take 44


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_room, "SHARE_OF_TIME", 1e9)


def search_within(folder: Path, kilobytes: float | None, **overrides: Any) -> Search:
    budget = None if kilobytes is None else kilobytes * KILOBYTE
    return make_search(folder, None, execution__storage__budget_gb=budget, **overrides)


def run_all(search: Search, folder: Path) -> int:
    """Returns how many trials there are; to its end."""
    while run_one(search, store_of(folder), STAGE_KB) is not None:
        pass
    return len(search.records)


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "random", "grid"])
def test_on_a_fresh_storage_the_search_ends_before_the_trial_that_would_pass_the_budget(
    tmp_path: Path, sampler: str
) -> None:
    search = search_within(tmp_path, 190, search__sampler=sampler)
    assert run_all(search, tmp_path) == 3  # of 6: 66 + 2 x 44 kB, and a fourth would make it 198
    assert search.unfinished() == 0
    storage = search.storage()
    assert storage is not None and storage["taken"] <= storage["budget"]
    assert storage["taken"] + storage["next_trial"] > storage["budget"]
    assert (storage["coming"], storage["left_out"]) == (0, 3)


def test_the_summary_and_the_report_say_that_the_storage_ended_it_and_the_next_run_as_well(
    tmp_path: Path,
) -> None:
    assert run_all(search_within(tmp_path, 190), tmp_path) == 3
    again = search_within(tmp_path, 190)
    assert again.unfinished() == 0
    sweep = Sweep(tmp_path / "sweep.yaml", {})
    summary = make_summary(sweep, again, toy_data(), store_of(tmp_path))
    said = left_out(summary["storage"])
    assert said is not None and "3 trials were not begun; raise execution.storage.budget_gb" in said
    assert said in write_report(summary, [], tmp_path)[0].read_text()


def test_trials_that_run_are_counted_with_what_they_will_take_and_end_in_peace(
    tmp_path: Path,
) -> None:
    search = search_within(tmp_path, 190, search__concurrent=6)
    run_one(search, store_of(tmp_path), STAGE_KB)
    assert [search.ask() is not None for _ in range(3)] == [True, True, False]
    assert search.unfinished() == 2


def test_a_larger_budget_goes_on_and_without_one_nothing_is_said(tmp_path: Path) -> None:
    assert run_all(search_within(tmp_path, 190), tmp_path) == 3
    larger = search_within(tmp_path, 240)
    assert larger.unfinished() == 3
    assert run_all(larger, tmp_path) == 4
    without = search_within(tmp_path, None)
    assert run_all(without, tmp_path) == 6
    assert without.storage() is None and left_out(None) is None
    assert left_out(search_within(tmp_path, 10).storage()) is None  # past it, with all its trials


def test_a_storage_that_takes_long_to_look_at_is_not_looked_at_for_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = storage_room.storage_use
    monkeypatch.setattr(
        storage_room, "storage_use", lambda *asked: looks.append(asked) or look(*asked)
    )
    monkeypatch.setattr(storage_room, "SHARE_OF_TIME", 1e-9)
    search = search_within(tmp_path, 190)
    run_one(search, store_of(tmp_path), STAGE_KB)
    search.storage()  # as when the report is written: now sizes are known
    assert run_all(search, tmp_path) == 3  # what was made since is counted all the same
    assert len(looks) == 2
