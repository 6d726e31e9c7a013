"""The contrastive stage, to be run under torchrun: train_views.py VIDEOS STORE."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.toy import AUGMENT, MIXTURE, OPTIMIZER, toy_trial
from tests.trainables.data.videos import write_video
from tests.trainables.toy_videos import run_chain, toy_videos
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

CONTRASTIVE: dict[str, Any] = {
    "epochs": 2,
    "branch_epochs": [],
    "clips_per_epoch": 12,
    "mixture": {"shares": {"synthetic": 0.5, "scenes": 0.5}, **MIXTURE},
    "view_scale": 0.5,
    "loss": "simclr",
    "classes": None,
    "temperature": 0.1,
    "projection": {"hidden": 16, "size": 8},
    "drop_path": 0.0,
    "augment": AUGMENT,
    "optimizer": {**OPTIMIZER, "batch_size": 6},
}


def with_views(videos: Path) -> dict[str, Dataset]:
    """The toy datasets; the synthetic one has views of scale 0.5."""
    datasets, folder = toy_videos(videos), videos / "views"
    for index, clip in enumerate(datasets["synthetic"].clips):
        if not (folder / clip.path).exists():
            write_video(folder / clip.path, width=32, height=32, count=8, seed=900 + index)
    return {**datasets, "synthetic": replace(datasets["synthetic"], views={0.5: folder})}


def contrast(datasets: dict[str, Dataset], **changes: Any) -> Stage:
    """The contrastive stage alone, with some of its settings changed."""
    trial = toy_trial(contrastive={**CONTRASTIVE, **changes}, mae__epochs=0, align__epochs=0)
    return trial_stages(trial, datasets).weights


def main() -> None:
    videos, root = map(Path, sys.argv[1:])
    datasets = with_views(videos)
    for changes in ({}, {"loss": "supcon", "classes": "union"}):
        run_chain(contrast(datasets, **changes), StageStore(root), datasets, workers=2)


if __name__ == "__main__":
    main()
