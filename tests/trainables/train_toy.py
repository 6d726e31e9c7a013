"""All of a trial that trains, to be run under torchrun: train_toy.py VIDEOS STORE COMPILE."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from tests.toy import MIXUP, TRIAL, toy_trial
from tests.trainables.toy_videos import run_chain, toy_videos
from trainables.config import FinetuneSettings
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


def toy_chain(datasets: dict[str, Dataset]) -> Stage:
    """An augmented probe, after alignment, after MAE; clips are mixed in the first two."""
    probe = {name: TRIAL["align"].get(name) for name in FinetuneSettings.model_fields}
    probe |= {"epochs": 1, "max_unreadable": 0.0, "mixup": MIXUP}
    trial = toy_trial(align__mixup=MIXUP, augmented_probe=probe)
    return trial_stages(trial, datasets).results["augmented_probe"]["low"].inputs["model"]


def main() -> None:
    videos, root, compiled = sys.argv[1:]
    datasets, store = toy_videos(Path(videos)), StageStore(Path(root))
    warnings.filterwarnings("error", message="torch.compile does not work")
    run_chain(toy_chain(datasets), store, datasets, workers=2, compile=compiled == "True")


if __name__ == "__main__":
    main()
