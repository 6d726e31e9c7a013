"""The toy trial's stages 1 and 2, to be run under torchrun: train_toy.py VIDEOS STORE."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain, toy_videos
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


def main() -> None:
    videos, root = map(Path, sys.argv[1:])
    datasets = toy_videos(videos)
    run_chain(trial_stages(toy_trial(), datasets).weights, StageStore(root), datasets, workers=2)


if __name__ == "__main__":
    main()
