from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search_spaces.space import Space, parse_space
from sweeps.planning.costs import priced
from sweeps.planning.forecast import forecast
from sweeps.planning.plan import make_plan
from sweeps.planning.plan_tree import print_plan
from sweeps.sweep import Sweep
from tests.sweeps.test_plan import HORIZON_FREE, costs_at
from tests.toy import toy_data, toy_trial, write_toy_sweep

GIVEN = {"clips_per_second": {"mae": 1.0, "align": 1.0, "finetune": 1.0, "tasks": 1.0}}


def shown(
    tmp_path: Path,
    trials: list[dict[str, Any]],
    devices: tuple[int, ...] = (),
    concurrent: Any = 2,
    **execution: Any,
) -> str:
    """What a person sees of a plan of these trials, without suggestions."""
    known = {number: ("", toy_trial(**changes)) for number, changes in enumerate(trials)}
    costs = costs_at(tmp_path / "stages", **execution)
    plan = make_plan(known, 0, toy_data(), costs)
    sweep = Sweep(write_toy_sweep(tmp_path, search__concurrent=concurrent), {})
    console = Console(file=io.StringIO(), width=200)
    foreseen = forecast(sweep, Space({}), _Known(known), plan, toy_data(), costs)
    print_plan(plan, foreseen, console, devices)
    return console.file.getvalue()  # type: ignore[attr-defined]


class _Known:
    """As much of a search as a forecast without suggestions asks for."""

    def __init__(self, known: Any) -> None:
        self.known = lambda: known


def line_with(text: str, *words: str) -> str:
    found = [line for line in text.splitlines() if all(word in line for word in words)]
    assert len(found) == 1, f"{words} in {len(found)} lines of\n{text}"
    return found[0]


def depth(line: str) -> int:
    return len(line) - len(line.lstrip("│├└─ "))


def test_the_tree_shows_what_hangs_on_what(tmp_path: Path) -> None:
    text = shown(tmp_path, [{**HORIZON_FREE, "mae__epochs": 1, "align__epochs": n} for n in (4, 8)])
    mae, shorter = line_with(text, "── mae"), line_with(text, "align trunk", "to step 6")
    longer = line_with(text, "align trunk", "to step 12")
    branches = [line for line in text.splitlines() if "── align " in line]
    first, second = (line.rstrip() for line in branches if "to step" not in line)
    assert depth(mae) < depth(shorter) < depth(longer) == depth(first) < depth(second)
    assert all("trials 0, 1" in line for line in (mae, shorter))
    assert [line.rstrip()[-7:] for line in (longer, first, second)] == [
        "trial 1",
        "trial 0",
        "trial 1",
    ]


def test_a_hundred_trials_take_no_more_room_than_a_screen(tmp_path: Path) -> None:
    shares = [{"synthetic": n / 100, "scenes": (100 - n) / 100} for n in range(100)]
    text = shown(tmp_path, [{"align__mixture__shares": each} for each in shares])
    assert len(text.splitlines()) < 30
    assert "and 96 more align, 96 stages · 1,536 clips" in text
    few = shown(tmp_path, [{"align__mixture__shares": each} for each in shares[:8]])
    assert sum("── align " in line for line in few.splitlines()) == 8


def test_the_time_is_told_for_as_many_devices_as_asked_for(tmp_path: Path) -> None:
    # Stage 1 takes 8 s, alignment 16 and the passes over 8 and 4 clips 12.
    trials = [{"align__optimizer__lr_peak": rate} for rate in (1e-3, 2e-3, 3e-3)]
    text = shown(tmp_path, trials, (3,), **GIVEN)
    cells = times(text)
    assert set(cells) == {"1", "3", "8", "64"}
    assert "Without init and probe stages, of which none was timed here." in text
    assert cells["1"] == ["2 min", "2 min"]  # 92 s
    assert cells["3"][1] == "36 s"  # 8 + 16 + 8 + 4, all three side by side
    assert cells["64"] == ["56 s", "32 s"]  # two at a time, then the third: 32 + 16 + 8


def times(text: str) -> dict[str, list[str]]:
    """Devices -> the time with search.concurrent trials at a time, and with all at once."""
    return {
        row[1]: row[2:4]
        for line in text.splitlines()
        if len(row := [cell.strip() for cell in line.split("│")]) == 5
    }


