from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.toy import toy_trial
from tests.trainables.stages.test_run import FINETUNE
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_descriptions import trained_on_downstream
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


def trained_on_low(kind: str, datasets: dict[str, Dataset], drop_path: float) -> Stage:
    """The stage that trains from random weights on the downstream dataset.

    Made past TrialConfig, which refuses a drop path that a frozen trunk would not have.
    """
    settings = {**FINETUNE, "drop_path": drop_path}
    trial = toy_trial(mae__epochs=0, align__epochs=0, finetune=settings)
    assert trial.finetune is not None
    weights, low = trial_stages(trial, datasets).weights, datasets["low"]
    scored = trained_on_downstream(kind, trial, trial.finetune, low, weights, "selection")
    return scored.inputs["model"]


def test_fine_tuning_trains_the_trunk_and_an_augmented_probe_the_head_alone(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    for kind, trunk_trains in (("finetune", True), ("augmented_probe", False)):
        stage = trained_on_low(kind, datasets, drop_path=0.0)
        run_chain(stage, store, datasets)
        before = weights_of(stage.inputs["weights"], store)
        after = load_file(store.file(stage.identity, "model"))
        same = {name for name in before if torch.equal(before[name], after[f"trunk.{name}"])}
        assert same == (set() if trunk_trains else set(before))
        assert after["head.bias"].count_nonzero() > 0  # it starts at zero


def test_an_augmented_probe_sees_features_without_drop_path(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    losses: dict[str, set[float]] = {"finetune": set(), "augmented_probe": set()}
    for kind, found in losses.items():
        for drop_path in (0.0, 0.9):
            stage = trained_on_low(kind, datasets, drop_path)
            store = StageStore(tmp_path / f"{kind}{drop_path}")
            found.add(run_chain(stage, store, datasets).metrics["loss"])
    assert len(losses["finetune"]) == 2
    assert len(losses["augmented_probe"]) == 1
