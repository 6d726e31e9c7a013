"""Scene bias: what a single frame tells of the class, with and without the people in it."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch

from tests.toy import toy_execution
from trainables.bias import BiasSettings, bias_measures, clips_for_bias
from trainables.data.catalog import Clip, Dataset
from trainables.data.single_frames import largest_free_square, window_side
from trainables.data.splits import folds_by_group
from trainables.data.whole_files import encode_mp4
from trainables.models.timm_models import image_backbone
from trainables.settings import parse
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.stages import bias as bias_stage
from trainables.stages.run import run_stage
from trainables.stages.weights import writer

CLASSES, CLIPS, FRAMES, HEIGHT, WIDTH = 3, 90, 4, 48, 80
CLOTHES = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230]], np.uint8)
SETTINGS: dict[str, Any] = {
    "clips": 1000,
    "frames": 2,
    "resolution": 32,
    "image_model": "descriptors",
    "weights": None,
    "folds": 3,
    "l2_grid": [0.1, 1.0],
    "max_unreadable": 0.05,
}
VIT = {"image_model": "test_vit", "weights": "of test_vit"}
Tells = Literal["background", "clothes", "nothing"]


def settings(**changes: Any) -> BiasSettings:
    return parse(BiasSettings, {**SETTINGS, **changes}, "bias")


def background(label: int, draw: np.random.Generator) -> np.ndarray:
    """Noise, under stripes that lie, stand or cross by the class."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] // 4 % 2
    stripes = (y, x, y ^ x)[label][..., None] * 60
    return (stripes + draw.integers(60, 120, (HEIGHT, WIDTH, 3))).astype(np.uint8)


def made(root: Path, tells: Tells, people: bool) -> Dataset:
    """A dataset of CLIPS clips; where there are `people`, each wears colours and has masks."""
    draw, clips = np.random.default_rng(0), []
    for index in range(CLIPS):
        label, path = index % CLASSES, f"{index:03}.mp4"
        scene = background(label if tells == "background" else draw.integers(CLASSES), draw)
        clothes = CLOTHES[label if tells == "clothes" else draw.integers(CLASSES)]
        frames = np.repeat(scene[None], FRAMES, axis=0)
        masks = np.zeros(frames.shape[:3], bool)
        if people:  # who stands where the class is not to be seen
            top, left = draw.integers(4, 16), draw.integers(0, WIDTH - 14)
            masks[:, top : top + 28, left : left + 14] = True
            frames[masks] = clothes
        for folder, video in (("clips", frames), ("masks", masks[..., None].repeat(3, -1) * 255)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / path).write_bytes(encode_mp4(video.astype(np.uint8), 8, 5))
        # Three clips a group, one of each class.
        clips.append(Clip(path=path, label=label, group=f"g{index // 3}", split="train"))
    return Dataset(
        name="made",
        root=root / "clips",
        humans="real",
        classes=("a", "b", "c"),
        clips=tuple(clips),
        frame_rate=None,
        content_hash=f"{tells} {people}",
        masks=root / "masks" if people else None,
    )


@pytest.fixture(scope="module")
def by_clothes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made(tmp_path_factory.mktemp("by_clothes"), "clothes", people=True)


