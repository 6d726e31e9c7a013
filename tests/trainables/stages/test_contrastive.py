from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from sweeps.planning.costs import flops_per_clip
from sweeps.planning.stage_facts import repetition, stage_clips
from tests.toy import MIXTURE, OPTIMIZER, toy_trial
from tests.trainables.data.videos import write_video
from tests.trainables.test_training_loop import ROOT, assert_close, assert_same
from tests.trainables.toy_videos import run_chain, weights_of
from tests.trainables.train_views import CONTRASTIVE, contrast, with_views
from trainables.config import TrialConfig
from trainables.data.augment import augment
from trainables.data.batch import Batch
from trainables.data.batch_order import check_parts
from trainables.data.catalog import Dataset
from trainables.data.clips import read_clip
from trainables.data.latents import write_latents
from trainables.data.loader import training_batches
from trainables.data.mixture import Mixture
from trainables.models.flops import classification_flops
from trainables.models.heads import label_space
from trainables.models.trunk import build_trunk
from trainables.stage_run import StageStopped
from trainables.stage_store import StageStore
from trainables.stages.contrastive import Inversion
from trainables.training_settings import AugmentSettings, ClipSettings
from trainables.trial import trial_stages

SUPCON = {"loss": "supcon", "classes": "union"}
INVERTER = {
    "loss": "inverter",
    "classes": "per_source",
    "temperature": None,
    "projection": None,
    "view_scale": 0.0,
    "mixture": {"shares": {"synthetic": 1}, **MIXTURE},
}
UNTOUCHED = AugmentSettings(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=False,
    jitter=0.0,
    rand_augment=None,
    erasing=0.0,
)
CLIP = ClipSettings(frames=4, seconds=1.0, resolution=32, normalize="per_clip")


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    return with_views(tmp_path_factory.mktemp("viewed"))


def pairs(datasets: dict[str, Dataset], scale: float | None) -> list[Batch]:
    """One pass over the synthetic clips, two views each, nothing augmented."""
    size = len(datasets["synthetic"].split("train"))
    mixture = Mixture(
        sizes={"synthetic": size},
        shares={"synthetic": 1},
        granularity="clip",
        batch_size=4,
        seed=0,
        total=2 * size,
        views_per_clip=2,
    )
    batches = training_batches(
        datasets,
        mixture,
        CLIP,
        UNTOUCHED,
        start_step=0,
        stop_step=2 * size // 4,
        rank=0,
        world_size=1,
        workers=0,
        video_reader="decord",
        max_unreadable=0.1,
        pairing="same_clip",
        resample={},
        second_views={} if scale is None else {"synthetic": scale},
        pin_memory=False,
    )
    return list(batches)


def test_a_pair_is_the_generators_clip_and_its_view_at_the_same_time(
    viewed: dict[str, Dataset],
) -> None:
    source = viewed["synthetic"]
    for batch in pairs(viewed, 0.5):
        assert batch.clip[0::2].tolist() == batch.clip[1::2].tolist()
        for place, index in enumerate(batch.clip.tolist()):
            root = source.views[0.5] if place % 2 else source.root
            frames = read_clip(
                root / source.split("train")[index].path,
                frames=4,
                seconds=1.0,
                position=0.0,  # the toy clips are shorter than the window
                short_side=37,
                frame_rate=None,
            )
            shown = augment(frames, UNTOUCHED, 32, np.random.default_rng(0))
            assert np.array_equal(batch.frames[place].numpy(), shown)


def test_without_views_a_pair_is_one_clip_twice(viewed: dict[str, Dataset]) -> None:
    for batch in pairs(viewed, None):
        assert np.array_equal(batch.frames[0::2].numpy(), batch.frames[1::2].numpy())


def test_where_a_view_cannot_be_read_another_clip_stands_in_for_both(
    viewed: dict[str, Dataset], tmp_path: Path
) -> None:
    folder = tmp_path / "views"
    for index, clip in enumerate(viewed["synthetic"].clips):
        write_video(folder / clip.path, width=32, height=32, count=8, seed=900 + index)
    broken = viewed["synthetic"].split("train")[3]
    (folder / broken.path).write_bytes(b"no video")
    source = replace(viewed["synthetic"], views={0.5: folder})
    batches = pairs({**viewed, "synthetic": source}, 0.5)
    clips = [clip for batch in batches for clip in batch.clip.tolist()]
    assert 3 not in clips and clips[0::2] == clips[1::2]
    assert {pair for batch in batches for pair in batch.unreadable} == {("synthetic", broken.path)}


