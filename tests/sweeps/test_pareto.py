from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.reporting.report import write_report
from sweeps.watching.terminal import print_leaderboard
from tests.sweeps.test_report import Finished

BOTH = {"search__objectives": ["score", "gpu_hours"]}
# Stages of 2 s each: random weights need 4, a trial with both pre-trainings 6.
SCORES = {0: 0.3, 1: 0.5, 2: 0.4, 3: 0.6, 5: 0.2}


def test_the_front_holds_the_trials_that_no_other_beats_in_all_objectives(tmp_path: Path) -> None:
    summary = Finished(tmp_path, SCORES, **BOTH).summary()
    found = summary["pareto"]
    assert found["objectives"] == {"score": "maximize", "gpu_hours": "minimize"}
    assert found["front"] == [3, 0]
    assert found["points"]["3"] == pytest.approx([0.6, 12 / 3600])
    assert found["points"]["0"] == pytest.approx([0.3, 8 / 3600])
    assert summary["recommended"]["trial"] == 3, "by the score alone"


def test_hours_are_those_of_a_trial_alone_whichever_came_first(tmp_path: Path) -> None:
    summary = Finished(tmp_path, SCORES, **BOTH).summary()
    alone = {trial["number"]: trial["device_seconds"] for trial in summary["trials"]}
    assert alone[1] == alone[2] == alone[3] == 12.0  # though trial 1 paid for what all share
    paid = {trial["number"]: trial["cost"]["device_seconds"] for trial in summary["trials"]}
    assert paid[1] > paid[2]


def test_the_report_shows_the_front(tmp_path: Path) -> None:
    files = write_report(Finished(tmp_path, SCORES, **BOTH).summary(), [], tmp_path)
    front = files[0].read_text().split("## Pareto front")[1].split("##")[0]
    assert "| 3, baseline: equal | 60.0 % | 0.00333 |" in front
    assert "| 0, baseline: random weights | 30.0 % | 0.00222 |" in front
    assert "baseline: synthetic only" not in front
    assert "pareto_0_1.png" in [file.name for file in files]
    assert (tmp_path / "pareto_0_1.png").read_bytes().startswith(b"\x89PNG")


def test_with_one_objective_there_is_no_front_to_show(tmp_path: Path) -> None:
    summary = Finished(tmp_path, SCORES).summary()
    assert summary["pareto"] is None
    assert "Pareto" not in write_report(summary, [], tmp_path)[0].read_text()


def test_a_front_of_nothing_is_no_error(tmp_path: Path) -> None:
    summary = Finished(tmp_path, {}, **BOTH).summary()
    assert summary["pareto"]["front"] == [] and summary["recommended"] is None
    assert "nothing is recommended" in write_report(summary, [], tmp_path)[0].read_text()


def leaderboard(summary: dict[str, Any]) -> tuple[dict[str, str], str]:
    """What stands before each trial's number, and all that was printed."""
    console = Console(width=160, record=True, file=io.StringIO())
    print_leaderboard(summary, console)
    said = console.export_text()
    rows = [line.split("│")[1:3] for line in said.splitlines() if line.startswith("│")]
    return {number.strip(): mark.strip() for mark, number in rows}, said


def test_the_leaderboard_marks_the_front_beside_the_recommended_trial(tmp_path: Path) -> None:
    marks, said = leaderboard(Finished(tmp_path, SCORES, **BOTH).summary())
    assert marks["3"] == "★◆" and marks["0"] == "◆"
    assert {marks[number] for number in ("1", "2", "4", "5")} == {""}
    assert "◆ Pareto front of score and gpu_hours" in said


def test_the_leaderboard_of_one_objective_marks_no_front(tmp_path: Path) -> None:
    marks, said = leaderboard(Finished(tmp_path, SCORES).summary())
    assert marks["3"] == "★" and "◆" not in said
