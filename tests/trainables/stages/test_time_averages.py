from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.toy import toy_execution, toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from trainables import training_state
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_run import StageStopped
from trainables.stage_store import StageStore
from trainables.stages.run import KINDS, run_stage
from trainables.stages.time_averages import weighted_sum
from trainables.storage.folder import Folder
from trainables.trial import TrialStages, trial_stages

KEEP = {"last": 2, "ema_decay": 0.5, "posthoc_ema": True}
ROLES = {
    *("weights", "ema", "epoch_2", "epoch_3"),
    *(f"power_ema_{index}_{epoch}" for index in (0, 1) for epoch in (1, 2, 3)),
}


def stages_of(datasets: dict[str, Dataset], method: str, **average: Any) -> TrialStages:
    """3 epochs of 2 steps, of which all is kept, and one average over them."""
    settings = {f"average__{name}": value for name, value in average.items()}
    trial = toy_trial(
        mae__epochs=0, align__epochs=3, align__keep=KEEP, average__method=method, **settings
    )
    return trial_stages(trial, datasets)


def averaged(
    datasets: dict[str, Dataset], store: StageStore, method: str, **average: Any
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The average, and what it was made of by role."""
    stage = stages_of(datasets, method, **average).weights
    run_chain(stage, store, datasets)
    return weights_of(stage, store), kept_of(stage.inputs["aligned"], store)


def kept_of(aligned: Stage, store: StageStore) -> dict[str, dict[str, Tensor]]:
    record = store.record(aligned.identity)
    assert record is not None
    return {role: load_file(store.file(aligned.identity, role)) for role in record.files}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("method", ["last_k", "ema", "posthoc_ema"])
def test_a_trial_with_an_average_over_time_runs_to_its_score(
    method: str, datasets: dict[str, Dataset], store: StageStore
) -> None:
    stages = stages_of(datasets, method, last=2, ema_length=0.08)
    for stage in stages.all():
        run_stage(stage, store, datasets, toy_execution(), lambda: False)
    probe = store.record(stages.scored["low"].identity)
    average = store.record(stages.weights.identity)
    assert probe is not None
    assert average is not None
    assert 0 <= probe.metrics["accuracy"] <= 1
    assert set(average.trained_on) == {"scenes", "synthetic"}
    aligned = weights_of(stages.weights.inputs["aligned"], store)
    found = weights_of(stages.weights, store)
    assert found.keys() == aligned.keys()
    assert not torch.equal(found["patch_embed.weight"], aligned["patch_embed.weight"])


def test_the_last_one_is_the_aligned_weights(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    found, kept = averaged(datasets, store, "last_k", last=1)
    assert kept.keys() == ROLES
    assert_same(found, kept["weights"])
    assert_same(found, kept["epoch_3"])


def test_the_last_two_are_averaged(datasets: dict[str, Dataset], store: StageStore) -> None:
    found, kept = averaged(datasets, store, "last_k", last=2)
    second, third = kept["epoch_2"], kept["epoch_3"]
    expected = {name: torch.lerp(second[name], third[name], 0.5) for name in third}
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert not torch.equal(second["patch_embed.weight"], third["patch_embed.weight"])


def test_sums_are_float64_and_integers_the_last_ones(tmp_path: Path) -> None:
    values = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    parts = []
    for index, share in enumerate((0.2, 0.3, 0.5)):
        file = tmp_path / f"{index}"
        save_file({"a": values[index].clone(), "n": torch.tensor(index)}, file)
        parts.append((file, share))
    found = weighted_sum(parts)
    first, second, third = values.double()
    assert torch.equal(found["a"], (0.2 * first + 0.3 * second + 0.5 * third).float())
    assert torch.equal(found["n"], torch.tensor(2))


def test_ema_is_what_alignment_kept(datasets: dict[str, Dataset], store: StageStore) -> None:
    found, kept = averaged(datasets, store, "ema")
    assert_same(found, kept["ema"])
    # Half of it is the last weights: it lies between them and what came before.
    assert not torch.equal(found["norm.weight"], kept["weights"]["norm.weight"])


@pytest.mark.parametrize(("ema_length", "role"), [(0.05, "power_ema_0_3"), (0.1, "power_ema_1_3")])
def test_a_length_that_was_kept_is_found_again(
    ema_length: float, role: str, datasets: dict[str, Dataset], store: StageStore
) -> None:
    found, kept = averaged(datasets, store, "posthoc_ema", ema_length=ema_length)
    torch.testing.assert_close(found, kept[role], rtol=1e-6, atol=1e-7)
    other = "power_ema_1_3" if role == "power_ema_0_3" else "power_ema_0_3"
    assert not torch.allclose(
        found["patch_embed.weight"], kept[other]["patch_embed.weight"], rtol=1e-6, atol=1e-7
    )


def test_other_averages_of_one_alignment_train_nothing(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stages_of(datasets, "last_k", last=1).weights
    run_chain(first, store, datasets)
    for kind in ("init", "align"):
        monkeypatch.delitem(KINDS, kind)
    identities = {first.identity}
    for method, settings in (
        ("last_k", {"last": 2}),
        ("ema", {}),
        ("posthoc_ema", {"ema_length": 0.05}),
        ("posthoc_ema", {"ema_length": 0.1}),
    ):
        other = stages_of(datasets, method, **settings).weights
        run_chain(other, store, datasets)
        assert other.inputs["aligned"].identity == first.inputs["aligned"].identity
        identities.add(other.identity)
    assert len(identities) == 5


def test_a_length_out_of_reach_is_refused_before_anything_is_trained(
    datasets: dict[str, Dataset],
) -> None:
    with pytest.raises(ValueError, match=r"ema_length 0.2 cannot be made .* 3 epochs"):
        stages_of(datasets, "posthoc_ema", ema_length=0.2)


@pytest.mark.parametrize(
    "average", [{"method": "last_k", "last": 2}, {"method": "posthoc_ema", "ema_length": 0.25}]
)
def test_a_baseline_without_alignment_needs_no_average(
    average: dict[str, Any], datasets: dict[str, Dataset]
) -> None:
    settings = {f"average__{name}": value for name, value in average.items()}
    trial = toy_trial(mae__epochs=0, align__epochs=0, align__keep=KEEP, **settings)
    assert trial_stages(trial, datasets).weights.kind == "init"


def test_nothing_is_kept_that_was_not_asked_for(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    stage = trial_stages(toy_trial(mae__epochs=0), datasets).weights
    assert run_chain(stage, store, datasets).files.keys() == {"weights"}
    assert store.snapshots(stage.identity).listed() == []


def test_a_run_that_was_stopped_and_resumed_keeps_the_same_bits(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    aligned = stages_of(datasets, "ema").weights.inputs["aligned"]
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    run_chain(aligned, whole, datasets)
    for step in range(1, 6):
        with pytest.raises(StageStopped):
            run_chain(aligned, cut, datasets, lambda: True, checkpoint_every_steps=1)
        # After each epoch: two power-function averages, from the second on the weights too.
        files = [0, 0, 2, 2, 5, 5][step]
        folder = cut.snapshots(aligned.identity)
        assert len(folder.listed()) == files
    run_chain(aligned, cut, datasets)
    expected, found = kept_of(aligned, whole), kept_of(aligned, cut)
    assert expected.keys() == found.keys() == ROLES
    for role, tensors in expected.items():
        assert_same(found[role], tensors)
    for store in (whole, cut):
        assert len(store.snapshots(aligned.identity).listed()) == len(ROLES) - 2  # weights, ema


@pytest.mark.parametrize("saved_before", [1, 3])
def test_an_epoch_that_was_kept_without_its_checkpoint_is_kept_again(
    saved_before: int,
    datasets: dict[str, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aligned = stages_of(datasets, "ema").weights.inputs["aligned"]
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    run_chain(aligned, whole, datasets)
    save, saved = training_state.save_checkpoint, 0

    def killed(folder: Folder, state: dict[str, Any]) -> None:
        nonlocal saved
        if saved == saved_before:
            raise KeyboardInterrupt
        saved += 1
        save(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):  # at the end of an epoch, its files written
            run_chain(aligned, cut, datasets, checkpoint_every_steps=1)
    assert cut.snapshots(aligned.identity).listed()
    run_chain(aligned, cut, datasets)
    expected, found = kept_of(aligned, whole), kept_of(aligned, cut)
    assert expected.keys() == found.keys()
    for role, tensors in expected.items():
        assert_same(found[role], tensors)


def test_one_that_ends_after_another_published_leaves_that_as_it_is(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    aligned = stages_of(datasets, "ema").weights.inputs["aligned"]
    asked = 0

    def another_is_faster() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:  # after the second epoch
            store.checkpoint(aligned.identity).delete(["last.pt"])
            run_stage(aligned, store, datasets, toy_execution(), lambda: False)
        return False

    record = run_chain(aligned, store, datasets, another_is_faster)
    assert asked == 2
    assert record.files.keys() == ROLES
    assert all(tensors for tensors in kept_of(aligned, store).values())
