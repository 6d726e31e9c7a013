from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import gpu_table

SPREAD = {"median": 10.0, "least": 9.0, "most": 11.0}
SIDE = {
    "clips_per_second": SPREAD,
    "teraflops": SPREAD,
    "share_of_matrix": {**SPREAD, "median": 0.5},
    "peak_mb": 100,
}
STEPS = {
    "benchmark": "training_step",
    "model": "vit_tiny",
    "precision": "fp32",
    "device": "CPU",
    "mae": {"ours": SIDE, "plain": SIDE, "ratio": SPREAD},
}


def shown(logs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, gpu_table.__file__, str(logs), "12"]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_table_shows_what_came_to_its_end_and_says_what_did_not(tmp_path: Path) -> None:
    (tmp_path / "steps.log").write_text(f"noise\n{json.dumps(STEPS)}\n")
    skipped = {"benchmark": "fed_training", "skipped": "for a reason"}
    (tmp_path / "probe.log").write_text("cut\n")
    (tmp_path / "fed.log").write_text(json.dumps(skipped))
    done = shown(tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("mae ours")]
    assert row.split()[2:] == ["10.0", "10", "50.0%", "100"]
    assert "probe: not measured" in done.stdout
    assert "fed: for a reason" in done.stdout
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["benchmark"] == "gpu"
    assert last["steps"] == STEPS


def test_a_part_that_was_cut_short_counts_with_what_it_had_and_aims_are_judged(
    tmp_path: Path,
) -> None:
    fed = {**SIDE, "loader_alone": SPREAD, "steps_alone": SPREAD, "matrix_teraflops": 20.0}
    part = {**STEPS, "benchmark": "fed_training", "mae": fed, "unfinished": ["align"]}
    (tmp_path / "fed.log").write_text(f"{json.dumps(part)}\nalign: cut\n")
    done = shown(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fed: cut short, align not measured" in done.stdout
    assert "mae, loader included: 50.0% of the matrix rate" in done.stdout
    assert "40% in bf16 on an H200, is met" in done.stdout
    assert "align, loader included: not measured" in done.stdout
    assert "mae ours compiled, no loader 10.0".split() in [
        line.split() for line in done.stdout.splitlines()
    ]
    assert "a large matrix product: 20 to 20 TFLOP/s" in done.stdout


def test_a_table_of_nothing_is_a_failure(tmp_path: Path) -> None:
    assert shown(tmp_path).returncode == 1
