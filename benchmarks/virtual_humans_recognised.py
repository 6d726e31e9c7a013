"""Whether small models, trained on virtual humans, recognise motions, people, cameras never seen.

Renders a dataset with held-out motions (by group), people and cameras, and scores two models on its
held-out clips: a logistic regression on descriptors of what moves (`motion_descriptors.py`), which
learns from few clips, and, if asked, the demo's tiny ViT from random weights, aligned by the
project's own stages. One process, no Ray. Run again it continues: what is rendered and trained is
not done again.

    python benchmarks/virtual_humans_recognised.py MOCAP WORK                 1,560 clips, minutes
    python benchmarks/virtual_humans_recognised.py MOCAP WORK --epochs 12     and the ViT
    python benchmarks/virtual_humans_recognised.py MOCAP WORK --clips 104 --heldout 52

MOCAP is a folder of BVH files with a clips.csv. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.motion_descriptors import heldout_predictions  # noqa: E402
from trainables.bootstrap import bootstrap_interval  # noqa: E402
from trainables.config import Execution, TrialConfig  # noqa: E402
from trainables.data.catalog import Dataset, load_catalog  # noqa: E402
from trainables.data.virtual_humans.__main__ import main as render  # noqa: E402
from trainables.settings import load_yaml, parse, with_overrides  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402
from trainables.stages.features import group_ids  # noqa: E402
from trainables.stages.run import run_stage  # noqa: E402
from trainables.trial import trial_stages  # noqa: E402

NAME = "virtual_humans"
SECONDS, WINDOW = 4.0, 3.2  # of a clip, and of it what is seen, begun anywhere
BATCH = 8


def main() -> None:
    arguments = _arguments()
    options = {
        "--clips": arguments.clips,
        "--heldout": arguments.heldout,
        "--seconds": SECONDS,
        "--fps": 5,
        "--size": "72x72",  # all of a frame is seen, so nobody's hand is cut off
        "--cast": 1000,
        "--cameras": 1000,
        "--seed": arguments.seed,
        "--people": arguments.people,
        "--workers": arguments.workers,
    }
    given = [str(word) for option in options.items() for word in option]
    if render([str(arguments.motions), str(arguments.work), *given]) != 0:
        sys.exit(2)
    dataset = load_catalog(arguments.work / "catalog.yaml", [NAME])[NAME]
    results: dict[str, object] = {"descriptors": _descriptors(dataset, arguments.seed)}
    if arguments.epochs:
        print(json.dumps(results), flush=True)
        results["vit_tiny"] = _vit_tiny(dataset, arguments)
    told: dict[str, object] = {
        "chance": round(1 / len(dataset.classes), 4),
        "classes": len(dataset.classes),
        "training_clips": arguments.clips,
        "heldout_clips": arguments.heldout,
        "most_people": arguments.people,
        "seed": arguments.seed,
    }
    print(json.dumps({**results, **told}))


def _descriptors(dataset: Dataset, seed: int) -> dict[str, object]:
    begun = time.process_time()
    label, said = heldout_predictions(dataset, WINDOW, seed)
    right, groups = label == said, group_ids(dataset.split("selection"))
    accuracy = right.double().mean().item()
    by_group = bootstrap_interval(right.numpy(), groups.numpy())
    return {
        "heldout_accuracy": round(accuracy, 4),
        "interval_95": wilson(accuracy, len(right)),
        "interval_90_by_group": [round(end, 4) for end in by_group],
        "confusions": confusions(label, said, dataset.classes)[:12],
        "cpu_seconds": round(time.process_time() - begun),
    }


def _vit_tiny(dataset: Dataset, arguments: argparse.Namespace) -> dict[str, object]:
    begun = time.process_time()
    trial = parse(TrialConfig, _trial(arguments), "trial")
    execution = parse(
        Execution, load_yaml(ROOT / "sweeps" / "demo.yaml")["execution"]["align"], "execution"
    )
    store, datasets = StageStore(arguments.work / "stages"), {NAME: dataset}
    aligned = trial_stages(trial, datasets).weights
    for stage in aligned.chain():
        run_stage(stage, store, datasets, execution, should_stop=lambda: False)
    for point in store.progress(aligned.identity):
        print(point)
    record = store.record(aligned.identity)
    assert record is not None
    accuracy = record.metrics[f"heldout/{NAME}"]
    return {
        "heldout_accuracy": round(accuracy, 4),
        "interval_95": wilson(accuracy, arguments.heldout),
        "epochs": arguments.epochs,
        "cpu_seconds": round(time.process_time() - begun),
    }


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval, of clips as if they were independent (those of a motion are not)."""
    z = 1.96
    middle = (share + z * z / 2 / count) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / 4 / count**2) / (1 + z * z / count)
    return round(middle - half, 4), round(middle + half, 4)


def confusions(label: Tensor, said: Tensor, classes: Sequence[str]) -> list[tuple[str, str, float]]:
    """What is taken for what: a class, another, and the share of the first, largest first.

    `label`, `said`: int64 [N].
    """
    size = len(classes)
    counts = torch.bincount(label * size + said, minlength=size * size).view(size, size)
    shares = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).tolist()
    found = [
        (classes[a], classes[b], round(shares[a][b], 2))
        for a, b in itertools.permutations(range(size), 2)
        if shares[a][b]
    ]
    return sorted(found, key=lambda confusion: -confusion[2])


def _trial(arguments: argparse.Namespace) -> dict[str, object]:
    """The demo's on this source alone, with crops and colours that vary and in small batches: from
    few clips, many steps teach more than large ones."""
    return with_overrides(
        load_yaml(ROOT / "sweeps" / "demo.yaml")["trial"],
        {
            "seed": arguments.seed,
            "clip.seconds": WINDOW,
            "mae.epochs": 0,
            "align.epochs": arguments.epochs,
            "align.clips_per_epoch": arguments.clips // BATCH * BATCH,
            "align.optimizer.batch_size": BATCH,
            "align.label_smoothing": 0.1,
            "align.augment.crop_scale": [0.6, 1.0],
            "align.augment.crop_ratio": [0.9, 1.1],
            "align.augment.jitter": 0.3,
            "align.mixture.shares": {NAME: 1},
            "align.heldout_clips": arguments.heldout,
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
    parser.add_argument("--clips", type=int, default=1560)
    parser.add_argument("--heldout", type=int, default=260)
    parser.add_argument("--epochs", type=int, default=0, help="of the ViT (default: none)")
    parser.add_argument("--people", type=int, default=1, help="most in a clip (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    return parser.parse_args()


if __name__ == "__main__":
    main()
