"""The toy datasets as real files, and one way to run a stage on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.toy import toy_data, toy_execution
from tests.trainables.data.videos import write_video
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import Record, StageStore
from trainables.stages.run import run_stage


def toy_videos(root: Path) -> dict[str, Dataset]:
    """`toy_data` with its clips in `root`, written if they are not there."""
    datasets = {}
    for number, (name, dataset) in enumerate(toy_data().items()):
        for index, clip in enumerate(dataset.clips):
            path = root / name / clip.path
            if not path.exists():
                write_video(path, width=32, height=32, count=8, seed=100 * number + index)
        datasets[name] = replace(dataset, root=root / name)
    return datasets


def run_chain(
    stage: Stage,
    store: StageStore,
    datasets: dict[str, Dataset],
    should_stop: Callable[[], bool] = lambda: False,
    beat: Callable[[], bool] = lambda: False,
    **execution: Any,
) -> Record:
    """Run all that `stage` needs and then itself, which alone asks `should_stop` and beats."""
    for needed in stage.chain():
        stops, beats = (should_stop, beat) if needed is stage else (lambda: False, lambda: False)
        run_stage(needed, store, datasets, toy_execution(**execution), stops, beat=beats)
    record = store.record(stage.identity)
    assert record is not None
    return record


def weights_of(stage: Stage, store: StageStore) -> dict[str, torch.Tensor]:
    return load_file(store.file(stage.identity, "weights"))
