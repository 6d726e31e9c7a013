from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from tests.trainables.data.videos import as_seen
from trainables.data.augment import (
    augment,
    erase,
    erased_box,
    normalised,
    resample,
    scale_of,
    square_crops,
)
from trainables.models.timm_models import import_torchvision
from trainables.training_settings import AugmentSettings


def settings(**changes: object) -> AugmentSettings:
    plain: dict = {
        "crop_scale": (1.0, 1.0),
        "crop_ratio": (1.0, 1.0),
        "flip": False,
        "jitter": 0.0,
        "rand_augment": None,
        "erasing": 0.0,
    }
    return AugmentSettings(**{**plain, **changes})


def still(height: int = 40, width: int = 40, frames: int = 5) -> np.ndarray:
    """The same random picture in every frame."""
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return picture.repeat(frames, axis=0)


FULL = settings(crop_scale=(0.3, 1.0), crop_ratio=(0.75, 1.33), flip=True, jitter=0.4)


def test_all_frames_of_a_clip_are_changed_alike() -> None:
    for seed in range(10):
        view = augment(still(), FULL, 24, np.random.default_rng(seed))
        assert view.shape == (5, 24, 24, 3)
        assert view.dtype == np.uint8
        assert (view == view[:1]).all()


def test_a_view_is_a_function_of_its_seed() -> None:
    views = [augment(still(), FULL, 24, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_no_augmentation_leaves_a_square_clip_as_it_is() -> None:
    frames = still()
    assert np.array_equal(augment(frames, settings(), 40, np.random.default_rng(0)), frames)


def test_half_of_the_clips_are_flipped() -> None:
    frames = still()
    views = [
        augment(frames, settings(flip=True), 40, np.random.default_rng(seed)) for seed in range(200)
    ]
    flipped = sum(np.array_equal(view, frames[:, :, ::-1]) for view in views)
    assert 70 < flipped < 130
    assert flipped + sum(np.array_equal(view, frames) for view in views) == 200


@pytest.mark.parametrize("shape", [(40, 40), (40, 300), (300, 40), (7, 5)])
def test_crops_of_every_shape_of_frame_have_the_size(shape: tuple[int, int]) -> None:
    for seed in range(20):
        view = augment(still(*shape, frames=2), FULL, 16, np.random.default_rng(seed))
        assert view.shape == (2, 16, 16, 3)


def test_jitter_changes_colour_and_not_place() -> None:
    gray = np.full((2, 8, 8, 3), 100, np.uint8)
    means = [
        augment(gray, settings(jitter=0.4), 8, np.random.default_rng(seed)) for seed in range(50)
    ]
    assert all((view == view[0, 0, 0]).all() for view in means)
    levels = [view[0, 0, 0, 0] for view in means]
    assert 58 <= min(levels) < 75
    assert 125 < max(levels) <= 142  # gray has no contrast and no saturation: brightness alone


def test_resampled_frames_keep_their_size_and_lose_what_the_smaller_ones_cannot_hold() -> None:
    frames = still(48, 64)
    blurred = resample(frames, 16, 12)  # each of its pixels is the mean of 4 x 4
    means = frames.reshape(5, 12, 4, 16, 4, 3).mean((2, 4)).round().astype(np.uint8)
    expected = cv2.resize(means[0], (64, 48), interpolation=cv2.INTER_LINEAR)
    assert blurred.shape == frames.shape
    assert np.abs(blurred[0].astype(int) - expected).max() <= 1
    assert (blurred == blurred[:1]).all()
    assert np.array_equal(resample(frames, 64, 48), frames)


def test_hats_pass_blurs_an_uneven_enlargement_a_little() -> None:
    frames = still(256, 340, frames=1)  # wider, and less high
    change = np.abs(resample(frames, 432, 240).astype(int) - frames).mean()
    assert 1 < change < 40


@pytest.mark.parametrize("shape", [(20, 30), (31, 27), (59, 40)])
def test_crops_are_resized_as_torch_does_it(shape: tuple[int, int]) -> None:
    frames = still(*shape, frames=2)
    whole = settings(crop_ratio=(shape[1] / shape[0],) * 2)
    view = augment(frames, whole, 30, np.random.default_rng(0))
    by_channel = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    theirs = torch.nn.functional.interpolate(by_channel, (30, 30), mode="bilinear")
    assert np.abs(view - theirs.permute(0, 2, 3, 1).numpy()).max() <= 1


@pytest.mark.parametrize("side", [8, 17, 30])
def test_a_clip_is_resized_to_the_very_pixels_of_its_frames_one_by_one(side: int) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (3, 20, 31, 3), np.uint8)
    way = cv2.INTER_AREA if side == 8 else cv2.INTER_LINEAR
    for frames in (clip, clip[:, :, ::-1], clip[::-1]):
        for start, square in zip((0, 5, 11), square_crops(frames, side, 3), strict=True):
            crop = frames[:, :, start : start + 20]  # with gaps in memory
            expected = [cv2.resize(frame, (side, side), interpolation=way) for frame in crop]
            assert np.array_equal(square, np.stack(expected))


def test_one_crop_is_the_square_in_the_middle() -> None:
    frames = still(20, 30)
    (middle,) = square_crops(frames, 20, 1)
    assert np.array_equal(middle, frames[:, :, 5:25])
    assert square_crops(frames, 12, 1)[0].shape == (5, 12, 12, 3)


def test_three_crops_lie_along_the_longer_side() -> None:
    wide, tall = still(20, 31), still(31, 20)
    across, down = square_crops(wide, 20, 3), square_crops(tall, 20, 3)
    for index, start in enumerate((0, 5, 11)):
        assert np.array_equal(across[index], wide[:, :, start : start + 20])
        assert np.array_equal(down[index], tall[:, start : start + 20])


def test_videos_are_normalised_with_channels_first() -> None:
    frames = still()
    video = as_seen(frames, "imagenet")
    assert video.shape == (3, 5, 40, 40)
    assert video.dtype == torch.float32
    assert video[1, 2, 3, 4].item() == pytest.approx(
        (frames[2, 3, 4, 1] / 255 - 0.456) / 0.224, 1e-4
    )
    video = as_seen(frames, "per_clip")
    assert video.mean().item() == pytest.approx(0, abs=1e-4)
    assert video.std().item() == pytest.approx(1, abs=1e-3)
    assert as_seen(np.zeros_like(frames), "per_clip").abs().max() == 0


def test_a_batch_is_normalised_each_clip_by_its_own_scale() -> None:
    clips = np.stack([still(), still() // 3])
    scales = np.stack([scale_of(clips[0], "per_clip"), scale_of(clips[1], "imagenet")])
    both = normalised(torch.from_numpy(clips), torch.from_numpy(scales))
    assert torch.equal(both[0], as_seen(clips[0], "per_clip"))
    assert torch.equal(both[1], as_seen(clips[1], "imagenet"))


def erased(seed: int, probability: float, height: int = 40, width: int = 30) -> torch.Tensor:
    """[3, 5, height, width] of sevens after erasing."""
    video = torch.full((1, 3, 5, height, width), 7.0)
    box = erased_box(height, width, probability, np.random.default_rng(seed))
    erase(video, torch.tensor([box]), torch.tensor([seed]))
    return video[0]


def test_without_erasing_the_video_stays_and_with_it_one_box_of_all_frames_is_noise() -> None:
    for seed in range(20):
        assert (erased(seed, 0.0) == 7).all()
        video = erased(seed, 1.0)
        noise = video != 7
        assert (noise == noise[:1, :1]).all()
        rows, columns = noise[0, 0].any(1).nonzero(), noise[0, 0].any(0).nonzero()
        box = video[
            :, :, int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1
        ]
        assert box.numel() == noise.sum() > 0
        assert len(box.unique()) > 0.99 * box.numel()  # each pixel, channel and frame its own


def test_erasing_is_a_function_of_its_seed_and_as_frequent_as_asked() -> None:
    assert torch.equal(erased(3, 1.0), erased(3, 1.0))
    assert not torch.equal(erased(3, 1.0), erased(4, 1.0))
    assert 65 < sum(bool((erased(seed, 0.25) != 7).any()) for seed in range(400)) < 135


def test_a_clip_s_noise_does_not_depend_on_the_clips_beside_it() -> None:
    video, boxes = torch.zeros(3, 3, 2, 24, 24), torch.tensor([[2, 3, 9, 8]] * 3)
    erase(video, boxes, torch.tensor([5, 6, 5]))
    alone = torch.zeros(1, 3, 2, 24, 24)
    erase(alone, boxes[:1], torch.tensor([6]))
    assert torch.equal(video[1], alone[0])
    assert torch.equal(video[0], video[2])
    assert not torch.equal(video[0], video[1])


def test_erased_boxes_are_distributed_as_timm_s() -> None:
    import_torchvision()
    from timm.data.random_erasing import RandomErasing

    timms, height, width, count = RandomErasing(1.0, mode="pixel", device="cpu"), 50, 40, 1500

    def measured(video: torch.Tensor) -> tuple[float, ...]:
        """Area, height to width, top, left, in parts of the frame; mean and deviation of noise."""
        rows, columns = (video[0] != 7).any(1).nonzero(), (video[0] != 7).any(0).nonzero()
        h, w = len(rows), len(columns)
        noise = video[video != 7]
        place = (int(rows.min()) / max(height - h, 1), int(columns.min()) / max(width - w, 1))
        return (
            h * w / (height * width),
            np.log(h / w),
            *place,
            float(noise.mean()),
            float(noise.std()),
        )

    ours, theirs = [], []
    state = random.getstate()
    random.seed(0)
    for seed in range(count):
        ours.append(measured(erased(seed, 1.0, height, width)[:, 0]))
        theirs.append(measured(timms(torch.full((3, height, width), 7.0))))
    random.setstate(state)
    for mine, reference in zip(np.array(ours).T, np.array(theirs).T, strict=True):
        assert ks_2samp(mine, reference).pvalue > 0.01
    assert min(mine[0] for mine in ours) > 0.015
    assert max(mine[0] for mine in ours) < 0.35