def test_auto_is_as_many_trials_at_a_time_as_the_devices_can_feed(tmp_path: Path) -> None:
    trials = [{"align__optimizer__lr_peak": rate} for rate in (1e-3, 2e-3, 3e-3)]
    text = shown(tmp_path, trials, (2, 3), concurrent="auto", **GIVEN)
    fixed = times(shown(tmp_path, trials, (2, 3), **GIVEN))
    assert "auto trials" in text
    assert times(text)["2"] == fixed["2"]  # two at a time as well
    assert times(text)["3"] == ["36 s", "36 s"] != fixed["3"]


def test_a_gang_that_is_larger_than_the_cluster_is_told(tmp_path: Path) -> None:
    from tests.toy import CPU

    gang = {**CPU, "workers": 8, "gpus_per_worker": 1}
    text = shown(tmp_path, [{}], align=gang, mae=gang, **GIVEN)
    assert "too few" in line_with(text, "│       1 │")
    assert "The largest gang takes 8 devices." in text


def test_without_a_price_of_every_stage_the_time_is_not_known(tmp_path: Path) -> None:
    assert "How long it takes is not known" in shown(tmp_path, [{}])


@pytest.mark.parametrize("trials", [6, 301, 5000])
def test_trials_to_be_suggested_are_foreseen_from_random_draws(tmp_path: Path, trials: int) -> None:
    catalog_less = write_toy_sweep(tmp_path, search__trials=trials, search__baselines=False)
    sweep = Sweep(catalog_less, {})
    space = parse_space(
        {"parameters": {"align.optimizer.lr_peak": {"type": "float", "low": 0.001, "high": 0.002}}},
        "space",
    )
    costs = costs_at(tmp_path / "stages", **GIVEN, device_price_per_hour=3600.0)
    search = _Suggesting(sweep, space)
    plan = make_plan({}, trials, toy_data(), costs)
    foreseen = forecast(sweep, space, search, plan, toy_data(), costs)
    # Each adds its alignment, two passes and a probe; the first the start and stage 1 too.
    assert foreseen.stages == 2 + 4 * trials
    assert foreseen.seconds == pytest.approx(8 + (16 + 12) * trials)
    assert foreseen.money == pytest.approx(foreseen.seconds)
    # Nor does the time of a schedule stop with the trials that were drawn.
    assert foreseen.makespan(1, concurrent=2) == pytest.approx(foreseen.seconds)
    assert foreseen.makespan(2, concurrent=2) == pytest.approx(foreseen.seconds / 2, rel=0.1)
    # What sharing saves is told, though no trial is known: each alone would make stage 1 itself.
    console = Console(file=io.StringIO(), width=400)
    plan.budget = "Budget: 5 h."
    print_plan(plan, foreseen, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"All {trials} trials will be suggested" in text and "Budget: 5 h." in text
    line = line_with(text, f"With {trials} suggested trials", "if each trial were alone")
    alone = (8 + 16 + 12) * trials
    assert f"{priced(foreseen.seconds, foreseen.money)} and " in line
    assert f"{priced(alone, alone)} and {alone:,} clips if each" in line


class _Suggesting:
    """A search that has no trial yet."""

    def __init__(self, sweep: Sweep, space: Space) -> None:
        self.known = dict
        self.observations = self.to_come = list
        self.records: list[Any] = []


@pytest.mark.parametrize(("lengths", "trials"), [([4, 8], 4), ([4, 8], 9), ([*range(4, 64)], 500)])
def test_a_grid_s_trials_are_all_known_and_stand_in_the_tree(
    tmp_path: Path, lengths: list[int], trials: int
) -> None:
    space = {
        "parameters": {
            "align.epochs": {"type": "choice", "values": lengths},
            "average.coefficient": {"type": "choice", "values": [0.5, 1.0]},
        }
    }
    trial = {f"trial__{key}": value for key, value in HORIZON_FREE.items()}
    together = {"trial__average__method": "wise_ft", "trial__average__scored_together": [0.5, 1.0]}
    sweep = Sweep(
        write_toy_sweep(
            tmp_path,
            space=space,
            search__sampler="grid",
            search__trials=trials,
            **trial,
            **together,
        ),
        {},
    )
    parsed = parse_space(space, "space")
    costs = costs_at(tmp_path / "stages")
    plan = make_plan({}, trials, toy_data(), costs)
    foreseen = forecast(sweep, parsed, _Suggesting(sweep, parsed), plan, toy_data(), costs)
    console = Console(file=io.StringIO(), width=200)
    print_plan(plan, foreseen, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{2 * len(lengths)} trials known" in text and "suggested" not in text
    own = "trials 0, 1, 2, 3" if len(lengths) == 2 else f"{2 * len(lengths)} trials"
    assert own in line_with(text, "align trunk", "to step 6")
