"""Kill the real command at any moment, run it again: nothing lost, nothing done twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.commands import run_to_end, run_until, write_world_sweep


def summary_of(sweep: Path) -> dict[str, Any]:
    return json.loads((sweep.parent / "runs" / "toy" / "summary.json").read_text())


def answers(sweep: Path) -> dict[str, Any]:
    summary = summary_of(sweep)
    keys = ("number", "values", "state", "score", "scores", "intervals", "report")
    trials = sorted(summary["trials"], key=lambda trial: trial["number"])
    return {
        "trials": [{key: trial[key] for key in keys} for trial in trials],
        "recommended": (summary["recommended"]["trial"], summary["recommended"]["weights"]),
    }


def finished_stages(sweep: Path) -> dict[str, int]:
    """Identity -> when its record was written, in ns."""
    records = (sweep.parent / "runs" / "stages").glob("*/record.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in records}


def kinds(sweep: Path) -> Counter[str]:
    stages = sweep.parent / "runs" / "stages"
    records = [json.loads((stages / i / "record.json").read_text()) for i in finished_stages(sweep)]
    return Counter(record["stage"]["kind"] for record in records)


def running_epochs(sweep: Path, aligning: bool) -> int:
    """Epochs of a stage that is not finished: alignment has accuracies, MAE has not."""
    for progress in (sweep.parent / "runs" / "stages").glob("*/progress.jsonl"):
        lines = progress.read_text().splitlines()
        if not (progress.parent / "record.json").exists() and lines:
            if ("train_accuracy" in lines[0]) == aligning:
                return len(lines)
    return 0


def mlflow_runs(sweep: Path) -> Counter[tuple[str, str]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{sweep.parent / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    return Counter((run.data.tags["kind"], run.data.tags["key"]) for run in runs)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = write_world_sweep(tmp_path_factory.mktemp("uninterrupted"))
    run_to_end(sweep)
    return sweep


def test_a_second_run_trains_nothing_and_answers_the_same(uninterrupted: Path) -> None:
    before, stages, runs = (
        answers(uninterrupted),
        finished_stages(uninterrupted),
        mlflow_runs(uninterrupted),
    )
    printed = run_to_end(uninterrupted, seconds=60)
    assert "nothing is trained" in printed
    assert answers(uninterrupted) == before
    assert finished_stages(uninterrupted) == stages
    assert mlflow_runs(uninterrupted) == runs


def test_killed_in_mae_in_alignment_and_while_probing_it_ends_as_if_uninterrupted(
    uninterrupted: Path, tmp_path: Path
) -> None:
    sweep = write_world_sweep(tmp_path)
    moments: list[Callable[[], bool]] = [
        lambda: running_epochs(sweep, aligning=False) >= 3,
        lambda: running_epochs(sweep, aligning=True) >= 3,
        lambda: kinds(sweep)["align"] == 1,  # its weights are being probed now
    ]
    finished: dict[str, int] = {}
    for moment in moments:
        run_until(sweep, moment)
        finished |= finished_stages(sweep)
    run_to_end(sweep)
    assert answers(sweep) == answers(uninterrupted)
    assert finished_stages(sweep).items() >= finished.items(), "a finished stage was trained again"
    assert set(mlflow_runs(sweep).values()) == {1}
    assert set(mlflow_runs(sweep)) == set(mlflow_runs(uninterrupted))
    interrupted = [t for t in summary_of(sweep)["trials"] if t["number"] == 1]
    assert interrupted[0]["state"] == "complete"


def test_with_two_at_a_time_a_killed_sweep_keeps_each_trials_settings_and_score(
    uninterrupted: Path, tmp_path: Path
) -> None:
    sweep = write_world_sweep(tmp_path, search__concurrent=2)
    run_until(sweep, lambda: running_epochs(sweep, aligning=True) >= 3)
    trials = sweep.parent / "runs" / "toy" / "trials"
    stored = {path.name: json.loads(path.read_text()) for path in trials.glob("*.json")}
    run_to_end(sweep)
    for name, before in stored.items():
        after = json.loads((trials / name).read_text())
        assert after["values"] == before["values"]
        assert before["score"] in (None, after["score"])
    alone = {str(t["values"]): t["scores"] for t in summary_of(uninterrupted)["trials"]}
    for trial in summary_of(sweep)["trials"]:
        assert trial["scores"] == alone.get(str(trial["values"]), trial["scores"])
    assert set(mlflow_runs(sweep).values()) == {1}
