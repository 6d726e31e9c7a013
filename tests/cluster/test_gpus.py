from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.commands import ROOT, environment


@pytest.mark.slow
def test_four_parts_of_a_logical_gpu_run_beside_each_other_as_tasks_and_training_has_it_alone(
    tmp_path: Path,
) -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "parts_of_a_gpu.py"), str(tmp_path / "stages")],
        env={
            **environment(),
            "PYTHONPATH": os.pathsep.join(map(str, [here / "stand_in", ROOT])),
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["waits"] == [None] * 4 + ["needs 0.25 GPU, free 0", "1 before it"]
    assert found["gangs_while_parts_ran"] == 0
    assert found["training_came_after_all"]
