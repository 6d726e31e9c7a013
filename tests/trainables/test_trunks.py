"""Runs of different lengths that share all but their decay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.toy import MIXUP, toy_data, toy_trial
from tests.trainables.test_training_loop import ROOT, SGD, Late, assert_same
from tests.trainables.toy_videos import run_chain
from trainables import training_loop
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_run import StageStopped
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

# 3 steps an epoch. The decay begins at step 4, 7 and 9 of 2, 3 and 4 epochs: twice inside one.
SCHEDULE = {
    "optimizer__lr_schedule": "constant_then_decay",
    "optimizer__warmup_fraction": None,
    "optimizer__warmup_clips": 7,  # 2 steps
    "optimizer__decay_fraction": 0.25,
    "clips_per_epoch": 13,
}
KEEP = {"last": 2, "ema_decay": 0.9, "posthoc_ema": True}


def run_of(datasets: dict[str, Dataset], kind: str, epochs: int, **changes: Any) -> Stage:
    """Alignment, or stage 1, of so many epochs."""
    settings = {f"{kind}__{key}": value for key, value in {**SCHEDULE, "epochs": epochs}.items()}
    others = {"mae__epochs": 0} if kind == "align" else {"align__epochs": 0}
    return trial_stages(toy_trial(**{**others, **settings, **changes}), datasets).weights


def alone(stage: Stage) -> Stage:
    """The same run in one go: no trunk, so that no step is anybody else's."""
    return replace(stage, inputs={"start": stage.inputs["start"]})


def trunk_of(stage: Stage) -> Stage:
    return stage.inputs["trunk"]


def artifact(stage: Stage, store: StageStore) -> dict[str, Any]:
    record = store.record(stage.identity)
    assert record is not None
    return {role: load_file(store.file(stage.identity, role)) for role in record.files}


