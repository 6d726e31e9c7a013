"""Kill the real command at any moment, run it again: nothing lost, nothing done twice."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.aftermath import (
    answers,
    check_aftermath,
    finished_stages,
    mlflow_runs,
    summary_of,
)
from tests.faults.disturbed import DisturbedSweep
from tests.faults.ray_nodes import RayNodes
from tests.sweeps.commands import command, environment, run_to_end, run_until, write_world_sweep
from tests.toy import CPU


def is_refused_beside_the_first(sweep: Path) -> bool:
    """A second copy of the job, while the first runs."""
    second = subprocess.run(
        command(sweep), cwd=sweep.parent, env=environment(), capture_output=True, text=True
    )
    assert second.returncode == 2 and "runs this sweep; wait for it" in second.stdout
    return True


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
        lambda: running_epochs(sweep, aligning=True) >= 3 and is_refused_beside_the_first(sweep),
        lambda: kinds(sweep)["align"] == 1,  # its weights are being probed now
    ]
    finished: dict[str, int] = {}
    for moment in moments:
        run_until(sweep, moment)
        finished |= finished_stages(sweep)
    run_to_end(sweep)
    check_aftermath(sweep, uninterrupted, finished_before=finished)
    interrupted = [t for t in summary_of(sweep)["trials"] if t["number"] == 1]
    assert interrupted[0]["state"] == "complete"


@pytest.mark.slow
def test_a_worker_a_driver_and_the_entry_process_killed_on_a_cluster_of_nodes_change_nothing(
    uninterrupted: Path, tmp_path: Path
) -> None:
    cluster = RayNodes(tmp_path / "ray")
    try:
        cluster.add_node(cpus=2)
        sweep = DisturbedSweep(write_world_sweep(tmp_path / "sweep"), cluster)
        sweep.start()
        trained = sweep.wait_for_training("mae", step=20)
        sweep.fault(sweep.trainer(trained).kill, trained)
        sweep.wait_for_training("align", step=10)
        sweep.kill_driver()
        trained = sweep.wait_for_training("align", step=20)
        sweep.fault(sweep.kill_entry_process_and_submit_again, trained)
        sweep.end()
        sweep.check(uninterrupted, most_repeated=2 * CPU["checkpoint_every_steps"])
    finally:
        cluster.shut_down()


@pytest.mark.slow
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
