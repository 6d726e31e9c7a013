"""The command as a person meets it: help, plan, mistakes."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from sweeps.only_one import only_one
from tests.sweeps.commands import command, environment, write_world_sweep
from trainables.storage.folder import Folder


def run(sweep: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(sweep, *arguments),
        cwd=sweep.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )


def refusal(folder: Path, *arguments: str, **overrides: Any) -> str:
    """What the command says, on one line, when it refuses before training anything."""
    done = run(write_world_sweep(folder, **overrides), *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    stages = folder / "runs" / "stages"
    assert not stages.exists() or not list(stages.glob("*/record.json"))
    return " ".join(done.stdout.split())


def test_help_teaches_by_example(tmp_path: Path) -> None:
    printed = run(write_world_sweep(tmp_path), "--help").stdout
    assert "ray job submit --working-dir . -- python sweeps/mixing.py" in printed
    assert "--dry-run" in printed and "--set KEY=VALUE" in printed


def test_a_dry_run_prints_the_plan_and_touches_nothing(tmp_path: Path) -> None:
    sweep = write_world_sweep(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = run(sweep, "--dry-run")
    assert done.returncode == 0 and "trials are known and stand on" in done.stdout
    assert "0.5 synthetic + 0.5 scenes" in done.stdout and "synthetic 15.0x" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_mistake_is_one_error_and_no_traceback(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--set", "trial.align.epoch=3")
    assert said.startswith("error: trial.align.epoch: no such setting; did you mean")


def test_an_mlflow_that_is_away_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    said = refusal(tmp_path, tracking__uri="http://127.0.0.1:9")
    assert "MLflow at http://127.0.0.1:9 cannot be used" in said
    assert not (tmp_path / "runs" / "toy" / "sweep.json").exists()  # all may still be changed


def test_more_workers_than_there_can_be_is_an_error_that_says_what_is_short(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--set", "execution.align.cpus_per_worker=500")
    assert "execution of align: needs 1 worker of 500 CPU, but the cluster has room for 0" in said


def test_a_sweep_that_another_process_runs_is_refused(tmp_path: Path) -> None:
    with only_one(Folder(str(tmp_path / "runs" / "toy")), print):
        assert f"process {os.getpid()} on {socket.gethostname()} runs this sweep" in refusal(
            tmp_path
        )


def test_a_changed_sweep_is_refused_and_names_the_change(tmp_path: Path) -> None:
    from sweeps.records import write_sweep

    write_sweep(Folder(str(tmp_path / "runs" / "toy")), {"trial": {"seed": 7}})
    said = refusal(tmp_path)
    assert "trial.seed: 7 when it began, 0 now" in said


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("")
    entry = "{clips: clips.csv, root: ., humans: virtual}"
    names = ("synthetic", "scenes", "low_bias", "high_bias")
    lines = "".join(f"  {name}: {entry}\n" for name in names)
    (tmp_path / "catalog.yaml").write_text(f"datasets:\n{lines}")
    said = refusal(tmp_path, datasets={"catalog": "catalog.yaml"})
    assert "clips.csv" in said