def assert_same_artifacts(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for role in first:
        assert_same(first[role], second[role])


def losses(stage: Stage, store: StageStore) -> list[tuple[float, float]]:
    return [(point["epoch"], point["loss"]) for point in store.progress(stage.identity)]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mae", {}),
        ("align", {"align__drop_path": 0.5, "align__keep": KEEP, "align__mixup": MIXUP}),
        ("align", SGD),
    ],
)
def test_runs_that_branch_off_a_trunk_are_those_trained_alone_bit_for_bit(
    kind: str, changes: dict[str, Any], datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    shared, apart = StageStore(tmp_path / "shared"), StageStore(tmp_path / "apart")
    # The second is wanted once the first is done: a sweep that is extended.
    for epochs in (2, 4):
        branch = run_of(datasets, kind, epochs, **changes)
        record = run_chain(branch, shared, datasets)
        expected = run_chain(alone(branch), apart, datasets)
        assert_same_artifacts(artifact(branch, shared), artifact(alone(branch), apart))
        assert losses(branch, shared) == losses(alone(branch), apart)
        assert record.metrics == expected.metrics
        assert record.mixture == expected.mixture


def test_a_trunk_that_ends_inside_an_epoch_knows_its_last_step_where_the_host_hears_late(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, apart = StageStore(tmp_path / "shared"), StageStore(tmp_path / "apart")
    branch = run_of(datasets, "mae", 2)
    run_chain(alone(branch), apart, datasets)
    monkeypatch.setattr(training_loop, "Arrivals", Late)
    run_chain(branch, shared, datasets, checkpoint_every_steps=100)
    assert losses(branch, shared) == losses(alone(branch), apart)
    assert_same_artifacts(artifact(branch, shared), artifact(alone(branch), apart))


def test_a_run_cut_in_its_trunk_and_in_its_decay_ends_with_the_same_bits(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    branch = run_of(datasets, "align", 4, align__keep=KEEP, align__branch_epochs=[2])
    run_chain(alone(branch), whole, datasets)
    attempts = 0
    while cut.record(branch.identity) is None:
        attempts += 1
        for stage in branch.chain():
            try:
                run_chain(stage, cut, datasets, lambda: True, checkpoint_every_steps=1)
            except StageStopped:
                break
    # 12 steps, each cut off but the last of a stage, after which the next stage begins.
    assert attempts == 12 - 2
    assert_same_artifacts(artifact(branch, cut), artifact(alone(branch), whole))


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.trainables.test_trunks import run_of
from tests.trainables.toy_videos import run_chain, toy_videos
from trainables.stage_store import StageStore

videos, root = map(Path, sys.argv[1:])
datasets = toy_videos(videos)
branch = run_of(datasets, "align", 4)
killed = [stage for stage in branch.chain() if stage.kind == os.environ["KILLED_IN"]][0]
asked = []

def kill() -> bool:
    asked.append(0)
    if len(asked) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return False

run_chain(killed, StageStore(root), datasets, kill, checkpoint_every_steps=1)
"""


@pytest.mark.slow
def test_a_run_whose_process_is_killed_in_its_trunk_and_in_its_decay_ends_with_the_same_bits(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    branch = run_of(datasets, "align", 4)
    for kind in ("align_trunk", "align"):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(datasets["scenes"].root.parent), str(cut.root)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "KILLED_IN": kind},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    run_chain(branch, cut, datasets)
    run_chain(alone(branch), whole, datasets)
    assert_same_artifacts(artifact(branch, cut), artifact(alone(branch), whole))


def test_the_longest_run_trains_each_step_of_the_shared_trunk_once(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    longest = run_of(datasets, "align", 4, align__branch_epochs=[2, 3, 4])
    shorter = [run_of(datasets, "align", epochs) for epochs in (2, 3)]
    run_chain(longest, store, datasets)
    assert all(store.record(trunk_of(stage).identity) for stage in shorter)
    for stage in shorter:
        run_chain(stage, store, datasets)
    records = store.records()
    steps = sorted((r.stage["kind"], r.cost["clips"] / 4) for r in records if r.cost["clips"])
    trunks, decays = [4, 3, 2], [2, 2, 3]  # steps 0-4, 4-7, 7-9; of 6, 9 and 12
    assert steps == sorted([*(("align_trunk", n) for n in trunks), *(("align", n) for n in decays)])


def test_a_trunk_goes_on_from_the_last_one_before_it_that_the_store_has(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    # A run of 3 epochs that decays otherwise: its trunk ends at step 8.
    run_chain(run_of(datasets, "align", 2), store, datasets)
    other = run_of(datasets, "align", 3, align__optimizer__decay_fraction=0.1)
    run_chain(other, store, datasets)
    longer = trunk_of(run_of(datasets, "align", 4))
    assert run_chain(longer, store, datasets).cost["clips"] == (9 - 8) * 4


def test_a_trunk_that_was_begun_goes_on_from_a_shorter_one_that_got_further(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    trunk = trunk_of(run_of(datasets, "align", 4))
    with pytest.raises(StageStopped):
        run_chain(trunk, store, datasets, lambda: True, checkpoint_every_steps=2)
    run_chain(trunk_of(run_of(datasets, "align", 3)), store, datasets)
    assert run_chain(trunk, store, datasets).cost["clips"] == (9 - 7) * 4


def test_a_trunk_knows_neither_the_length_nor_the_decay_of_its_runs() -> None:
    def trunk(**changes: Any) -> Stage:
        return trunk_of(run_of(toy_data(), "align", **{"epochs": 4, **changes}))

    first = trunk()
    assert first.settings["step"] == 9
    same = [
        trunk(align__branch_epochs=[2, 3]),
        trunk(align__optimizer__lr_end=1e-5),
        trunk(epochs=5, align__optimizer__decay_fraction=0.4),  # 15 steps, of which 6
    ]
    assert {each.identity for each in same} == {first.identity}
    longer, otherwise = trunk(epochs=5), trunk(align__optimizer__lr_peak=0.01)
    assert longer.identity != first.identity
    assert longer.line == first.line != otherwise.line


def test_a_cosine_has_no_trunk_and_keeps_the_identity_it_always_had() -> None:
    stages = list(trial_stages(toy_trial(), toy_data()).all())
    found = {stage.kind: stage.identity for stage in stages}
    assert found["mae"] == "bc40b93ab0085b3b"
    assert found["align"] == "b60b52f007bddc3d"  # of its version 6


def test_lengths_of_a_cosine_cannot_share_a_trunk() -> None:
    with pytest.raises(ValueError, match=r"align.branch_epochs \[1, 2\] cannot share.*cosine"):
        toy_trial(align__branch_epochs=[1, 2])


def test_a_warm_up_that_reaches_into_the_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="align.optimizer.warmup_clips 17 is more than the 16"):
        run_of(toy_data(), "align", 2, align__optimizer__warmup_clips=17)


def test_a_run_that_only_decays_has_no_trunk() -> None:
    only = run_of(
        toy_data(),
        "align",
        1,
        align__optimizer__decay_fraction=0.9,
        align__optimizer__warmup_clips=0,
    )
    assert "trunk" not in only.inputs
