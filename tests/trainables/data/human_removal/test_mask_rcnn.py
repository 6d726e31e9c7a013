from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data.human_removal.mask_rcnn import load_mask_rcnn, mask_rcnn_detector
from trainables.models.timm_models import import_torchvision


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the right names and shapes, all numbers the same: no trained one is here."""
    import_torchvision()
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    with torch.device("meta"):
        state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    file = tmp_path_factory.mktemp("weights") / "maskrcnn.pth"
    one = torch.tensor(0.01)
    torch.save(
        {name: one.expand(value.shape).to(value.dtype) for name, value in state.items()}, file
    )
    return file


@pytest.fixture
def operators_by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """nms and roi_align in Python, where torchvision's own do not load beside a CPU torch."""
    import_torchvision()
    import torchvision.models.detection.roi_heads
    import torchvision.ops

    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        yield  # the real ones are here
        return
    except (NotImplementedError, RuntimeError, AttributeError):
        pass

    def roi_align(features, rois, output_size, spatial_scale=1.0, *_, **__):
        size = (output_size, output_size) if isinstance(output_size, int) else output_size
        if isinstance(rois, list | tuple):
            rois = torch.cat([torch.cat([torch.full_like(r[:, :1], n), r], 1)
                              for n, r in enumerate(rois)])  # fmt: skip
        pooled = []
        for index, *edges in rois.tolist():
            left, top, right, bottom = (round(edge * spatial_scale) for edge in edges)
            feature = features[int(index)]
            left, top = min(left, feature.shape[2] - 1), min(top, feature.shape[1] - 1)
            part = feature[
                :, max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)
            ]
            pooled.append(torch.nn.functional.adaptive_avg_pool2d(part, size))
        return torch.stack(pooled) if pooled else features.new_zeros(0, features.shape[1], *size)

    def nms(boxes, scores, iou_threshold):
        kept: list[int] = []
        for index in scores.argsort(descending=True).tolist():
            overlaps = torchvision.ops.box_iou(boxes[index : index + 1], boxes[kept])
            if not (overlaps > iou_threshold).any():
                kept.append(index)
            if len(kept) == 20:
                break
        return torch.tensor(kept, dtype=torch.long)

    for module in (torchvision.ops, torchvision.ops.boxes, torchvision.ops.poolers):
        for name, function in (("nms", nms), ("roi_align", roi_align)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, function)
    yield


def test_weights_of_another_model_are_refused_with_what_is_wrong(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"another model.*missing.*not known \(fc.weight\)"):
        load_mask_rcnn(tmp_path / "other.pth")


def test_weights_with_other_classes_are_refused(tmp_path: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    name = "roi_heads.box_predictor.cls_score.weight"
    torch.save({**state, name: state[name][:2]}, tmp_path / "two_classes.pth")
    with pytest.raises(ValueError, match=f"of another shape .{name}"):
        load_mask_rcnn(tmp_path / "two_classes.pth")


@pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "text", "none"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "file.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_mask_rcnn(file)


class Hostile:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_weights_file_is_refused_and_never_run(tmp_path: Path) -> None:
    torch.save({"fc.weight": Hostile(tmp_path / "it_ran")}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_mask_rcnn(tmp_path / "file.pth")
    assert not (tmp_path / "it_ran").exists()


def test_something_else_than_names_and_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {}}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_mask_rcnn(tmp_path / "checkpoint.pth")


@pytest.mark.slow
def test_a_torchvision_that_cannot_run_it_is_said_before_a_clip_is_read(weights: Path) -> None:
    import_torchvision()
    import torchvision.ops

    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (NotImplementedError, RuntimeError, AttributeError):
        with pytest.raises(ValueError, match="install the torchvision that belongs to it"):
            load_mask_rcnn(weights)
    else:
        pytest.skip("torchvision's operators are here")


@pytest.mark.slow
def test_weights_of_no_training_by_hand_made_operators_give_boxes_and_masks(
    operators_by_hand: None, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.data.human_removal.mask_rcnn.SURE", 0.0)
    model = load_mask_rcnn(weights)
    model.transform.min_size, model.transform.max_size = (64,), 96  # type: ignore[union-attr]
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    seen = mask_rcnn_detector(model)(frame)
    assert seen.mask is not None and seen.mask.shape == (48, 64) and seen.mask.dtype == np.uint8
    for box in seen.boxes:
        assert 0 <= box.left <= 64 and 0 <= box.top <= 48 and 0 <= box.score <= 1
    monkeypatch.setattr("trainables.data.human_removal.mask_rcnn.SURE", 1.1)
    assert mask_rcnn_detector(model)(frame).boxes == []