@pytest.fixture(scope="module")
def by_background(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made(tmp_path_factory.mktemp("by_background"), "background", people=True)


def stage_of(dataset: Dataset, view: str = "frames", **changes: Any) -> Stage:
    measured = bias_measures(settings(**changes), {"made": dataset})
    stage = next(each.stage for each in measured if each.view == view)
    assert stage is not None
    return stage


def measure(
    store: StageStore, dataset: Dataset, view: str = "frames", **changes: Any
) -> dict[str, Any]:
    stage = stage_of(dataset, view, **changes)
    run_stage(stage, store, {"made": dataset}, toy_execution(), lambda: False)
    record = store.record(stage.identity)
    assert record is not None
    return record.metrics


def test_a_background_that_decides_the_class_is_worth_all_bits(
    by_background: Dataset, store: StageStore
) -> None:
    found = measure(store, by_background)
    assert found["most_bits"] == pytest.approx(math.log2(CLASSES))
    assert found["bias"] == pytest.approx(math.log2(CLASSES), abs=0.1)
    assert found["bias"] == pytest.approx(math.log2(found["accuracy"] * CLASSES))
    assert found["interval_low"] <= found["bias"] <= found["interval_high"]


def test_a_background_that_says_nothing_is_worth_none(tmp_path: Path, store: StageStore) -> None:
    found = measure(store, made(tmp_path, "nothing", people=False))
    assert found["interval_low"] < 0 < found["interval_high"]
    assert abs(found["bias"]) < 0.5


def test_masked_people_no_longer_give_the_class_away_by_their_clothes(
    by_clothes: Dataset, store: StageStore
) -> None:
    assert measure(store, by_clothes)["interval_low"] > 0.5
    masked = measure(store, by_clothes, "people_masked")
    assert masked["interval_low"] < 0 < masked["interval_high"]
    assert 0 < masked["window"] < 1


def test_masked_people_take_nothing_from_what_the_background_tells(
    by_background: Dataset, store: StageStore
) -> None:
    assert measure(store, by_background, "people_masked")["bias"] > 1.3


def as_pictures(dataset: Dataset, folder: Path, value: int, count: int, size: int) -> Dataset:
    """The same dataset; its masks as folders of `count` PNG files that are `value` on the right."""
    for clip in dataset.clips:
        (folder / clip.path).mkdir(parents=True)
        mask = np.zeros((HEIGHT * size, WIDTH), np.uint8)
        mask[:, WIDTH // 2 :] = value
        for index in range(count):
            cv2.imwrite(str(folder / clip.path / f"{index:05}.png"), mask)
    return replace(dataset, masks=folder)


def test_masks_may_be_folders_of_pictures_of_0_and_1(
    by_clothes: Dataset, tmp_path: Path, store: StageStore
) -> None:
    masked = as_pictures(by_clothes, tmp_path / "m", value=1, count=FRAMES, size=1)
    assert measure(store, masked, "people_masked")["window"] == pytest.approx(36 / 48, abs=0.05)


@pytest.mark.parametrize(
    ("count", "size", "message"),
    [(FRAMES + 1, 1, "has 4 frames and 5 masks"), (FRAMES, 2, "its masks are .*, its frames ")],
)
def test_masks_of_another_length_or_size_than_the_frames_are_refused(
    by_clothes: Dataset, tmp_path: Path, store: StageStore, count: int, size: int, message: str
) -> None:
    masked = as_pictures(by_clothes, tmp_path / "m", value=255, count=count, size=size)
    with pytest.raises(ValueError, match=message):
        measure(store, masked, "people_masked")


def test_a_clip_without_masks_is_left_out_and_too_many_are_told(
    by_clothes: Dataset, tmp_path: Path, store: StageStore
) -> None:
    assert by_clothes.masks is not None
    shutil.copytree(by_clothes.masks, tmp_path / "masks")
    masked = replace(by_clothes, masks=tmp_path / "masks")
    (tmp_path / "masks" / "007.mp4").unlink()
    # One of 90, and those without room for the window.
    assert 1 <= measure(store, masked, "people_masked")["left_out"] <= 5
    for index in range(8, 20):
        (tmp_path / "masks" / f"{index:03}.mp4").unlink()
    with pytest.raises(ValueError, match=r"(?s)cannot be read.*007.mp4: there are no masks"):
        measure(store, masked, "people_masked")


@pytest.mark.parametrize("view", ["frames", "people_masked"])
def test_a_dataset_of_which_nothing_can_be_read_is_told(
    by_clothes: Dataset, tmp_path: Path, store: StageStore, view: str
) -> None:
    gone = replace(by_clothes, root=tmp_path, masks=tmp_path)
    with pytest.raises(ValueError, match=r"(?s)'made': none of its 90 clips can.*000.mp4"):
        measure(store, gone, view, max_unreadable=1.0)


def test_a_dataset_of_which_nothing_can_be_shown_is_told(
    by_clothes: Dataset, store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bias_stage.SingleFrames, "windows", lambda *_, **__: None)
    with pytest.raises(ValueError, match="'made': no clip has room for a window"):
        measure(store, by_clothes, "people_masked")


def test_people_who_leave_no_room_for_a_window_are_told(
    by_clothes: Dataset, tmp_path: Path, store: StageStore
) -> None:
    masked = as_pictures(by_clothes, tmp_path / "m", value=255, count=FRAMES, size=1)
    for clip in masked.clips:
        for file in (tmp_path / "m" / clip.path).iterdir():
            cv2.imwrite(str(file), np.full((HEIGHT, WIDTH), 255, np.uint8))
    with pytest.raises(ValueError, match="people leave no room for a window"):
        measure(store, masked, "people_masked")


def test_a_feature_that_is_no_number_is_told(
    by_clothes: Dataset, store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_nothing(*_: Any) -> Any:
        return lambda frames: torch.full((len(frames), 4), math.nan)

    monkeypatch.setattr(bias_stage, "image_features", of_nothing)
    with pytest.raises(ValueError, match="feature of 000.mp4 that is no finite number"):
        measure(store, by_clothes)


def test_no_clip_told_right_is_as_good_as_half_a_clip() -> None:
    none = torch.zeros(10, dtype=torch.bool)
    found = bias_stage._measured(none, torch.arange(10) % 2, [str(i) for i in range(10)])
    assert found["bias"] == found["interval_low"] == pytest.approx(math.log2(0.05 * 2))


def test_the_report_split_is_not_read(by_clothes: Dataset, store: StageStore) -> None:
    hidden = [Clip(path=f"no{i}.mp4", label=i % 3, group="r", split="report") for i in range(30)]
    more = replace(by_clothes, clips=(*by_clothes.clips, *hidden))
    assert measure(store, more)["clips"] == CLIPS


def test_clips_are_drawn_of_each_class_alike_and_more_contain_fewer(by_clothes: Dataset) -> None:
    few, many = (clips_for_bias(by_clothes, most) for most in (30, 60))
    assert np.bincount([clip.label for clip in few]).tolist() == [10, 10, 10]
    assert {*few} < {*many}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clips": [0]}, "of 1 class, and a model needs 2"),
        ({"group": "all"}, "1 groups, fewer than bias.folds 3"),
        ({"group_of_first": "all"}, "each clip of 'a' is in one group"),
    ],
)
def test_why_a_dataset_cannot_be_measured_is_told_and_others_are(
    by_clothes: Dataset, change: dict[str, Any], reason: str
) -> None:
    clips = [clip for clip in by_clothes.clips if clip.label in change.get("clips", [0, 1, 2])]
    if "group" in change:
        clips = [replace(clip, group="all") for clip in clips]
    if "group_of_first" in change:
        clips = [replace(c, group=c.group if c.label else "only") for c in clips]
    data = {"odd": replace(by_clothes, name="odd", clips=tuple(clips)), "made": by_clothes}
    measured = bias_measures(settings(), data)
    told = [each.reason for each in measured if each.dataset == "odd"]
    assert all(each is not None and reason in each for each in told)
    assert all(each.stage for each in measured if each.dataset == "made")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"masks": None}, "there are no masks"), ({"humans": "removed"}, "no people to mask")],
)
def test_without_masks_or_people_there_is_the_other_figure_alone(
    by_clothes: Dataset, change: dict[str, Any], reason: str
) -> None:
    dataset = replace(by_clothes, **change)
    whole, masked = bias_measures(settings(), {"made": dataset})
    assert whole.stage is not None and masked.stage is None
    assert masked.reason is not None and reason in masked.reason


