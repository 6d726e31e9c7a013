from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.run_contents import of_stage
from tests.toy import toy_execution, toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.config import FinetuneSettings
from trainables.data import loader
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.stages.run import run_stage
from trainables.trial import trial_stages

ALIGN = toy_trial().align
FINETUNE = FinetuneSettings(
    mixup=None,
    drop_path=0.0,
    epochs=1,
    label_smoothing=0.1,
    max_unreadable=0.0,
    augment=ALIGN.augment,
    optimizer=ALIGN.optimizer,
).model_dump(mode="json")


def run_trial(
    store: StageStore, datasets: dict[str, Dataset], split: str = "selection", **overrides: Any
) -> dict[str, list[Stage]]:
    """The trial's stages by kind, all run."""
    stages: dict[str, list[Stage]] = {}
    for stage in trial_stages(toy_trial(**overrides), datasets, split).all():
        run_stage(stage, store, datasets, toy_execution(), lambda: False)
        stages.setdefault(stage.kind, []).append(stage)
    return stages


def test_a_trial_runs_from_video_files_to_a_score(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    stages = run_trial(store, datasets, align__heldout_clips=4, finetune=FINETUNE)
    probe, evaluate = (store.record(stages[kind][0].identity) for kind in ("probe", "evaluate"))
    assert probe is not None
    assert evaluate is not None
    told = {"accuracy", "top5", "mean_class_accuracy", "interval_low", "interval_high", "clips"}
    assert evaluate.metrics.keys() == {*told, "left_out"}
    assert probe.metrics.keys() == {
        *(*told, "left_out", "l2", "selection_accuracy", "train_accuracy", "knn_accuracy"),
    }
    assert probe.metrics["accuracy"] == probe.metrics["selection_accuracy"]
    assert probe.metrics["clips"] == evaluate.metrics["clips"] == 4
    for record in (probe, evaluate):
        low, high = record.metrics["interval_low"], record.metrics["interval_high"]
        assert 0 <= low <= record.metrics["accuracy"] <= high <= 1


def test_a_finished_stage_is_not_run_again(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = run_trial(store, datasets)
    before = {path: path.stat().st_mtime_ns for path in Path(store.root.url).rglob("*")}
    monkeypatch.setattr("trainables.stages.run.KINDS", {})
    again = run_trial(store, datasets)
    assert again.keys() == stages.keys()
    assert {path: path.stat().st_mtime_ns for path in Path(store.root.url).rglob("*")} == before


def test_features_are_extracted_once_and_the_report_split_is_left_alone(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    reader = loader.ClipReader.read

    def remembered(self: Any, path: Path, *args: Any) -> Any:
        read.append(path)
        return reader(self, path, *args)

    monkeypatch.setattr(loader.ClipReader, "read", remembered)
    run_trial(store, datasets, finetune=FINETUNE)
    low = datasets["low"]
    report = {low.root / clip.path for clip in low.split("report")}
    assert read
    assert not report & set(read)
    read.clear()
    # Another probe on the same weights reads no video.
    run_trial(store, datasets, probe__l2_grid=[0.1, 10.0])
    assert read == []
    # The report split is read when it is asked for, and it alone.
    run_trial(store, datasets, split="report")
    assert set(read) == report
    assert len(read) == len(report)


def test_coefficients_that_are_scored_together_cost_one_pass_and_score_the_same(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides: dict[str, Any] = {
        "mae__epochs": 0,
        "average__method": "interpolate",
        "test": {"clips": 2, "crops": 3},
    }

    def scored(coefficient: float, together: list[float]) -> dict[str, Any]:
        average = {"average__coefficient": coefficient, "average__scored_together": together}
        stages = run_trial(store, datasets, **overrides, **average)
        record = store.record(stages["probe"][0].identity)
        assert record is not None
        return record.metrics

    first = scored(0.5, [0.5, 1.0])
    alone = [scored(coefficient, []) for coefficient in (0.5, 1.0)]
    monkeypatch.setattr(loader.ClipReader, "read", None)  # no clip is read again
    second = scored(1.0, [0.5, 1.0])
    assert [first, second] == alone


def test_the_record_tells_what_the_weights_were_trained_on(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    datasets = {**datasets, "scenes": replace(datasets["scenes"], leak_rate=0.02, version="v")}
    stages = run_trial(store, datasets, mae__mixture__shares={"scenes": 1}, finetune=FINETUNE)

    def trained_on(kind: str) -> dict[str, str]:
        record = store.record(stages[kind][0].identity)
        assert record is not None
        return {name: value["humans"] for name, value in record.trained_on.items()}

    assert trained_on("init") == {}
    assert trained_on("mae") == {"scenes": "removed"}
    assert trained_on("align") == {"scenes": "removed", "synthetic": "virtual"}
    assert trained_on("probe") == trained_on("features") == trained_on("align")
    assert trained_on("finetune") == {**trained_on("align"), "low": "real"}
    probe = store.record(stages["probe"][0].identity)
    assert probe is not None and probe.trained_on["scenes"]["leak_rate"] == "0.02"
    assert probe.trained_on["scenes"]["version"] == "v"
    assert probe.trained_on["synthetic"].keys() == {"content_hash", "humans"}
    told = of_stage(asdict(probe), ["low"]).tags
    assert told["trained_on.scenes"].endswith("(humans: removed, leak rate 0.02, version: v)")
    assert told["trained_on.synthetic"].endswith("(humans: virtual)")


def test_the_record_holds_the_mixture_that_was_asked_for_and_that_came(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    shares = {"synthetic": 0.75, "scenes": 0.25}
    stages = run_trial(store, datasets, mae__epochs=0, align__mixture__shares=shares)
    record = store.record(stages["align"][0].identity)
    assert record is not None
    assert record.mixture == {
        "requested": {"scenes": "0.25", "synthetic": "0.75"},
        "realised": {"scenes": 4, "synthetic": 12},
        "repetition": {"scenes": 0.5, "synthetic": 0.75},
        "replaced": {},
    }


def test_heldout_accuracy_is_measured_on_each_source_of_the_mixture(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    scenes = datasets["scenes"]
    halves = [
        replace(c, split="selection" if i > 5 else "train") for i, c in enumerate(scenes.clips)
    ]
    cut = {**datasets, "scenes": replace(scenes, clips=tuple(halves))}
    stages = run_trial(store, cut, mae__epochs=0, align__heldout_clips=4)
    record = store.record(stages["align"][0].identity)
    assert record is not None
    assert record.metrics.keys() == {"loss", "train_accuracy", "heldout/scenes"}
    points = store.progress(stages["align"][0].identity)
    assert [point["epoch"] for point in points] == [1, 2]
    assert all(0 <= point["heldout/scenes"] <= 1 for point in points)


def test_a_clip_that_cannot_be_read_is_replaced_and_told(
    datasets: dict[str, Dataset], store: StageStore, tmp_path: Path
) -> None:
    scenes = datasets["scenes"]
    for clip in scenes.clips:
        content = b"" if clip.path == "3.mp4" else (scenes.root / clip.path).read_bytes()
        (tmp_path / clip.path).write_bytes(content)
    torn = {**datasets, "scenes": replace(scenes, root=tmp_path)}
    overrides: dict[str, Any] = {
        "mae__epochs": 0,
        "align__mixture__shares": {"scenes": 1},
        "align__mixture__max_unreadable": 0.2,
    }
    stages = run_trial(store, torn, **overrides)
    record = store.record(stages["align"][0].identity)
    assert record is not None
    assert record.mixture["replaced"] == {"scenes": {"3.mp4": 2}}  # 16 clips of 8, 2 passes
    with pytest.raises(ValueError, match=r"scenes.*3\.mp4"):
        run_trial(store, torn, **{**overrides, "align__mixture__max_unreadable": 0.1})


def test_weights_that_do_not_fit_are_refused_by_name(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    stages = run_trial(store, datasets, align__epochs=0)
    align = trial_stages(toy_trial(), datasets).weights
    file = store.file(stages["mae"][0].identity, "weights")
    weights = load_file(file)
    weights["blocks.0.norm1.weight"] = torch.zeros(5)
    weights["surplus"] = weights.pop("norm.bias")
    save_file(weights, file)
    with pytest.raises(ValueError) as raised:
        run_chain(align, store, datasets)
    message = str(raised.value)
    assert "norm.bias is missing" in message
    assert "surplus is not expected" in message
    assert "blocks.0.norm1.weight is [5], not [96]" in message


def test_an_epoch_shorter_than_a_batch_is_refused(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    few = {"align__clips_per_epoch": "sum_of_sources", "align__optimizer__batch_size": 4096}
    with pytest.raises(ValueError, match="is less than optimizer.batch_size 4096"):
        run_trial(store, datasets, mae__epochs=0, **few)


def test_the_head_s_label_space_changes_what_is_learnt(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    # The two sources name their classes differently, so nothing is shared but by index.
    scenes = replace(datasets["scenes"], classes=("c", "d"))
    data = {**datasets, "scenes": scenes}
    losses = {}
    for head in ("union", "by_index", "per_source"):
        store = StageStore(tmp_path / head)
        stage = trial_stages(toy_trial(mae__epochs=0, align__head=head), data).weights
        losses[head] = run_chain(stage, store, data).metrics["loss"]
    # 4 classes compete under union, 2 under the others.
    assert losses["union"] == pytest.approx(torch.tensor(4.0).log().item(), abs=0.3)
    assert losses["by_index"] == pytest.approx(torch.tensor(2.0).log().item(), abs=0.3)
    assert losses["per_source"] == pytest.approx(torch.tensor(2.0).log().item(), abs=0.3)
    assert len(set(losses.values())) == 3


def test_the_seed_decides_the_first_weights(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    inits = [
        trial_stages(toy_trial(seed=seed, mae__epochs=0, align__epochs=0), datasets).weights
        for seed in (0, 1)
    ]
    for stage in inits:
        run_chain(stage, store, datasets)
    first, second = (weights_of(stage, store) for stage in inits)
    assert not torch.equal(first["patch_embed.weight"], second["patch_embed.weight"])
    again = StageStore(store.root / "again")
    run_chain(inits[0], again, datasets)
    assert torch.equal(
        weights_of(inits[0], again)["patch_embed.weight"], first["patch_embed.weight"]
    )
