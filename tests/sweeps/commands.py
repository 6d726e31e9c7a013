"""The real command in a real process, on a tiny world that it renders itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.toy import write_toy_sweep

ROOT = Path(__file__).resolve().parents[2]
WORLD = {
    "seed": 0,
    "clips_per_source": 16,
    "heldout_per_source": 8,
    "downstream_train": 24,
    "downstream_selection": 12,
    "downstream_report": 12,
    "frames": 8,
    "frames_per_second": 8,
    "height": 64,
    "width": 64,
}


def write_world_sweep(folder: Path, **overrides: Any) -> Path:
    """A sweep of four trials on a tiny world; long enough stages to be killed in."""
    settings: dict[str, Any] = {
        "datasets": {"demo_world": WORLD},
        "trial__downstream": ["low_bias", "high_bias"],
        "trial__mae__epochs": 30,
        "trial__align__epochs": 30,
        "trial__align__heldout_clips": 8,
        "search__trials": 4,
        **overrides,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return write_toy_sweep(folder, **settings)


def command(sweep: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "sweeps" / "mixing.py"), str(sweep), *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without what would point at another Ray, or at the cluster tests' stand-in."""
    others = ("RAY_", "SWEEPS_", "MLFLOW_", "PYTHONPATH")
    ours = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    # On a busy machine a node starts slowly, and workers that are nice get nothing done.
    patient = {"RAY_raylet_start_wait_time_s": "120", "RAY_worker_niceness": "0"}
    return {**ours, **patient, **(more or {})}


def run_to_end(
    sweep: Path,
    *arguments: str,
    folder: Path | None = None,
    seconds: float = 400,
) -> str:
    """Run the command to its end, in `folder` or where the sweep is; returns what it printed."""
    done = subprocess.run(
        command(sweep, *arguments),
        cwd=folder or sweep.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run_until(
    sweep: Path,
    moment: Callable[[], bool],
    seconds: float = 300,
) -> None:
    """Start the command; at `moment` kill it and all that it started with SIGKILL."""
    with (sweep.parent / "killed.log").open("a") as log:
        process = subprocess.Popen(
            command(sweep), cwd=sweep.parent, env=environment(), stdout=log, stderr=log
        )
    deadline = time.monotonic() + seconds
    while not moment():
        assert process.poll() is None, (sweep.parent / "killed.log").read_text()[-3000:]
        assert time.monotonic() < deadline, f"the moment did not come in {seconds} s"
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    for each in [psutil.Process(process.pid), *children]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            pass
    process.wait()
    psutil.wait_procs(children, timeout=20)