@pytest.mark.parametrize("changes", [{}, SUPCON])
def test_views_come_together(
    changes: dict[str, Any], viewed: dict[str, Dataset], store: StageStore
) -> None:
    stage = contrast(viewed, **changes, epochs=8)
    record = run_chain(stage, store, viewed)
    curve = store.progress(stage.identity)
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert curve[-1]["nearest_is_positive"] > curve[0]["nearest_is_positive"]
    assert record.cost["clips"] == stage_clips(stage, viewed) == 8 * 12
    assert record.mixture["realised"] == {"scenes": 48, "synthetic": 48}
    assert set(record.trained_on) == {"scenes", "synthetic"}
    started = stage.inputs["start"]
    assert weights_of(stage, store).keys() == weights_of(started, store).keys()


def test_a_run_stopped_at_every_step_ends_with_the_same_bits(
    viewed: dict[str, Dataset], tmp_path: Path
) -> None:
    stage = contrast(viewed, **SUPCON, drop_path=0.5)
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    run_chain(stage, whole, viewed)
    stops = 0
    while cut.record(stage.identity) is None:
        try:
            run_chain(stage, cut, viewed, lambda: True, checkpoint_every_steps=1)
        except StageStopped:
            stops += 1
    assert stops == 3  # of 4 steps
    assert_same(weights_of(stage, cut), weights_of(stage, whole))


@pytest.mark.slow
def test_lengths_share_a_trunk_and_are_those_trained_alone_bit_for_bit(
    viewed: dict[str, Dataset], tmp_path: Path
) -> None:
    schedule = {
        "lr_schedule": "constant_then_decay",
        "warmup_fraction": None,
        "warmup_clips": 6,
        "decay_fraction": 0.25,
    }
    optimizer = {**CONTRASTIVE["optimizer"], **schedule}
    shared, apart = StageStore(tmp_path / "shared"), StageStore(tmp_path / "apart")
    for epochs in (2, 4):
        branch = contrast(viewed, epochs=epochs, optimizer=optimizer)
        assert branch.inputs["trunk"].kind == "contrastive_trunk"
        alone = replace(branch, inputs={"start": branch.inputs["start"]})
        run_chain(branch, shared, viewed)
        run_chain(alone, apart, viewed)
        assert_same(weights_of(branch, shared), weights_of(alone, apart))


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(
    viewed: dict[str, Dataset], tmp_path: Path
) -> None:
    """Three pairs on two processes: the negatives of each are those of the whole batch."""
    stages = [contrast(viewed), contrast(viewed, **SUPCON)]
    one, two = StageStore(tmp_path / "one"), StageStore(tmp_path / "two")
    script, videos = ROOT / "tests/trainables/train_views.py", viewed["scenes"].root.parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(script), str(videos), str(two.root)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for stage in stages:
        expected = run_chain(stage, one, viewed)
        assert_close(*(load_file(s.file(stage.identity, "weights")) for s in (two, one)))
        found = two.record(stage.identity)
        assert found is not None
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-4)


def test_a_batch_is_never_cut_for_what_is_negative_to_whom_would_change(
    viewed: dict[str, Dataset], store: StageStore
) -> None:
    with pytest.raises(ValueError, match="per_device_batch 4 cuts the 6 views of a process"):
        run_chain(contrast(viewed), store, viewed, per_device_batch=4)
    run_chain(contrast(viewed, epochs=1), store, viewed, per_device_batch=6)
    with pytest.raises(ValueError, match="batch_size 6 gives 4 workers no pair of views each"):
        check_parts(6, "same_clip", None, workers=4)


def test_what_decides_nothing_is_in_no_identity(viewed: dict[str, Dataset]) -> None:
    def identity(**changes: Any) -> str:
        return contrast(viewed, **changes).identity

    real_only = {"mixture": {**CONTRASTIVE["mixture"], "shares": {"synthetic": 0, "scenes": 1}}}
    assert identity() != identity(view_scale=0.0)
    assert identity(**real_only) == identity(**real_only, view_scale=0.0)
    assert identity(**real_only, **SUPCON) == identity(
        **real_only, loss="supcon", classes="per_source"
    )
    plain = toy_trial()
    skipped = toy_trial(contrastive={**CONTRASTIVE, "epochs": 0})
    first, second = (trial_stages(each, viewed).weights for each in (plain, skipped))
    assert first.identity == second.identity


