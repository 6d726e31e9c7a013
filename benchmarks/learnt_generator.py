"""What a generative model that is learnt from a world's virtual humans in minutes is worth.

Renders the demo's world, lets `data.generators train` learn from its synthetic clips, and asks of
samples: does a classifier that was fitted to real clips see the class they were asked for; are they
as varied as real clips; are they copies of training clips. Run again it continues.

    python benchmarks/learnt_generator.py WORK                       2,048 clips, the defaults
    python benchmarks/learnt_generator.py WORK --clips 96 --autoencoder-steps 20 --flow-steps 20

The classifier is a logistic regression on what moves where: mean and largest absolute change from
frame to frame on a grid of 16x12. WORK/samples.png has a row a sample, all its frames. The last
line is JSON; mean squared errors are of pixels from 0 to 255.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from trainables.data.catalog import Dataset, load_catalog  # noqa: E402
from trainables.data.clips import ClipReader  # noqa: E402
from trainables.data.demo_world.render import render_world  # noqa: E402
from trainables.data.demo_world.settings import WorldSettings  # noqa: E402
from trainables.data.generators.__main__ import main as generators  # noqa: E402
from trainables.data.views import frames_of  # noqa: E402
from trainables.data.whole_files import add_to_catalog  # noqa: E402
from trainables.logistic_regression import fit  # noqa: E402

HELDOUT, SAMPLES, ROWS = 512, 512, 24
L2 = (0.03, 0.1, 0.3)
SCALES = (0.25, 1.0)  # of views
READER = ClipReader(frames=8, seconds=1.0, short_side=48, keep_bytes=0, video_reader="pyav")


def main() -> None:
    arguments, learning = _arguments()
    work = arguments.work
    world = WorldSettings(
        seed=arguments.seed,
        clips_per_source=arguments.clips,
        heldout_per_source=HELDOUT,
        downstream_train=12,
        downstream_selection=12,
        downstream_report=12,
        frames=8,
        frames_per_second=8,
        height=48,
        width=64,
    )
    catalog = render_world(world, work / "worlds", 1, lambda done, total: None)
    program = work / "flow.pt2"
    begun = time.process_time(), time.monotonic()
    if generators(["train", str(catalog), "synthetic", str(program), "--workers", "1", *learning]):
        sys.exit(2)
    cpu, wall = time.process_time() - begun[0], time.monotonic() - begun[1]
    entry = {"generator": "flow.pt2", "clips": SAMPLES, "heldout_clips": 0, "seed": 0}
    add_to_catalog(work / "catalog.yaml", "drawn", entry)
    real, drawn = load_catalog(catalog)["synthetic"], load_catalog(work / "catalog.yaml")["drawn"]
    clips, labels = _read(real, "train")
    heldout, heldout_labels = _read(real, "selection")
    begun = time.process_time(), 0.0
    samples, sample_labels = _read(drawn, "train")
    sampling = (time.process_time() - begun[0]) / SAMPLES
    views = {scale: _read(drawn, "train", scale)[0] for scale in SCALES}
    _sheet(work / "samples.png", samples, sample_labels, drawn.classes)

    features, classes = _moving(clips), len(real.classes)
    best, accuracy = None, -1.0
    for model in fit(features, labels, L2, classes):
        found = _share(model.logits(_moving(heldout)), heldout_labels)
        best, accuracy = (model, found) if found > accuracy else (best, accuracy)
    assert best is not None
    small = {name: _small(each) for name, each in (("real", clips), ("new", heldout))}
    print(
        json.dumps(
            {
                "accuracy_heldout_clips": round(accuracy, 4),
                "accuracy_samples": round(_share(best.logits(_moving(samples)), sample_labels), 4),
                "accuracy_views": {
                    scale: round(_share(best.logits(_moving(each)), sample_labels), 4)
                    for scale, each in views.items()
                },
                "chance": 1 / classes,
                "apart": {  # mean squared error
                    "samples": round(_apart(_small(samples)), 1),
                    "real": round(_apart(small["real"]), 1),
                    **{
                        f"view_{scale}": round(
                            float(((_small(each) - _small(samples)) ** 2).mean())
                        )
                        for scale, each in views.items()
                    },
                },
                "nearest_training_clip": {
                    "of_samples": round(_nearest(_small(samples), small["real"]), 1),
                    "of_heldout_clips": round(_nearest(small["new"], small["real"]), 1),
                },
                "mean_pixel": [round(float(each.mean()), 1) for each in (clips, samples)],
                "deviation": [round(float(each.std()), 1) for each in (clips, samples)],
                "moves": [round(float(_moving(each).mean()), 2) for each in (heldout, samples)],
                "samples": SAMPLES,
                "training_clips": len(clips),
                "learning_cpu_seconds": round(cpu),  # little where it was there
                "learning_wall_seconds": round(wall),
                "sampling_cpu_ms": round(1000 * sampling, 1),
                "program_mb": round(program.stat().st_size / 1e6, 1),
            }
        )
    )


def _read(dataset: Dataset, split: str, scale: float = 0.0) -> tuple[np.ndarray, torch.Tensor]:
    """uint8 [N, T, H, W, 3] and int64 [N]."""
    clips = dataset.split(split)
    frames = np.stack([frames_of(dataset, clip, scale, READER, 0.0) for clip in clips])
    return frames, torch.tensor([clip.label for clip in clips])


def _moving(clips: np.ndarray) -> torch.Tensor:
    """[N, 2 * 12 * 16]."""
    found = []
    for clip in clips:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in clip]
        change = np.abs(np.diff(np.stack(grey), axis=0))
        grid = [cv2.resize(each, (16, 12), interpolation=cv2.INTER_AREA) for each in change]
        found.append(np.concatenate([np.mean(grid, axis=0), np.max(grid, axis=0)]).ravel())
    return torch.from_numpy(np.stack(found))


def _share(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).double().mean())


def _small(clips: np.ndarray) -> np.ndarray:
    """float32 [N, D]: at a half of the size, for noise is near nothing."""
    halves = clips.reshape(*clips.shape[:2], clips.shape[2] // 2, 2, clips.shape[3] // 2, 2, 3)
    return halves.mean(axis=(3, 5), dtype=np.float32).reshape(len(clips), -1)


def _apart(clips: np.ndarray) -> float:
    return float(((clips - np.roll(clips, 1, axis=0)) ** 2).mean())


def _nearest(clips: np.ndarray, among: np.ndarray) -> float:
    """Mean squared error to the nearest of `among`, mean over the clips."""
    squares = (clips**2).sum(1)[:, None] + (among**2).sum(1)[None] - 2 * clips @ among.T
    return float((squares.min(axis=1) / clips.shape[1]).mean())


def _sheet(path: Path, clips: np.ndarray, labels: torch.Tensor, classes: tuple[str, ...]) -> None:
    order = torch.argsort(labels, stable=True)[:: max(1, len(labels) // ROWS)][:ROWS]
    rows = np.concatenate([np.concatenate(list(clips[place]), axis=1) for place in order])
    big = cv2.resize(rows, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(path), cv2.cvtColor(big, cv2.COLOR_RGB2BGR))
    print("rows of the picture:", ", ".join(classes[int(labels[place])] for place in order))


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    """And what is left, for the command that learns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, metavar="WORK", help="a folder for clips and program")
    parser.add_argument("--clips", type=int, default=2048, help="to learn from (default: 2048)")
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    return parser.parse_known_args()


if __name__ == "__main__":
    main()
