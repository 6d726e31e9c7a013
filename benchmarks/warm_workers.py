"""What a training stage costs beside its training: the first of its shape, and those that follow.

The first starts a Ray Train run, the others find its workers warm: their ratio is what keeping the
workers saves. Seconds are the wall time of a stage, from the wish to its record, less what the
stage itself took.

    python benchmarks/warm_workers.py                  5 times 7 alignments of one step

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Ray's own is 15: where others use the machine too, that would measure priorities.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray  # noqa: E402

from benchmarks.spread import spread  # noqa: E402
from cluster.ray_session import connected  # noqa: E402
from cluster.stages_handle import StagesHandle  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402
from trainables.data.catalog import load_catalog  # noqa: E402
from trainables.data.demo_world.render import render_world  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402
from trainables.trial import trial_stages  # noqa: E402

SMALL = {
    "datasets.demo_world.clips_per_source": 32,
    "datasets.demo_world.heldout_per_source": 8,
    "datasets.demo_world.downstream_train": 24,
    "datasets.demo_world.downstream_selection": 12,
    "datasets.demo_world.downstream_report": 12,
    "trial.align.epochs": 1,
    "trial.align.clips_per_epoch": 32,
    "trial.align.heldout_clips": 0,
}


def beside_training(sweep: Sweep, count: int) -> list[float]:
    """Seconds beside the training of `count` stages, one after another, in a new Ray."""
    world = sweep.settings.datasets.demo_world
    assert world is not None
    with tempfile.TemporaryDirectory() as folder, connected():
        data = load_catalog(
            render_world(world, Path(folder) / "worlds", 2, lambda done, total: None)
        )
        stages = StagesHandle(StageStore(Path(folder) / "stages"), data, sweep.settings.execution)
        beside = []
        for seed in range(count):
            stage = trial_stages(sweep.trial_with({"seed": seed}, "seed"), data).weights
            ray.get([stages.want(needed, seed) for needed in stage.inputs.values()])
            began = time.monotonic()
            record = ray.get(stages.want(stage, seed))
            beside.append(time.monotonic() - began - record["cost"]["device_seconds"])
            print(f"stage {seed}: {beside[-1]:.2f} s beside its training", flush=True)
        stages.kill()
    return beside


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=5, help="each with a Ray of its own")
    arguments = parser.parse_args()
    sweep = Sweep(ROOT / "sweeps" / "demo.yaml", SMALL)
    runs = [beside_training(sweep, arguments.stages) for _ in range(arguments.repeats)]
    result = {
        "benchmark": "warm_workers",
        "repeats": arguments.repeats,
        "first_seconds": spread([first for first, *_ in runs]),
        "others_seconds": spread([value for _, *others in runs for value in others]),
        "ratio": spread([first / statistics.median(others) for first, *others in runs]),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
