from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.rungs import rungs_reached
from tests.toy import toy_execution, toy_trial
from tests.trainables.test_trunks import run_of
from tests.trainables.toy_videos import weights_of
from trainables.data import loader
from trainables.data.catalog import Clip, Dataset
from trainables.intermediate_probes import IntermediateProbes
from trainables.stage import Stage
from trainables.stage_run import StageStopped
from trainables.stage_store import StageStore
from trainables.stages import rung_probes
from trainables.stages.run import run_stage
from trainables.stages.rung_probes import spread_over_classes
from trainables.trial import trial_stages

PROBES = IntermediateProbes(
    rungs=(0.25, 0.6),
    downstream=("low",),
    train_clips=6,
    selection_clips=4,
    l2_grid=(1.0,),
    max_unreadable=0.0,
    precision="fp32",
)


def aligned(
    store: StageStore,
    datasets: dict[str, Dataset],
    probes: IntermediateProbes | None,
    beat: Callable[[], bool] = lambda: False,
) -> Stage:
    """An alignment of six steps, run."""
    stage = trial_stages(toy_trial(align__epochs=3, mae__epochs=0), datasets).weights
    for part in stage.chain():
        run_stage(part, store, datasets, toy_execution(), lambda: False, probes, beat)
    return stage


def test_probes_are_made_at_the_rungs_and_change_nothing_of_what_comes_out(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_probes, without = StageStore(tmp_path / "with"), StageStore(tmp_path / "without")
    beats, fit = Counter[str](), rung_probes.best_fit

    def fit_in_silence(*given: Any) -> Any:  # for fits are made on the first process alone
        return fit(*given[:4], beat=lambda: False)

    monkeypatch.setattr(rung_probes, "best_fit", fit_in_silence)
    stage = aligned(with_probes, datasets, PROBES, lambda: beats.update(["with"]) is not None)
    plain = aligned(without, datasets, None, lambda: beats.update(["without"]) is not None)
    assert plain.identity == stage.identity
    assert beats["with"] - beats["without"] == 4  # two rungs, one batch of clips of either split
    points = with_probes.probes(stage.identity, PROBES.key(datasets))
    assert [point["step"] for point in points] == [2, 4]  # 0.25 and 0.6 of six steps, rounded up
    assert 0 < points[0]["device_seconds"] < points[1]["device_seconds"]
    assert all(0 <= point["accuracies"]["low"] <= 1 for point in points)
    one, other = weights_of(stage, with_probes), weights_of(stage, without)
    assert all(torch.equal(one[name], other[name]) for name in one)
    records = [store.record(stage.identity) for store in (with_probes, without)]
    assert records[0].metrics == records[1].metrics


def test_probes_never_read_the_report_split_and_always_the_same_few_clips(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    reader = loader.ClipReader.read

    def remembered(self: Any, path: Path, *args: Any) -> Any:
        read.append(path)
        return reader(self, path, *args)

    monkeypatch.setattr(loader.ClipReader, "read", remembered)
    aligned(store, datasets, PROBES)
    low = datasets["low"]
    times = Counter(path.name for path in read if path.parent == low.root)
    splits = Counter({c.path: c.split for c in low.clips}[name] for name in times)
    assert splits == {"train": 6, "selection": 4}
    assert set(times.values()) == {2}  # once at each rung


def test_a_run_that_is_stopped_and_resumed_measures_the_same(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    stage = aligned(whole, datasets, PROBES)
    start = next(iter(stage.chain()))
    run_stage(start, cut, datasets, toy_execution(), lambda: False, PROBES)
    with pytest.raises(StageStopped):
        run_stage(stage, cut, datasets, toy_execution(), lambda: True, PROBES)
    key = PROBES.key(datasets)
    assert [point["step"] for point in cut.probes(stage.identity, key)] == [2]
    run_stage(stage, cut, datasets, toy_execution(), lambda: False, PROBES)
    measured = [
        [(p["step"], p["accuracies"]) for p in store.probes(stage.identity, key)]
        for store in (whole, cut)
    ]
    assert measured[0] == measured[1]


def test_what_was_measured_otherwise_is_not_mistaken_for_it(datasets: dict[str, Dataset]) -> None:
    key = PROBES.key(datasets)
    assert replace(PROBES, rungs=(0.5,)).key(datasets) == key
    assert replace(PROBES, train_clips=5).key(datasets) != key
    assert replace(PROBES, l2_grid=(2.0,)).key(datasets) != key
    assert replace(PROBES, precision="bf16").key(datasets) != key
    changed = {**datasets, "low": replace(datasets["low"], content_hash="other")}
    assert PROBES.key(changed) != key


def test_clips_are_spread_over_the_classes() -> None:
    labels = [0] * 50 + [1] * 3 + [2]
    clips = [
        Clip(path=f"{i}", label=label, group=None, split="train") for i, label in enumerate(labels)
    ]
    chosen = spread_over_classes(clips, 9)
    assert Counter(clip.label for clip in chosen) == {0: 5, 1: 3, 2: 1}
    assert chosen == spread_over_classes(clips, 9)
    assert spread_over_classes(clips, 100) == clips


def test_runs_that_share_a_trunk_come_to_the_rungs_of_their_own_lengths(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    shared, alone = StageStore(tmp_path / "shared"), StageStore(tmp_path / "alone")
    key = PROBES.key(datasets)

    def run(epochs: int, store: StageStore, trunks: bool) -> Stage:
        stage = run_of(datasets, "align", epochs, align__branch_epochs=[2, 4])
        if not trunks:
            stage = replace(stage, inputs={"start": stage.inputs["start"]})
        for part in stage.chain():
            run_stage(part, store, datasets, toy_execution(), lambda: False, PROBES)
        return stage

    for epochs in (4, 2):  # of 12 and 6 steps, whose decays begin at 9 and 4
        branch = run(epochs, shared, True)
        reached = list(rungs_reached(branch, shared, PROBES, key))
        whole = list(rungs_reached(run(epochs, alone, False), alone, PROBES, key))
        assert [point.rung for point in reached] == [0.25, 0.6]
        assert [point.accuracies for point in reached] == [point.accuracies for point in whole]
        trunks = [part for part in branch.chain() if part.kind == "align_trunk"]
        at = {p["step"] for part in trunks for p in shared.probes(part.identity, key)}
        assert at == {2, 3, 4} | ({8} if epochs == 4 else set())
        assert shared.probes(branch.identity, key) == []
        assert 0 < reached[0].device_seconds


TWO_PROCESSES = """
import sys
from pathlib import Path
from cluster.rungs import rungs_reached
from tests.toy import toy_execution, toy_trial
from tests.trainables.test_trunks import run_of
from tests.trainables.stages.test_rung_probes import PROBES
from tests.trainables.toy_videos import toy_videos
from trainables.stage_store import StageStore
from trainables.stages.run import run_stage
from trainables.trial import trial_stages

videos, root = map(Path, sys.argv[1:])
datasets = toy_videos(videos)
for part in trial_stages(toy_trial(align__epochs=3, mae__epochs=0), datasets).weights.chain():
    run_stage(part, StageStore(root), datasets, toy_execution(workers=2), lambda: False, PROBES)
"""


@pytest.mark.slow
def test_two_processes_measure_what_one_does(
    datasets: dict[str, Dataset], store: StageStore, tmp_path: Path
) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    two = StageStore(tmp_path / "two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, script, datasets["low"].root.parent, tmp_path / "two"],
        check=True,
        timeout=300,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    stage = aligned(store, datasets, PROBES)
    key = PROBES.key(datasets)
    alone, together = (each.probes(stage.identity, key) for each in (store, two))
    assert [p["step"] for p in together] == [2, 4]
    for one, other in zip(alone, together, strict=True):
        assert other["accuracies"]["low"] == pytest.approx(one["accuracies"]["low"], abs=0.26)
