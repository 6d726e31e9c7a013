from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import Record, StageStore
from trainables.stages.features import group_ids
from trainables.stages.run import run_stage

CLASSES = 3


def features(store: StageStore, split: str, count: int, noise: float) -> Stage:
    """A finished features stage: blobs, with `noise` around their centres.

    On the report split the classes change places, so that the worst penalty is the best.
    """
    stage = Stage(kind="features", settings={"split": split, "noise": noise})
    draw = torch.Generator().manual_seed(len(split))
    label = torch.arange(count) % CLASSES
    centre = label if split != "report" else (label + 1) % CLASSES  # what was learnt is wrong
    values = torch.eye(8)[centre] + noise * torch.randn(count, 8, generator=draw)
    tensors = {"features": values.half(), "label": label, "group": torch.arange(count)}
    store.publish(
        stage,
        write={"features.safetensors": lambda path: save_file(tensors, path)},
        metrics={"clips": count, "left_out": ["a.mp4"] if split == "report" else []},
        cost={},
    )
    return stage


def probe(store: StageStore, split: str, l2_grid: list[float]) -> Record:
    noise = {"train": 0.4, "selection": 0.5, "report": 0.6}
    asked = ["train", "selection"] + (["report"] if split == "report" else [])
    stage = Stage(
        kind="probe",
        settings={"l2_grid": l2_grid, "split": split},
        inputs={name: features(store, name, 90, noise[name]) for name in asked},
    )
    run_stage(stage, store, {}, toy_execution(), lambda: False)
    record = store.record(stage.identity)
    assert record is not None
    return record


def test_the_penalty_is_the_best_on_the_selection_split(store: StageStore) -> None:
    grid = [1e-5, 1e-2, 1e2]
    alone = {l2: probe(store, "selection", [l2]).metrics["accuracy"] for l2 in grid}
    chosen = probe(store, "selection", grid).metrics
    assert chosen["accuracy"] == max(alone.values()) > min(alone.values())
    assert alone[chosen["l2"]] == chosen["accuracy"]


def test_the_report_split_decides_nothing(store: StageStore) -> None:
    grid = [1e-5, 1e-2, 1e2]
    selection, report = (probe(store, split, grid).metrics for split in ("selection", "report"))
    assert report["l2"] == selection["l2"]
    assert report["selection_accuracy"] == selection["selection_accuracy"]
    assert report["accuracy"] != report["selection_accuracy"]
    assert report["left_out"] == 1


def test_of_equal_penalties_the_largest_is_taken(
    store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.stages.probe._accuracy", lambda *_: 0.5)
    assert probe(store, "selection", [0.1, 1.0, 0.01]).metrics["l2"] == 1.0


def test_clips_without_a_group_are_groups_of_their_own() -> None:
    class Clip:
        def __init__(self, group: str) -> None:
            self.group = group

    clips: Any = [Clip(group) for group in ("x", "", "y", "", "x")]
    assert group_ids(clips).tolist() == [0, 1, 2, 3, 0]