def test_it_stands_between_stage_1_and_alignment_or_instead_of_it(
    viewed: dict[str, Dataset],
) -> None:
    trial = toy_trial(contrastive=CONTRASTIVE)
    kinds = [stage.kind for stage in trial_stages(trial, viewed).weights.chain()]
    assert kinds == ["init", "mae", "contrastive", "align"]
    assert contrast(viewed).kind == "contrastive"


def test_the_share_changes_neither_clips_nor_price(viewed: dict[str, Dataset]) -> None:
    for share, times in ((0.25, 6 / 16), (1.0, 24 / 16)):
        shares = {"synthetic": share, "scenes": 1 - share}
        stage = contrast(viewed, mixture={**CONTRASTIVE["mixture"], "shares": shares})
        assert stage_clips(stage, viewed) == 24
        assert repetition(stage, viewed)["synthetic"] == times
        model, clip = stage.settings["model"], stage.settings["clip"]
        expected = classification_flops(model, clip, frozen=False)
        assert flops_per_clip(stage.kind, stage.settings) == expected


def with_latents(datasets: dict[str, Dataset], folder: Path, rows: int = 16) -> dict[str, Dataset]:
    path = folder / "latents.safetensors"
    write_latents(path, np.random.default_rng(0).standard_normal((rows, 3)))
    return {**datasets, "synthetic": replace(datasets["synthetic"], latents=path)}


def test_an_inverter_learns_latents_and_classes(
    viewed: dict[str, Dataset], store: StageStore, tmp_path: Path
) -> None:
    known = with_latents(viewed, tmp_path)
    stage = contrast(known, **INVERTER, epochs=16, optimizer={**OPTIMIZER, "lr_peak": 3e-3})
    run_chain(stage, store, known, per_device_batch=2)  # it compares nothing: parts will do
    first, *_, last = store.progress(stage.identity)
    assert last["latent_error"] < 0.8 * first["latent_error"]
    assert last["train_accuracy"] > first["train_accuracy"]


def test_an_inverters_loss_is_of_the_latent_and_the_class_of_each_clip(
    viewed: dict[str, Dataset],
) -> None:
    trial = toy_trial()
    trunk = build_trunk(trial.model, trial.clip)
    latents = torch.randn(16, 3)
    space = label_space({"synthetic": viewed["synthetic"].classes}, "union")
    inversion = Inversion(trunk, space, [latents]).eval()
    batch = pairs(viewed, None)[1]
    found = inversion(batch)
    for place, clip in enumerate(batch.clip.tolist()):
        feature = trunk(batch.video[place : place + 1])
        error = F.mse_loss(inversion.latent_head(feature), latents[clip : clip + 1])
        logits, label = inversion.model.head(feature), batch.label[place : place + 1]
        torch.testing.assert_close(found["latent_error"][place], error)
        torch.testing.assert_close(found["loss"][place], error + F.cross_entropy(logits, label))


def test_an_inverter_without_the_latents_of_all_is_refused(
    viewed: dict[str, Dataset], store: StageStore, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'synthetic' has no latents to learn"):
        contrast(viewed, **INVERTER)
    known = with_latents(viewed, tmp_path, rows=15)
    with pytest.raises(ValueError, match=r"are \[15, 3\], and must be finite and \[16, D\]"):
        run_chain(contrast(known, **INVERTER), store, known)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": "inverter"}, "inverter take union, per_source or by_index"),
        ({"loss": "inverter", "classes": "union"}, "inverter takes temperature: null"),
        ({"temperature": None}, "simclr and supcon need one"),
        (
            {"loss": "inverter", "classes": "union", "temperature": None, "projection": None},
            "set view_scale: 0.0",
        ),
        ({"loss": "supcon"}, "inverter take union, per_source or by_index"),
        ({"classes": "union"}, "simclr looks at no class"),
        ({"optimizer": {**CONTRASTIVE["optimizer"], "batch_size": 5}}, "no multiple of"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        toy_trial(contrastive={**CONTRASTIVE, **changes})


def test_a_scale_that_was_not_sampled_is_refused(viewed: dict[str, Dataset]) -> None:
    trial: TrialConfig = toy_trial(contrastive={**CONTRASTIVE, "view_scale": 0.7})
    with pytest.raises(ValueError, match=r"'synthetic' has no views of it; choose one of 0, 0\.5"):
        trial_stages(trial, viewed)
