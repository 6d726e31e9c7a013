from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import Record, StageStore
from trainables.stages import probe as probe_stage
from trainables.stages.features import group_ids
from trainables.stages.run import run_stage
from trainables.stages.weights import writer

linear_model = pytest.importorskip("sklearn.linear_model")
neighbors = pytest.importorskip("sklearn.neighbors")

CLASSES = 3


def features(store: StageStore, split: str, noise: float, **more: Any) -> Stage:
    """A finished features stage of 90 clips: blobs, with `noise` around their centres.

    On the report split the classes change places, so that the worst penalty is the best. A
    `view_noise` gives each clip two views, of which one is that far off to either side.
    """
    stage = Stage(kind="features", settings={"split": split, "noise": noise, **more})
    draw = torch.Generator().manual_seed(len(split))
    label = torch.arange(90) % CLASSES
    centre = label if split != "report" else (label + 1) % CLASSES  # what was learnt is wrong
    values = (torch.eye(8)[centre] + noise * torch.randn(90, 8, generator=draw)).unsqueeze(1)
    if "view_noise" in more:
        off = more["view_noise"] * torch.randn(90, 1, 8, generator=draw)
        values = torch.cat([values + off, values - off], dim=1)
    if "unseen" in more:
        label[: more["unseen"]] = CLASSES + 4
    tensors = {"label": label, "group": torch.arange(90)}
    files = {"features": values.half()}
    if "coefficients" in more:  # the further, the less is left of the classes
        files = {
            f"features_{index}": (values + c * torch.randn(90, 1, 8, generator=draw)).half()
            for index, c in enumerate(more["coefficients"])
        }
    store.publish(
        stage,
        write={
            f"{name}.safetensors": writer({"features": v, **tensors}) for name, v in files.items()
        },
        metrics={"clips": 90, "left_out": ["a.mp4"] if split == "report" else []},
        cost={},
    )
    return stage


NOISE = {"train": 0.4, "selection": 0.5, "report": 0.6}


def probe(
    store: StageStore,
    split: str,
    l2_grid: list[float],
    inputs: dict[str, Stage] | None = None,
    **more: Any,
) -> Record:
    asked = ["train", "selection"] + (["report"] if split == "report" else [])
    settings = {"l2_grid": l2_grid, "neighbours": 5, "split": split, "classes": CLASSES, **more}
    stage = Stage(
        kind="probe",
        settings=settings,
        inputs=inputs or {name: features(store, name, NOISE[name]) for name in asked},
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
    monkeypatch.setattr(probe_stage, "accuracy", lambda *_: 0.5)
    assert probe(store, "selection", [0.1, 1.0, 0.01]).metrics["l2"] == 1.0


def test_clips_without_a_group_are_groups_of_their_own() -> None:
    class Clip:
        def __init__(self, group: str) -> None:
            self.group = group

    clips: Any = [Clip(group) for group in ("x", "", "y", "", "x")]
    assert group_ids(clips).tolist() == [0, 1, 2, 3, 0]


def test_it_is_scikit_learn_s_with_the_logits_averaged_over_the_views(store: StageStore) -> None:
    inputs = {
        "train": features(store, "train", 0.6),
        "selection": features(store, "selection", 0.6, view_noise=1.5),
    }
    found = probe(store, "selection", [1e-1], inputs, classes=9).metrics
    read = {
        name: {key: value.numpy() for key, value in load_file(path).items()}
        for name, stage in inputs.items()
        if (path := store.file(stage.identity, "features"))
    }
    train, scored = (values["features"].astype(np.float64) for values in read.values())
    label, wanted = (values["label"] for values in read.values())
    mean, deviation = train[:, 0].mean(axis=0), train[:, 0].std(axis=0)
    reference = linear_model.LogisticRegression(C=1 / (1e-1 * 90), tol=1e-10, max_iter=10_000)
    reference.fit((train[:, 0] - mean) / deviation, label)
    views = [reference.decision_function((scored[:, v] - mean) / deviation) for v in (0, 1)]
    right = (np.mean(views, axis=0).argmax(axis=1) == wanted).mean()
    assert found["accuracy"] == found["selection_accuracy"] == pytest.approx(right)
    assert right > max((view.argmax(axis=1) == wanted).mean() for view in views)
    directions = scored / np.linalg.norm(scored, axis=2, keepdims=True)
    nearest = neighbors.KNeighborsClassifier(
        5, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train[:, 0], label)
    expected = (nearest.predict(directions.mean(axis=1)) == wanted).mean()
    assert found["knn_accuracy"] == pytest.approx(expected)
    assert found["top5"] == 1.0  # three classes of nine occur: these come first
    assert found["mean_class_accuracy"] == pytest.approx(found["accuracy"])  # 30 clips of each
    assert found["clips"] == 90


def test_a_probe_of_a_coefficient_reads_its_file(store: StageStore) -> None:
    inputs = {
        name: features(store, name, NOISE[name], coefficients=[2.0, 0.0])
        for name in ("train", "selection")
    }
    found = [
        probe(store, "selection", [1e-1], inputs, coefficient=coefficient).metrics["accuracy"]
        for coefficient in (2.0, 0.0)
    ]
    assert found[1] == probe(store, "selection", [1e-1]).metrics["accuracy"]
    assert found[0] < found[1] - 0.1


def test_clips_of_a_class_that_training_lacks_are_wrong(store: StageStore) -> None:
    inputs = {
        "train": features(store, "train", 0.1),
        "selection": features(store, "selection", 0.1, unseen=9),
    }
    found = probe(store, "selection", [1e-1], inputs, classes=CLASSES + 5).metrics
    assert [found[name] for name in ("accuracy", "top5", "knn_accuracy")] == [0.9] * 3
    assert found["mean_class_accuracy"] == pytest.approx(3 / 4)