def test_bias_is_measured_once_a_dataset_and_setting(by_clothes: Dataset) -> None:
    same = replace(by_clothes, root=Path("/elsewhere"))
    assert stage_of(by_clothes).identity == stage_of(same).identity
    others = [
        stage_of(by_clothes, view="people_masked"),
        stage_of(by_clothes, frames=3),
        stage_of(replace(by_clothes, content_hash="new")),
    ]
    assert len({stage_of(by_clothes).identity, *(other.identity for other in others)}) == 4


@pytest.mark.parametrize("pictures", [True, False])
def test_masks_that_are_made_anew_are_measured_anew(
    by_clothes: Dataset, tmp_path: Path, pictures: bool
) -> None:
    def stages(masks: Path) -> tuple[str, str]:
        masked = replace(by_clothes, masks=masks)
        whole, without = (stage_of(masked, view) for view in ("frames", "people_masked"))
        return whole.identity, without.identity

    masks, another = tmp_path / "masks", tmp_path / "moved"
    if pictures:
        as_pictures(by_clothes, masks, value=255, count=1, size=1)
        file = masks / "007.mp4" / "00000.png"
    else:
        assert by_clothes.masks is not None
        shutil.copytree(by_clothes.masks, masks)
        file = masks / "007.mp4"
    whole, without = stages(masks)
    shutil.copytree(masks, another)
    assert stages(another) == (whole, without)
    file.write_bytes(file.read_bytes() + b"more")
    assert stages(masks)[0] == whole and stages(masks)[1] != without
    file.unlink()
    assert stages(masks)[1] not in (without, stages(another)[0])


