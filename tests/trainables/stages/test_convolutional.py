"""A convolutional trunk through the stages: what its batch normalisation needs of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.config import FinetuneSettings, TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage_run import StageStopped
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

ALIGN = toy_trial().align
FINETUNE = FinetuneSettings(
    drop_path=0.0,
    mixup=None,
    epochs=1,
    label_smoothing=0.0,
    max_unreadable=0.0,
    augment=ALIGN.augment,
    optimizer=ALIGN.optimizer,
).model_dump(mode="json")


def convolutional_trial(**overrides: object) -> TrialConfig:
    model = {"name": "tsn_test_resnet", "vit": None}
    return toy_trial(model=model, mae__epochs=0, **overrides)


def test_a_convolutional_trial_runs_from_video_files_to_its_scores(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    stages = trial_stages(convolutional_trial(finetune=FINETUNE), datasets)
    for results in stages.results.values():
        record = run_chain(results["low"], store, datasets)
        assert 0 <= record.metrics["accuracy"] <= 1
    weights = weights_of(stages.weights, store)
    counts = [value for name, value in weights.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert {count.item() for count in counts} == {4}  # of 4 steps
    assert {count.dtype for count in counts} == {torch.int64}


def test_a_run_stopped_and_resumed_ends_with_the_same_running_statistics(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    stage = trial_stages(convolutional_trial(), datasets).weights
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    run_chain(stage, whole, datasets)
    with pytest.raises(StageStopped):
        run_chain(stage, cut, datasets, lambda: True, checkpoint_every_steps=1)
    run_chain(stage, cut, datasets)
    found, expected = weights_of(stage, cut), weights_of(stage, whole)
    assert found.keys() == expected.keys()
    assert any(name.endswith("running_var") for name in found)
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
