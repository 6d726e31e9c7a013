"""Against PIL's own, which timm calls."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from trainables.data.image_operations import OPERATIONS, OUTSIDE
from trainables.models.timm_models import import_torchvision

ARGUMENTS: dict[str, list[tuple[Any, ...]]] = {
    "AutoContrast": [()],
    "Equalize": [()],
    "Invert": [()],
    "PosterizeIncreasing": [(1,), (2,), (4,)],
    "SolarizeIncreasing": [(0,), (90,), (256,)],
    "SolarizeAdd": [(0,), (60,), (110,)],
    "ColorIncreasing": [(0.1,), (0.55,), (1.9,)],
    "ContrastIncreasing": [(0.1,), (0.55,), (1.9,)],
    "BrightnessIncreasing": [(0.1,), (0.55,), (1.9,)],
    "SharpnessIncreasing": [(0.1,), (0.55,), (1.9,)],
    "Rotate": [(-30.0,), (4.5,), (17.3,)],
    "ShearX": [(-0.3,), (0.07,)],
    "ShearY": [(-0.3,), (0.07,)],
    "TranslateXRel": [(-0.45,), (0.25,)],
    "TranslateYRel": [(-0.45,), (0.25,)],
}
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
BLENDING = ("ColorIncreasing", "SharpnessIncreasing")


def frames(contrast: float = 4.0) -> np.ndarray:
    """uint8 [3, 48, 64, 3]: soft noise, each frame its own, dark and bright parts cut off."""
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.uniform(0, 255, (48, 64, 3)), (0, 0), 3) for _ in range(3)]
    return np.clip((np.stack(noise) - 127) * contrast + 110, 0, 255).astype(np.uint8)


def by_pil(name: str, clip: np.ndarray, arguments: tuple[Any, ...]) -> np.ndarray:
    import_torchvision()
    from timm.data.auto_augment import NAME_TO_OP

    how = {"fillcolor": OUTSIDE, "resample": Image.Resampling.BICUBIC}
    return np.stack(
        [np.asarray(NAME_TO_OP[name](Image.fromarray(f), *arguments, **how)) for f in clip]
    )


CASES = [(name, each) for name, all_ in ARGUMENTS.items() for each in all_]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_it_does_what_pil_does(name: str, arguments: tuple[Any, ...]) -> None:
    clip = frames()
    ours, theirs = OPERATIONS[name](clip, *arguments), by_pil(name, clip, arguments)
    assert ours.dtype == np.uint8 and ours.shape == clip.shape
    off = np.abs(ours.astype(int) - theirs).max(axis=3)
    if name in MOVING:
        outside = (theirs == OUTSIDE).all(axis=3)
        framed = np.pad((~outside[0]).astype(np.uint8), 3)
        inside = cv2.erode(framed, np.ones((7, 7), np.uint8))[3:-3, 3:-3] > 0
        assert off[:, inside].max() <= 12  # the other bicubic kernel
        assert off[:, inside].mean() < 1.5
        assert outside.any() and (off > 12).mean() < 0.1  # along the border
    else:
        assert off.max() <= (1 if name in BLENDING else 0)


def test_operations_are_all_that_timm_draws_from() -> None:
    import_torchvision()
    from timm.data.auto_augment import rand_augment_transform

    drawn = {operation.name for operation in rand_augment_transform("rand-inc1", {}).ops}
    assert drawn == set(OPERATIONS) == set(ARGUMENTS)


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_a_clip_of_one_colour_one_that_is_flipped_in_memory_and_a_crop_are_taken_too(
    name: str,
) -> None:
    plain = np.full((2, 16, 20, 3), 90, np.uint8)
    flipped, crop = frames()[:, :, ::-1], frames()[:, 5:40, 7:60]
    for clip in (plain, flipped, crop):
        before = clip.copy()
        (arguments, *_) = ARGUMENTS[name]
        ours = OPERATIONS[name](clip, *arguments)
        assert np.array_equal(clip, before)
        assert np.array_equal(ours, OPERATIONS[name](np.ascontiguousarray(clip), *arguments))
        if name not in MOVING:
            theirs = by_pil(name, np.ascontiguousarray(clip), arguments).astype(int)
            assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("part", [-0.3, 0.07])
def test_a_clip_is_moved_to_the_very_pixels_of_its_frames_one_by_one(part: float) -> None:
    shift = np.array([[1, 0, part * 53], [0, 1, 0]])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    for clip in (frames()[:, 5:40, 7:60], frames()[:, 5:40, 60:7:-1]):
        expected = [
            cv2.warpAffine(frame, shift, (53, 35), flags=how, borderValue=OUTSIDE) for frame in clip
        ]
        assert np.array_equal(OPERATIONS["TranslateXRel"](clip, part), np.stack(expected))
