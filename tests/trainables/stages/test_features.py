from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sweeps.planning.stage_facts import stage_clips
from tests.toy import toy_data, toy_execution, toy_trial
from tests.trainables.data.videos import as_seen, write_video
from tests.trainables.toy_videos import run_chain
from trainables.data import loader
from trainables.data.catalog import Clip, Dataset
from trainables.data.clips import read_clip
from trainables.data.video_files import ClipUnreadable
from trainables.models.heads import Classifier, label_space
from trainables.models.trunk import build_trunk
from trainables.settings import parse
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.stages import evaluate
from trainables.stages.run import run_stage
from trainables.stages.weights import trunk_from, writer
from trainables.training_settings import ModelSettings
from trainables.trial import trial_stages

TRIAL = toy_trial()
MODEL = {"model": TRIAL.model.model_dump(mode="json"), "clip": TRIAL.clip.model_dump(mode="json")}
CONVOLUTIONAL = {"name": "tsn_resnet18", "vit": None}  # batch normalisation: has to be in eval mode
MODELS = pytest.mark.parametrize("model", [MODEL["model"], CONVOLUTIONAL], ids=["vit", "tsn"])
VIEWS = {"clips": 2, "crops": 3}
COEFFICIENTS = [0.0, 0.3, 1.0]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Six clips whose windows differ (2 s for windows of 1 s), and whose crops do."""
    root = tmp_path_factory.mktemp("wide")
    for index in range(6):
        write_video(root / f"{index}.mp4", width=64, height=32, count=20, seed=index)
    clips = tuple(
        Clip(path=f"{index}.mp4", label=index % 3, group=f"g{index // 2}", split="selection")
        for index in range(6)
    )
    dataset = Dataset(
        name="wide",
        root=root,
        humans="real",
        classes=("a", "b", "c"),
        clips=clips,
        frame_rate=None,
        content_hash=hashlib.sha256(b"wide").hexdigest()[:16],
    )
    return {"wide": dataset}


def init(seed: int, **model: Any) -> Stage:
    return Stage(kind="init", settings={"seed": seed, **MODEL, **model})


def on_wide(kind: str, inputs: dict[str, Stage], **settings: Any) -> Stage:
    return Stage(
        kind=kind,
        settings={
            "dataset": "wide",
            "split": "selection",
            "views": VIEWS,
            "max_unreadable": 0.5,
            **MODEL,
            **settings,
        },
        data={"wide": "hash"},
        inputs=inputs,
    )


def views_of(dataset: Dataset, clip: Clip) -> torch.Tensor:
    """[6, 3, T, 32, 32]: start and end of the clip; left, middle and right of each."""
    read = [
        read_clip(
            dataset.root / clip.path,
            frames=4,
            seconds=1.0,
            position=position,
            short_side=32,
            frame_rate=None,
        )
        for position in (0.0, 1.0)
    ]
    return torch.stack(
        [as_seen(frames[:, :, x : x + 32], "per_clip") for frames in read for x in (0, 16, 32)]
    )


def artifact(store: StageStore, stage: Stage, role: str = "features") -> dict[str, torch.Tensor]:
    return load_file(store.file(stage.identity, role))


@MODELS
def test_features_are_those_of_every_view(
    model: dict[str, Any], wide: dict[str, Dataset], store: StageStore
) -> None:
    stage = on_wide("features", {"weights": init(0, model=model)}, model=model)
    record = run_chain(stage, store, wide)
    assert record.metrics == {"clips": 6, "left_out": []}
    assert record.cost["clips"] == stage_clips(stage, wide) == 6 * 6
    found = artifact(store, stage)
    weights = store.file(stage.inputs["weights"].identity, "weights")
    trunk = trunk_from(weights, parse(ModelSettings, model, "model"), TRIAL.clip).eval()
    with torch.inference_mode():
        expected = torch.stack([trunk(views_of(wide["wide"], c)) for c in wide["wide"].clips])
    assert found["features"].dtype == torch.float16
    torch.testing.assert_close(found["features"].float(), expected, rtol=2e-3, atol=2e-3)
    assert (expected[:, 0] - expected[:, 5]).abs().max() > 0.1  # the views differ
    assert found["label"].tolist() == [0, 1, 2, 0, 1, 2]
    assert found["group"].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_clip_that_cannot_be_read_leaves_none_of_its_views(
    wide: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("trainables.stages.features.EVALUATION_BATCH", 12)  # 2 clips of 6 views
    whole = on_wide("features", {"weights": init(0)})
    run_chain(whole, store, wide)
    broken = StageStore(tmp_path / "broken")
    reader = loader.ClipReader.read

    def fails(self: Any, path: Path, position: float, rate: Any) -> Any:
        if path.name == "3.mp4" and position == 1.0:
            raise ClipUnreadable(path, "is torn")
        return reader(self, path, position, rate)

    monkeypatch.setattr(loader.ClipReader, "read", fails)
    assert run_chain(whole, broken, wide).metrics == {"clips": 5, "left_out": ["3.mp4"]}
    kept = [0, 1, 2, 4, 5]
    found, every = artifact(broken, whole), artifact(store, whole)
    for name in ("features", "label", "group"):
        torch.testing.assert_close(found[name], every[name][kept])


def test_coefficients_share_one_decode_and_change_nothing(
    wide: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {"w0": init(0), "w1": init(1)}
    together = on_wide("features", ends, coefficients=COEFFICIENTS)
    for end in ends.values():
        run_chain(end, store, wide)
    read: list[tuple[Path, float]] = []
    reader = loader.ClipReader.read

    def remembered(self: Any, path: Path, position: float, rate: Any) -> Any:
        read.append((path, position))
        return reader(self, path, position, rate)

    monkeypatch.setattr(loader.ClipReader, "read", remembered)
    run_stage(together, store, wide, toy_execution(), lambda: False)
    assert len(read) == len(set(read)) == 6 * 2
    record = store.record(together.identity)
    assert record is not None
    assert record.cost["clips"] == stage_clips(together, wide) == 6 * 6 * 3
    for index, coefficient in enumerate(COEFFICIENTS):
        settings = {"method": "interpolate", "coefficient": coefficient}
        average = Stage(kind="average", settings=settings, inputs=ends)
        alone = on_wide("features", {"weights": average})
        run_chain(alone, store, wide)
        found, expected = artifact(store, together, f"features_{index}"), artifact(store, alone)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    files = [artifact(store, together, f"features_{index}")["features"] for index in range(3)]
    assert not torch.equal(files[0], files[1])


def test_a_list_of_one_number_an_endpoint_merges_any_number_of_them(
    wide: dict[str, Dataset], store: StageStore
) -> None:
    ends = {f"w{seed}": init(seed) for seed in range(3)}
    together = on_wide("features", ends, coefficients=[[0.0, 1.0, 0.0], [1 / 3] * 3])
    run_chain(together, store, wide)
    uniform = Stage(kind="average", settings={"method": "uniform"}, inputs=ends)
    for index, weights in enumerate([ends["w1"], uniform]):
        alone = on_wide("features", {"weights": weights})
        run_chain(alone, store, wide)
        found, expected = artifact(store, together, f"features_{index}"), artifact(store, alone)
        assert torch.equal(found["features"], expected["features"])


def test_endpoints_of_different_models_are_refused(
    wide: dict[str, Dataset], store: StageStore
) -> None:
    settings = toy_trial(model__name="vit_small").model.model_dump(mode="json")
    ends = {"w0": init(0), "w1": init(0, model=settings)}
    stage = on_wide("features", ends, coefficients=[0.5])
    with pytest.raises(ValueError, match=r"w1 cannot be averaged with w0: blocks\.10"):
        run_chain(stage, store, wide)


@MODELS
def test_an_evaluation_averages_the_logits_of_a_clip_s_views(
    model: dict[str, Any],
    wide: dict[str, Dataset],
    store: StageStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    space = label_space({"wide": wide["wide"].classes}, "union")
    trunk = build_trunk(parse(ModelSettings, model, "model"), TRIAL.clip)
    classifier = Classifier(trunk, space).eval()
    torch.nn.init.normal_(classifier.head.weight)
    trained = Stage(kind="finetune", settings={})
    write = {"model.safetensors": writer(classifier.state_dict())}
    store.publish(trained, write=write, metrics={}, cost={})
    scored: list[torch.Tensor] = []
    scores = evaluate.scores

    def remembered(*tensors: torch.Tensor) -> Any:
        scored.extend(tensors)
        return scores(*tensors)

    monkeypatch.setattr(evaluate, "scores", remembered)
    stage = on_wide("evaluate", {"model": trained}, model=model)
    run_stage(stage, store, wide, toy_execution(), lambda: False)
    with torch.inference_mode():
        source = torch.zeros(6, dtype=torch.int64)
        views = [classifier(views_of(wide["wide"], clip), source) for clip in wide["wide"].clips]
    expected = torch.stack(views).mean(dim=1)
    torch.testing.assert_close(scored[0].float(), expected, rtol=1e-4, atol=1e-4)
    assert (views[0][0] - views[0][5]).abs().max() > 0.1
    assert scored[1].tolist() == [0, 1, 2, 0, 1, 2]
    assert scored[2].tolist() == [0, 0, 1, 1, 2, 2]
    record = store.record(stage.identity)
    assert record is not None
    right = expected.argmax(dim=1) == scored[1]
    assert record.metrics["accuracy"] == pytest.approx(right.double().mean().item())
    assert record.metrics["top5"] == 1.0
    assert record.cost["clips"] == stage_clips(stage, wide)
    assert record.metrics["left_out"] == 0


def test_features_in_bf16_are_others_that_differ_little_and_are_known_by_it(
    wide: dict[str, Dataset], store: StageStore
) -> None:
    stages = [
        on_wide("features", {"weights": init(0)}, **precision)
        for precision in ({}, {"precision": "bf16"})
    ]
    for stage in stages:
        run_chain(stage, store, wide)
    exact, rounded = (artifact(store, stage)["features"].float() for stage in stages)
    assert stages[0].identity != stages[1].identity
    assert 0 < (exact - rounded).norm() / exact.norm() < 0.02


def test_the_precision_of_features_is_part_of_what_they_are_only_where_it_is_lower() -> None:
    data = toy_data()
    exact, rounded = (
        trial_stages(toy_trial(probe__precision=precision), data).scored["low"]
        for precision in ("fp32", "bf16")
    )
    assert "precision" not in exact.inputs["train"].settings  # as before there was a choice
    assert rounded.inputs["train"].settings["precision"] == "bf16"
