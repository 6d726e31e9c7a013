"""Whether a small model, trained on virtual humans, recognises motions, people, cameras never seen.

Renders a dataset with held-out motions (by group), people and cameras, aligns the demo's tiny model
on its training clips (the project's own stages, one process, one thread, no Ray), and scores it on
the held-out clips. Run again it continues; what is finished is not done again.

    python benchmarks/virtual_humans_recognised.py MOCAP WORK          1,040 clips, 16 epochs
    python benchmarks/virtual_humans_recognised.py MOCAP WORK --clips 104 --epochs 1

MOCAP is a folder of BVH files with a clips.csv. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from trainables.config import Execution, TrialConfig  # noqa: E402
from trainables.data.catalog import load_catalog  # noqa: E402
from trainables.data.virtual_humans.__main__ import main as render  # noqa: E402
from trainables.settings import load_yaml, parse, with_overrides  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402
from trainables.stages.run import run_stage  # noqa: E402
from trainables.trial import trial_stages  # noqa: E402

NAME = "virtual_humans"
SECONDS, HELDOUT = 2.4, 260


def main() -> None:
    arguments = _arguments()
    options = {
        "--clips": arguments.clips,
        "--heldout": HELDOUT,
        "--seconds": SECONDS,
        "--fps": 10,
        "--size": "96x72",
        "--seed": arguments.seed,
        "--people": arguments.people,
        "--workers": arguments.workers,
    }
    given = [str(word) for option in options.items() for word in option]
    if render([str(arguments.motions), str(arguments.work), *given]) != 0:
        sys.exit(2)
    datasets = load_catalog(arguments.work / "catalog.yaml", [NAME])
    trial = parse(TrialConfig, _trial(arguments), "trial")
    execution = parse(
        Execution, load_yaml(ROOT / "sweeps" / "demo.yaml")["execution"]["align"], "execution"
    )
    store = StageStore(arguments.work / "stages")
    aligned = trial_stages(trial, datasets).weights
    begun = time.process_time()
    for stage in aligned.chain():
        run_stage(stage, store, datasets, execution, should_stop=lambda: False)
    record = store.record(aligned.identity)
    assert record is not None
    found = record.metrics[f"heldout/{NAME}"]
    right = round(found * HELDOUT) / HELDOUT
    classes = len(datasets[NAME].classes)
    print(
        json.dumps(
            {
                "heldout_accuracy": round(right, 4),
                "interval_95": [round(end, 4) for end in wilson(right, HELDOUT)],
                "chance": round(1 / classes, 4),
                "classes": classes,
                "heldout_clips": HELDOUT,
                "training_clips": arguments.clips,
                "epochs": arguments.epochs,
                "most_people": arguments.people,
                "seed": arguments.seed,
                "training_cpu_seconds": round(time.process_time() - begun),
            }
        )
    )


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval, of clips as if they were independent (those of a motion are not)."""
    z = 1.96
    middle = (share + z * z / 2 / count) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / 4 / count**2) / (1 + z * z / count)
    return middle - half, middle + half


def _trial(arguments: argparse.Namespace) -> dict[str, object]:
    """The demo's, at 64 pixels, on this source alone."""
    return with_overrides(
        load_yaml(ROOT / "sweeps" / "demo.yaml")["trial"],
        {
            "seed": arguments.seed,
            "clip.seconds": SECONDS,
            "clip.resolution": 64,
            "mae.epochs": 0,
            "align.epochs": arguments.epochs,
            "align.clips_per_epoch": arguments.clips // 32 * 32,
            "align.mixture.shares": {NAME: 1},
            "align.heldout_clips": HELDOUT,
            "average.endpoints": [],
            "average.scored_together": [],
            "downstream": [NAME],
        },
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("motions", type=Path, metavar="MOCAP")
    parser.add_argument("work", type=Path, metavar="WORK", help="a folder for clips and stages")
    parser.add_argument("--clips", type=int, default=1040)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--people", type=int, default=1, help="most in a clip (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    return parser.parse_args()


if __name__ == "__main__":
    main()
