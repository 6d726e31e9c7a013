from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.toy import MIXUP, toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from tests.trainables.train_toy import toy_chain
from trainables import training_loop
from trainables.checkpoint import save_checkpoint
from trainables.data.batch import Batch
from trainables.data.catalog import Dataset
from trainables.device import Arrivals, to_device
from trainables.models.mae import MaskedAutoencoder
from trainables.models.video_vit import VideoViT
from trainables.stage import Stage
from trainables.stage_run import NonFiniteLoss, StageStopped
from trainables.stage_store import StageStore
from trainables.stages.classification import Classification
from trainables.storage.folder import Folder
from trainables.training_data import TrainingData
from trainables.trial import trial_stages

ROOT = Path(__file__).resolve().parents[2]


def align_stage(datasets: dict[str, Dataset], **overrides: Any) -> Stage:
    """4 steps in 2 epochs, on a trunk that stage 1 has not touched."""
    return trial_stages(toy_trial(mae__epochs=0, **overrides), datasets).weights


def mae_stage(datasets: dict[str, Dataset], **overrides: Any) -> Stage:
    trial = toy_trial(align__epochs=0, mae__clips_per_epoch=16, **overrides)
    return trial_stages(trial, datasets).weights


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], atol: float = 2e-6) -> None:
    """But for the biases of the keys: softmax makes their gradient zero, and Adam noise of it."""
    assert first.keys() == second.keys()
    for name in first:
        a, b = first[name], second[name]
        if name.endswith("qkv.bias"):
            width = len(a) // 3
            a, b = (torch.cat([t[:width], t[2 * width :]]) for t in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


DROP = {"align__drop_path": 0.5}
SGD = {
    "align__optimizer__algorithm": "sgd",
    "align__optimizer__betas": None,
    "align__optimizer__momentum": 0.9,
}


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("mae", {}), ("align", {"align__drop_path": 0.5}), ("align", {**SGD, "align__mixup": MIXUP})],
)
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_with_the_same_bits(
    kind: str, overrides: dict[str, Any], datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    # Drop path, augmentation and mixup draw random numbers; all must come again.
    stage = {"mae": mae_stage, "align": align_stage}[kind](datasets, **overrides)
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    record = run_chain(stage, whole, datasets)
    attempts = 0
    while cut.record(stage.identity) is None:
        attempts += 1
        try:
            run_chain(stage, cut, datasets, lambda: True, checkpoint_every_steps=1)
        except StageStopped:
            (checkpoint,) = cut.checkpoint(stage.identity).listed()
            assert checkpoint.name == "last.pt"
            # What one that was killed while it wrote leaves; the next attempt deletes it.
            cut.checkpoint(stage.identity).write(".last.pt-ab12.tmp", b"half")
    assert attempts == 4
    assert_same(weights_of(stage, cut), weights_of(stage, whole))
    resumed = cut.record(stage.identity)
    assert resumed is not None
    assert resumed.metrics == record.metrics
    assert [p["loss"] for p in cut.progress(stage.identity)] == [
        p["loss"] for p in whole.progress(stage.identity)
    ]


def test_a_run_told_to_leave_does_so_after_that_step_and_goes_on_with_the_next(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    stage = align_stage(datasets)
    whole, left = StageStore(tmp_path / "whole"), StageStore(tmp_path / "left")
    beats: list[int] = []

    def third_is_the_last() -> bool:
        beats.append(len(beats))
        return len(beats) == 3

    run_chain(stage, whole, datasets, checkpoint_every_steps=100)
    with pytest.raises(StageStopped, match="step 3"):
        run_chain(stage, left, datasets, beat=third_is_the_last, checkpoint_every_steps=100)
    run_chain(stage, left, datasets, beat=third_is_the_last, checkpoint_every_steps=100)
    assert len(beats) == 4  # steps of both attempts: none was taken twice
    assert_same(weights_of(stage, left), weights_of(stage, whole))


def test_checkpoints_come_as_often_as_is_asked_and_not_at_the_end_of_an_epoch_or_a_run(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = align_stage(datasets)  # two epochs of two steps
    whole, crashed = StageStore(tmp_path / "whole"), StageStore(tmp_path / "crashed")
    saved: list[int] = []

    def noted(folder: Folder, state: dict[str, Any]) -> None:
        saved.append(state["progress"]["step"])
        save_checkpoint(folder, state)

    monkeypatch.setattr("trainables.training_state.save_checkpoint", noted)
    run_chain(stage, whole, datasets, checkpoint_every_steps=4)
    assert saved == []
    leaving, steps = StageStore(tmp_path / "leaving"), iter(range(1, 5))
    run_chain(stage, leaving, datasets, beat=lambda: next(steps) == 4, checkpoint_every_steps=100)
    assert saved == [4]  # the node may go before all is published
    saved.clear()

    def dies_in_step_4() -> bool:
        if saved:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run_chain(stage, crashed, datasets, beat=dies_in_step_4, checkpoint_every_steps=3)
    run_chain(stage, crashed, datasets, checkpoint_every_steps=3)
    assert saved == [3]
    assert_same(weights_of(stage, crashed), weights_of(stage, whole))
    for name in ("loss", "train_accuracy"):
        curves = [[p[name] for p in s.progress(stage.identity)] for s in (crashed, whole)]
        assert curves[0] == curves[1] and len(curves[0]) == 2


def test_every_stage_that_looks_at_clips_says_that_it_lives(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    beats: list[str] = []
    probe = trial_stages(toy_trial(mae__epochs=0), datasets).scored["low"]
    for part in probe.chain():
        run_chain(part, store, datasets, beat=lambda part=part: bool(beats.append(part.kind)))
    assert {"align", "features", "probe"} <= set(beats)


def test_a_resumed_fp16_run_keeps_its_loss_scale(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first step overflows and is skipped; with the scale lost, so would be all others.
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**40, backoff_factor=2.0**-30)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    stage = align_stage(datasets, align__optimizer__precision="fp16")
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    run_chain(stage, whole, datasets)
    for _ in range(3):
        with pytest.raises(StageStopped):
            run_chain(stage, cut, datasets, lambda: True, checkpoint_every_steps=1)
    run_chain(stage, cut, datasets)
    assert_same(weights_of(stage, cut), weights_of(stage, whole))


def test_device_seconds_add_up_over_attempts(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.stage_run.StageRun.seconds", lambda self: 10.0)
    stage = align_stage(datasets)
    with pytest.raises(StageStopped):
        run_chain(stage, store, datasets, lambda: True)
    assert run_chain(stage, store, datasets).cost == {"device_seconds": 20.0, "clips": 16}


def test_a_checkpoint_that_cannot_be_read_is_dropped(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    stage = align_stage(datasets)
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    run_chain(stage, whole, datasets)
    with pytest.raises(StageStopped):
        run_chain(stage, cut, datasets, lambda: True)
    folder = cut.checkpoint(stage.identity)
    folder.write("last.pt", folder.read("last.pt")[:1000])
    with pytest.warns(UserWarning, match="starts over"):
        run_chain(stage, cut, datasets)
    assert_same(weights_of(stage, cut), weights_of(stage, whole))


@pytest.mark.parametrize(("part", "mixup"), [(3, None), (2, MIXUP)])
def test_accumulated_parts_of_a_batch_are_the_whole_batch(
    part: int, mixup: dict[str, Any] | None, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    stage = align_stage(datasets, align__mixup=mixup)
    whole, parts = StageStore(tmp_path / "whole"), StageStore(tmp_path / "parts")
    run_chain(stage, whole, datasets)
    run_chain(stage, parts, datasets, per_device_batch=part)  # 3 + 1 clips, 2 + 2
    assert_close(weights_of(stage, parts), weights_of(stage, whole))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_end_with_the_weights_of_one(
    compiled: bool, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    probe = toy_chain(datasets)
    align = probe.inputs["weights"]
    one, two = StageStore(tmp_path / "one"), StageStore(tmp_path / "two")
    run_chain(probe, one, datasets)
    videos = datasets["scenes"].root.parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            str(Path(__file__).with_name("train_toy.py")),
            *(str(videos), str(two.root), str(compiled)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for stage, file in ((align.inputs["start"], "weights"), (align, "weights"), (probe, "model")):
        weights = [load_file(store.file(stage.identity, file)) for store in (two, one)]
        assert_close(*weights, atol=1e-4 if compiled else 2e-6)
        found, expected = two.record(stage.identity), one.record(stage.identity)
        assert found is not None
        assert expected is not None
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-4)
        assert found.mixture == expected.mixture
        assert len(two.progress(stage.identity)) == len(one.progress(stage.identity))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step(
    where: str, datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = align_stage(datasets)
    whole, broken = StageStore(tmp_path / "whole"), StageStore(tmp_path / "broken")
    run_chain(stage, whole, datasets)
    calls = 0
    forward = Classification.forward

    def fails_in_step_2(self: Classification, batch: Batch) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        values = forward(self, batch)
        if calls == 3 and where == "loss":
            values["loss"] = values["loss"] + torch.inf  # its gradient is finite
        if calls == 3 and where == "gradient":
            values["loss"].register_hook(lambda gradient: gradient * torch.inf)
        return values

    steps = 0
    step = torch.optim.AdamW.step

    def counted(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "forward", fails_in_step_2)
        patch.setattr(torch.optim.AdamW, "step", counted)
        with pytest.raises(NonFiniteLoss, match="step 2") as raised:
            run_chain(stage, broken, datasets)
    assert raised.value.step == 2
    assert steps == 2
    assert broken.record(stage.identity) is None
    # The checkpoint of step 2 stands, and what goes on from it is as if nothing had been.
    run_chain(stage, broken, datasets)
    assert_same(weights_of(stage, broken), weights_of(stage, whole))


class Late(Arrivals):
    """A GPU's, for a machine without one: what is sent comes with the next."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Tensor] = []

    def send(self, tensor: Tensor) -> list[Tensor]:
        come, self.waiting = self.waiting, [tensor]
        return come

    def last(self) -> list[Tensor]:
        come, self.waiting = self.waiting, []
        return come


@pytest.mark.parametrize("every", [1, 3, 100])
def test_a_host_that_hears_of_steps_late_ends_with_the_same_bits(
    every: int, datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = align_stage(datasets, align__drop_path=0.5)
    at_once, late = StageStore(tmp_path / "at once"), StageStore(tmp_path / "late")
    run_chain(stage, at_once, datasets)
    monkeypatch.setattr(training_loop, "Arrivals", Late)
    run_chain(stage, late, datasets, checkpoint_every_steps=every)
    assert_same(weights_of(stage, late), weights_of(stage, at_once))
    for name in ("loss", "train_accuracy"):
        curves = [[p[name] for p in s.progress(stage.identity)] for s in (late, at_once)]
        assert curves[0] == curves[1]


def test_a_batch_is_asked_for_when_the_losses_of_the_last_but_one_have_come(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, asked = 0, 0
    batches = TrainingData.batches

    class Counted(Late):
        def send(self, tensor: Tensor) -> list[Tensor]:
            nonlocal heard
            come = super().send(tensor)
            heard += len(come)
            return come

        def last(self) -> list[Tensor]:
            nonlocal heard
            come = super().last()
            heard += len(come)
            return come

    def watched(self: TrainingData, step: int) -> Iterator[Batch]:
        nonlocal asked
        for number, batch in enumerate(batches(self, step)):
            assert heard >= number - 1, "its slot may be overwritten: see shared_slots"
            asked += 1
            yield batch

    monkeypatch.setattr(training_loop, "Arrivals", Counted)
    monkeypatch.setattr(TrainingData, "batches", watched)
    run_chain(align_stage(datasets), store, datasets, checkpoint_every_steps=100)
    assert asked > 3


def test_a_loss_that_is_heard_of_late_has_touched_no_weight(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = align_stage(datasets, align__clips_per_epoch=16, align__epochs=1)
    forward, step = Classification.forward, torch.optim.AdamW.step
    calls = 0
    after: list[list[Tensor]] = []

    def fails_in_step_1(self: Classification, batch: Batch) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        values = forward(self, batch)
        return {**values, "loss": values["loss"] * (torch.nan if calls == 2 else 1)}

    def remembered(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        step(self, *args, **kwargs)
        parameters = [p for group in self.param_groups for p in group["params"]]
        after.append([parameter.detach().clone() for parameter in parameters])

    monkeypatch.setattr(training_loop, "Arrivals", Late)
    monkeypatch.setattr(Classification, "forward", fails_in_step_1)
    monkeypatch.setattr(torch.optim.AdamW, "step", remembered)
    with pytest.raises(NonFiniteLoss, match="step 1"):
        run_chain(stage, store, datasets, checkpoint_every_steps=100)
    assert len(after) == 2  # the host heard of it in step 2, before that step's update
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))
    assert store.record(stage.identity) is None


def test_activations_that_are_computed_again_change_no_bit(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    for number, stage in enumerate([mae_stage(datasets), align_stage(datasets, **DROP)]):
        kept, again = (StageStore(tmp_path / f"{name}{number}") for name in ("kept", "again"))
        run_chain(stage, kept, datasets)
        run_chain(stage, again, datasets, recompute_activations=True)
        assert_same(weights_of(stage, again), weights_of(stage, kept))


def test_blocks_that_run_again_keep_fewer_activations() -> None:
    trial = toy_trial()
    video = torch.randn(1, 3, 4, 32, 32)
    kept = []
    for recomputes in (False, True):
        trunk = VideoViT(trial.model, trial.clip)
        trunk.recomputes = recomputes
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: (sizes.append(tensor.numel()), tensor)[1],  # type: ignore[func-returns-value]
            lambda tensor: tensor,
        ):
            trunk(video)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_a_convolutional_network_recomputes_nothing(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    stage = align_stage(datasets, model={"name": "tsn_resnet18", "vit": None})
    with pytest.raises(ValueError, match=r"recompute_activations is for ViTs"):
        run_chain(stage, store, datasets, recompute_activations=True)


def test_what_goes_to_a_gpu_is_pinned_without_gaps_and_overlaps_by_a_stand_in_for_pinning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Pinned:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

        def to(self, device: torch.device, non_blocking: bool) -> Tensor:
            assert non_blocking and self.tensor.is_contiguous()
            return self.tensor

    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: Pinned(tensor))
    pairs = torch.arange(6).reshape(3, 2)
    for view in (pairs, pairs[:, :1], pairs[0].expand(4, 2)):
        assert torch.equal(to_device(view, torch.device("cuda")), view)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mae", "align"])
def test_compiled_training_matches_uncompiled_whatever_was_compiled_before(
    kind: str, datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    stage = mae_stage(datasets) if kind == "mae" else align_stage(datasets, **DROP)
    plain, cold, warm = (StageStore(tmp_path / name) for name in ("plain", "cold", "warm"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="torch.compile does not work")
        run_chain(stage, plain, datasets)
        counted = torch._dynamo.utils.counters["stats"]
        for store in (cold, warm):  # the second reads from disk what the first has compiled
            before = counted["unique_graphs"]
            run_chain(stage, store, datasets, compile=True)
            # With the block that is tried; those with drop path are one, whatever its rate.
            assert counted["unique_graphs"] - before == (6 if kind == "mae" else 4)
    for store in (cold, warm):
        curves = [[p["loss"] for p in s.progress(stage.identity)] for s in (store, plain)]
        assert curves[0] == pytest.approx(curves[1], rel=1e-5)
        for name, tensor in weights_of(stage, plain).items():
            torch.testing.assert_close(weights_of(stage, store)[name], tensor, rtol=0, atol=1e-4)


def test_where_the_compiler_does_not_work_training_goes_on_without_it(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = align_stage(datasets)
    plain, fallen_back = StageStore(tmp_path / "plain"), StageStore(tmp_path / "fallen back")
    run_chain(stage, plain, datasets)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.warns(UserWarning, match="torch.compile does not work here") as warned:
        run_chain(stage, fallen_back, datasets, compile=True)
    assert len([w for w in warned if "does not work here" in str(w.message)]) == 1
    assert_same(weights_of(stage, fallen_back), weights_of(stage, plain))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_train(
    precision: str, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    stages = [align_stage(datasets, align__optimizer__precision=p) for p in ("fp32", precision)]
    losses = [
        run_chain(stage, StageStore(tmp_path / str(number)), datasets).metrics["loss"]
        for number, stage in enumerate(stages)
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_curves_are_means_over_the_clips_of_an_epoch(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[Tensor] = []
    forward = MaskedAutoencoder.forward

    def remembered(self: MaskedAutoencoder, *args: Any) -> Tensor:
        loss = forward(self, *args)
        losses.append(loss.detach())
        return loss

    monkeypatch.setattr(MaskedAutoencoder, "forward", remembered)
    stage = mae_stage(datasets, mae__epochs=2)
    record = run_chain(stage, store, datasets)
    curve = [point["loss"] for point in store.progress(stage.identity)]
    assert curve == pytest.approx(
        [torch.cat(half).mean().item() for half in (losses[:4], losses[4:])]
    )
    assert record.metrics == {"loss": curve[-1]}
