"""Scores that a search can learn nothing from, through all that comes after them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sweeps.reporting.report import write_report
from tests.sweeps.commands import write_world_sweep
from tests.sweeps.test_command import run
from tests.sweeps.test_report import Finished
from tests.sweeps.test_search import make_search, run_all

SAMPLERS = ["cost_aware", "tpe", "random", pytest.param("gp", marks=pytest.mark.slow)]
RATES: dict[str, Any] = {
    "parameters": {
        "align.optimizer.lr_peak": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
    }
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_constant_scores_end_no_search_and_repeat_no_point(tmp_path: Path, sampler: str) -> None:
    search = make_search(tmp_path, space=RATES, search__sampler=sampler, search__trials=12)
    run_all(search, score=lambda number: 0.5)
    rates = [record.values["align.optimizer.lr_peak"] for record in search.records[1:]]
    assert len(search.records) == 12 and len(set(rates)) == len(rates)


def test_constant_scores_with_several_objectives_end_no_search(tmp_path: Path) -> None:
    search = make_search(
        tmp_path,
        space=RATES,
        search__sampler="tpe",
        search__trials=14,
        search__objectives=["score", "gpu_hours"],
    )
    run_all(search, score=lambda number: 0.0)
    assert len(search.records) == 14


def test_of_constant_scores_the_first_is_recommended_and_the_report_says_so(tmp_path: Path) -> None:
    scores = dict.fromkeys(range(6), 0.5)
    summary = Finished(tmp_path, scores, search__objectives=["score", "gpu_hours"]).summary()
    assert summary["recommended"]["trial"] == 0
    text = write_report(summary, [], tmp_path)[0].read_text()
    assert "**All 6 complete trials have the same score**" in text


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("objectives", [["score"], ["score", "gpu_hours"]])
def test_when_all_trials_fail_the_search_comes_to_its_end(
    tmp_path: Path, sampler: str, objectives: list[str]
) -> None:
    if sampler == "cost_aware" and len(objectives) > 1:
        with pytest.raises(ValueError, match="'cost_aware' improves one objective"):
            make_search(tmp_path, search__sampler=sampler, search__objectives=objectives)
        return
    search = make_search(
        tmp_path,
        space=RATES,
        search__sampler=sampler,
        search__trials=10,
        search__objectives=objectives,
    )
    while (assignment := search.ask()) is not None:
        search.failed(assignment.number, "the loss is nan")
    assert [record.state for record in search.records] == ["failed"] * 10


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_fails_its_trial_with_several_objectives_too(
    tmp_path: Path, score: float
) -> None:
    search = make_search(tmp_path, search__sampler="tpe", search__objectives=["gpu_hours", "score"])
    run_all(search, score=lambda number: score if number % 2 else 0.5)
    assert [r.state for r in search.records] == ["complete", "failed"] * 3
    assert f"its score is {score}" in search.records[1].reason


@pytest.mark.slow
def test_a_real_sweep_whose_trials_all_fail_says_why_and_exits_with_1(tmp_path: Path) -> None:
    sweep = write_world_sweep(
        tmp_path,
        trial__mae__epochs=0,
        trial__align__epochs=2,
        trial__align__optimizer__lr_peak=1e30,
        search__baselines=False,
        search__trials=2,
    )
    done = run(sweep)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No trial was completed, so there is no recommendation" in done.stdout
    assert "lower lr_peak" in done.stdout and "Traceback" not in done.stdout + done.stderr
    summary = json.loads((tmp_path / "runs" / "toy" / "summary.json").read_text())
    assert summary["recommended"] is None and summary["counts"]["failed"] == 2
    assert "## Failed" in (tmp_path / "runs" / "toy" / "report.md").read_text()
