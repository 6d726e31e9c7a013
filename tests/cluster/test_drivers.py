from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.commands import ROOT, environment


@pytest.mark.slow
def test_what_only_waits_runs_on_the_nodes_with_the_resource_for_it(tmp_path: Path) -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "drivers_apart.py"), str(tmp_path / "stages")],
        env={**environment(), "PYTHONPATH": os.pathsep.join(map(str, [here / "stand_in", ROOT]))},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["refused"].startswith("execution.driver_resource 'stay': no node")
    waiting = {"Stages", "TrainController", "ImplicitFunc"}  # the last is a trial's driver
    there = {name: there for name, there in found["there"].items() if name in waiting}
    assert there == dict.fromkeys(waiting, True)
