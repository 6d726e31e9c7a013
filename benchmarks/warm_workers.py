"""What a training stage costs beside its training: the first of its shape, and those that follow.

The first starts a Ray Train run, the others find its workers warm: their ratio is what keeping the
workers saves. Seconds are the wall time of a stage, from the wish to its record, less what the
stage itself took.

    python benchmarks/warm_workers.py                  7 alignments of one step, one after another

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ray  # noqa: E402

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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", type=int, default=7)
    arguments = parser.parse_args()
    sweep = Sweep(ROOT / "sweeps" / "demo.yaml", SMALL)
    world = sweep.settings.datasets.demo_world
    assert world is not None
    with tempfile.TemporaryDirectory() as folder, connected():
        data = load_catalog(
            render_world(world, Path(folder) / "worlds", 2, lambda done, total: None)
        )
        stages = StagesHandle(StageStore(Path(folder) / "stages"), data, sweep.settings.execution)
        beside = []
        for seed in range(arguments.stages):
            stage = trial_stages(sweep.trial_with({"seed": seed}, "seed"), data).weights
            ray.get([stages.want(needed, seed) for needed in stage.inputs.values()])
            began = time.monotonic()
            record = ray.get(stages.want(stage, seed))
            beside.append(time.monotonic() - began - record["cost"]["device_seconds"])
            print(f"stage {seed}: {beside[-1]:.2f} s beside its training", flush=True)
        stages.kill()
    first, others = beside[0], sorted(beside[1:])
    result = {
        "benchmark": "warm_workers",
        "first_seconds": round(first, 2),
        "others_median_seconds": round(statistics.median(others), 2),
        "others_seconds": [round(value, 2) for value in others],
        "ratio": round(first / statistics.median(others), 1),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
