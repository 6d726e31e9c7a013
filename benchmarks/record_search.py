"""Records a whole grid of a small demo world as a table, for benchmarks/search.py to replay.

    python benchmarks/record_search.py --world 20      about half an hour on 2 cores
    python benchmarks/record_search.py --world 21

Every trial of benchmarks/recorded_space.yaml runs through the normal entry point: shares x
epochs of alignment x coefficients x seeds. The coefficient interpolates between weights aligned
on scenes alone and weights aligned on the mix. The table (benchmarks/search_world_N.json) holds
what each trial scored, its held-out accuracy by epoch, its stages, and what each stage took.
Interrupted, the same command continues.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sweeps.records import read_records  # noqa: E402
from sweeps.run import run_sweep  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402
from sweeps.watching.terminal import make_console  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402

# The demo's sweep file, small enough for 90 trials.
CHANGES: dict[str, Any] = {
    "question": "What does every trial of a small grid score, and what does each stage cost?",
    "datasets.demo_world.clips_per_source": 768,
    "datasets.demo_world.heldout_per_source": 32,
    "datasets.demo_world.downstream_train": 180,
    "datasets.demo_world.downstream_selection": 180,
    "datasets.demo_world.downstream_report": 12,
    "trial.clip.resolution": 32,
    "trial.align.clips_per_epoch": 768,
    "trial.align.optimizer.batch_size": 16,
    "trial.align.heldout_clips": 24,
    "trial.average.method": "interpolate",
    "trial.average.endpoints": [{"mixture.shares": {"scenes": 1}}, {}],
    "search.space": "../benchmarks/recorded_space.yaml",
    "search.sampler": "grid",
    "search.trials": 90,
    "search.concurrent": 4,
    "search.baselines": False,
    "search.points": [],
    "search.law": None,
    "bias": None,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", type=int, required=True, help="the seed of the demo world")
    parser.add_argument("--trials", type=int, default=90, help="fewer: only the grid's beginning")
    arguments = parser.parse_args()
    changes = CHANGES | {
        "name": f"recorded-world-{arguments.world}",
        "datasets.demo_world.seed": arguments.world,
        "search.trials": arguments.trials,
    }
    sweep = Sweep(ROOT / "sweeps" / "demo.yaml", changes)
    run_sweep(sweep, make_console())
    table = recorded(sweep, arguments.world)
    file = ROOT / "benchmarks" / f"search_world_{arguments.world}.json"
    file.write_text(as_lines(table))
    print(
        json.dumps(
            {
                "benchmark": "record_search",
                "world": arguments.world,
                "trials": len(table["trials"]),
                "stages": len(table["stages"]),
                "device_seconds": round(sum(each["seconds"] for each in table["stages"].values())),
            }
        )
    )
    return 0


def recorded(sweep: Sweep, world: int) -> dict[str, Any]:
    """`stages`: short identity -> kind, clips, device-seconds; `trials`: the complete ones."""
    store = StageStore(sweep.storage / "stages")
    stages: dict[str, dict[str, Any]] = {}
    trials = []
    for record in read_records(sweep.folder):
        if record.state != "complete":
            continue
        for identity in record.stages.values():
            known = store.record(identity)
            assert known is not None, f"stage {identity} of a complete trial is missing"
            stages[identity[:8]] = {
                "kind": known.stage["kind"],
                "clips": known.cost.get("clips", 0),
                "seconds": round(known.cost["device_seconds"], 3),
            }
        trials.append(
            {
                "values": record.values,
                "scores": record.scores,
                "heldout": heldout(store, alignments(record.stages)[-1]),  # the mix's own
                "stages": [identity[:8] for identity in record.stages.values()],
            }
        )
    return {"world": world, "stages": stages, "trials": trials}


def alignments(stages: Mapping[str, str]) -> list[str]:
    """Identities, in the order of the endpoints: scenes alone, the mix (where it is another)."""
    return [identity for name, identity in stages.items() if name.split()[0] == "align"]


def heldout(store: StageStore, identity: str) -> list[float]:
    """The alignment's held-out accuracy by epoch, as the mean over its sources."""
    return [
        statistics.mean(value for name, value in point.items() if name.startswith("heldout/"))
        for point in store.progress(identity)
    ]


def as_lines(table: dict[str, Any]) -> str:
    """JSON with a line for each stage and each trial."""
    stages = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in table["stages"].items())
    trials = ",\n".join(f"  {json.dumps(trial)}" for trial in table["trials"])
    world = table["world"]
    return f'{{"world": {world},\n "stages": {{\n{stages}}},\n "trials": [\n{trials}]}}\n'


if __name__ == "__main__":
    sys.exit(main())