def saved(folder: Path, name: str) -> Path:
    file = folder / f"{name}.safetensors"
    with file.open("wb") as to:
        writer({**image_backbone(name).state_dict(), "fc.weight": torch.zeros(2, 2)})(to)
    return file


def test_an_image_model_of_timm_takes_the_place_of_the_descriptors(
    by_clothes: Dataset, tmp_path: Path, store: StageStore
) -> None:
    torch.manual_seed(0)
    file = saved(tmp_path, "test_resnet")
    model = {"image_model": "test_resnet", "weights": str(file)}
    assert measure(store, by_clothes, **model)["bias"] > 0.8
    moved = file.rename(tmp_path / "moved.safetensors")
    again = stage_of(by_clothes, **{**model, "weights": str(moved)})
    assert store.finished(again.identity)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_model": "test_resnet"}, "a backbone of timm needs its file"),
        ({"weights": "x.safetensors"}, "descriptors take weights: null"),
        ({"image_model": "test_resnet", "weights": "FILE"}, "no file; give a safetensors"),
        ({**VIT, "image_model": "test_resnet"}, "does not fit 'test_resnet'"),
        ({**VIT, "resolution": 40}, "bias.resolution 40: test_vit"),
        ({**VIT, "image_model": "test_rsnet"}, "nearest is 'test_resnet'"),
        ({"image_model": "test_vit", "weights": "broken"}, "cannot be read"),
        ({"folds": 2}, "greater than or equal to 3"),
        ({"l2_grid": []}, "at least 1 item"),
    ],
)
def test_an_image_model_that_cannot_be_used_is_told(
    by_clothes: Dataset, tmp_path: Path, store: StageStore, changes: dict[str, Any], message: str
) -> None:
    if (weights := changes.get("weights", "")).startswith("of "):
        changes = {**changes, "weights": str(saved(tmp_path, weights.removeprefix("of ")))}
    if weights == "broken":
        (tmp_path / "broken").write_bytes(b"no tensors")
        changes = {**changes, "weights": str(tmp_path / "broken")}
    with pytest.raises(ValueError, match=message):
        measure(store, by_clothes, **changes)


def test_folds_hold_whole_groups_and_every_class() -> None:
    groups = [f"g{index // 4}" for index in range(120)]
    labels = [index % 4 for index in range(120)]
    folds = folds_by_group(groups, labels, 5, "made")
    assert all(
        len({f for f, g in zip(folds, groups, strict=True) if g == of}) == 1 for of in groups
    )
    assert np.bincount(folds).tolist() == [24] * 5
    one_class_a_group = folds_by_group(list("abcde"), [0, 1, 2, 3, 4], 3, "made")
    assert {*one_class_a_group} == {0, 1, 2}


def test_the_largest_free_square_and_the_side_that_fits_are_those_of_a_closed_form() -> None:
    mask = np.zeros((20, 30), bool)
    mask[:, 10:14] = True
    assert largest_free_square(mask) == 16
    mask[8] = True
    assert largest_free_square(mask) == 11
    assert largest_free_square(np.ones((4, 4), bool)) == 0
    assert window_side([index / 100 for index in range(101)]) == 0.05


def test_features_that_say_nothing_come_out_at_chance_and_not_below() -> None:
    # With a penalty that leaves but the classes' frequencies, which are the opposite of those
    # of the fold that is scored.
    run: Any = SimpleNamespace(
        stage=SimpleNamespace(settings={"folds": 5, "dataset": "made", "l2_grid": [1e4]}),
        beat=lambda: False,
    )
    accuracies = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        features = torch.from_numpy(draw.normal(size=(120, 1, 4)).astype(np.float32))
        label, groups = torch.arange(120) % CLASSES, [f"g{g}" for g in draw.integers(0, 15, 120)]
        correct = bias_stage._held_out(run, features, label, groups)
        accuracies.append(correct.double().mean().item())
    assert np.mean(accuracies) == pytest.approx(1 / CLASSES, abs=0.02)
