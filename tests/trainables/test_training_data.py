from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import AUGMENT, MIXUP, OPTIMIZER, toy_data, toy_execution, toy_trial
from trainables import training_data
from trainables.config import FinetuneSettings
from trainables.gpu_meter import GpuMeter
from trainables.settings import parse
from trainables.stage import Stage
from trainables.stage_run import StageRun
from trainables.stage_store import StageStore
from trainables.training_data import TrainingData, downstream_data, mixed_data


def run(tmp_path: Path, **execution: Any) -> StageRun:
    return StageRun(
        stage=Stage(kind="align", settings={}),
        store=StageStore(tmp_path),
        datasets=toy_data(),
        execution=toy_execution(**execution),
        should_stop=lambda: False,
        beat=lambda: False,
        device=torch.device("cpu"),
        gpu=GpuMeter(torch.device("cpu")),
    )


def aligned(tmp_path: Path, execution: dict[str, Any] | None = None, **align: Any) -> TrainingData:
    trial = toy_trial(**{f"align__{key}": value for key, value in align.items()})
    return mixed_data(run(tmp_path, **(execution or {})), trial.clip, trial.align, seed=0)


def finetuned(tmp_path: Path, mixup: dict[str, Any] | None, **execution: Any) -> TrainingData:
    described = {
        "epochs": 1,
        "drop_path": 0.0,
        "label_smoothing": 0.0,
        "max_unreadable": 0.0,
        "augment": AUGMENT,
        "mixup": mixup,
        "optimizer": OPTIMIZER,
    }
    settings = parse(FinetuneSettings, described, "finetune")
    made = run(tmp_path, **execution)
    return downstream_data(made, toy_trial().clip, settings, made.datasets["low"], seed=0)


def test_views_are_what_an_epoch_counts(tmp_path: Path) -> None:
    data = aligned(tmp_path, views_per_clip=2)
    assert (data.steps_per_epoch, data.mixture.total) == (2, 16)
    assert data.mixture.draw(0).clip_seed == data.mixture.draw(1).clip_seed
    trial = toy_trial(mae__views_per_clip=4)
    assert mixed_data(run(tmp_path), trial.clip, trial.mae, seed=0).mixture.views_per_clip == 4
    with pytest.raises(ValueError, match="batch_size 4 is no multiple of align.views_per_clip 3"):
        aligned(tmp_path, views_per_clip=3)


def test_clips_are_paired_as_mixup_says(tmp_path: Path) -> None:
    across = {**MIXUP, "across_sources": True}
    assert aligned(tmp_path).pairing is None
    assert aligned(tmp_path, mixup=MIXUP).pairing == "within_source"
    assert aligned(tmp_path, mixup=across).pairing == "across_sources"
    assert finetuned(tmp_path, None).pairing is None
    assert finetuned(tmp_path, MIXUP).pairing == "within_source"
    trial = toy_trial()
    assert mixed_data(run(tmp_path), trial.clip, trial.mae, seed=0).pairing is None


def test_parts_of_a_batch_that_would_cut_pairs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "per_device_batch 3 is odd, which cuts a pair .*; make it 4, or set mixup: null"
    with pytest.raises(ValueError, match=message):
        aligned(tmp_path, {"per_device_batch": 3}, mixup=MIXUP)
    with pytest.raises(ValueError, match=message):
        finetuned(tmp_path, MIXUP, per_device_batch=3)
    aligned(tmp_path, {"per_device_batch": 3})
    aligned(tmp_path, {"per_device_batch": 2}, mixup=MIXUP)
    monkeypatch.setattr(training_data, "world_size", lambda: 3)
    aligned(tmp_path)
    with pytest.raises(ValueError, match="batch_size 4 gives 3 workers no pair of clips to mix"):
        aligned(tmp_path, mixup=MIXUP)
    monkeypatch.setattr(training_data, "world_size", lambda: 5)
    with pytest.raises(ValueError, match="batch_size 4 gives 5 workers no clip each"):
        aligned(tmp_path)


def test_the_sources_to_resample_are_those_of_the_mixture_s_settings(tmp_path: Path) -> None:
    assert aligned(tmp_path).resample == {}
    data = aligned(tmp_path, mixture__resample={"synthetic": [432, 240]})
    assert data.resample == {"synthetic": (432, 240)}
    assert finetuned(tmp_path, None).resample == {}
