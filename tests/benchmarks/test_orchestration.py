"""The parts of the benchmark that need no Ray."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.orchestration import ROOT, compared, no_op_sweep, write_stages
from sweeps.storage_use import storage_use
from trainables.stage_store import StageStore


def test_the_stages_that_it_lists_are_whole(tmp_path: Path) -> None:
    arguments = argparse.Namespace(folder=tmp_path, trials=10, concurrent=1)
    write_stages(tmp_path / "stages", 12, no_op_sweep(arguments))
    store = StageStore(tmp_path / "stages")
    records = store.records()
    assert len(records) == 12 and {r.stage["kind"] for r in records} >= {"align", "probe"}
    for record in records:
        assert store.file(record.identity, "weights").exists()
    assert storage_use(store, None).leftovers == 0


def test_ours_is_compared_with_tune_and_stock_over_trials_of_the_same_numbers() -> None:
    took = {
        "ray": {"10": 0.4, "20": 0.5, "1000": 0.7},
        "tune": {"10": 0.3, "20": 0.3, "1000": 0.5},
        "stock": {"10": 9.0, "20": 8.0},
    }
    found = {part: {"seconds_per_trial_at": seconds} for part, seconds in took.items()}
    assert compared(found) == {
        "tune_up_to_trial": 1000,
        "ms_a_trial_beyond_tune": 200,
        "stock_up_to_trial": 20,
        "of_stock": 0.062,
    }
    assert compared({"here": found["ray"]}) == {}


@pytest.mark.slow
def test_a_sweep_of_no_op_trials_runs_to_its_answer_and_is_timed() -> None:
    command = [sys.executable, "benchmarks/orchestration.py", "--parts", "here", "--trials", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    here = json.loads(done.stdout.splitlines()[-1])["here"]
    assert here["trials"] == 8 and here["seconds_per_trial_late"] > 0
    assert here["mlflow_runs"] > 1 + 8 + 8  # the sweep's, the trials', their stages'
