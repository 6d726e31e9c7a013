"""From the frames of a clip to what the model sees: one draw, the same for all its frames."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
import torch

from trainables.data.rand_augment import rand_augment
from trainables.training_settings import AugmentSettings

TRAINING_MARGIN = 256 / 224  # short side that is read / side that is trained on (PPMA, as I3D)
CROP_ATTEMPTS = 10
ERASED_AREA = (0.02, 1 / 3)  # of the frame
ERASED_RATIO = (0.3, 1 / 0.3)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GRAY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma


def augment(
    frames: np.ndarray, settings: AugmentSettings, size: int, rng: np.random.Generator
) -> np.ndarray:
    """A random view, uint8 [T, size, size, 3], of `frames`, uint8 [T, H, W, 3].

    Random resized crop (area and aspect ratio drawn as in Szegedy et al. 2015), then a flip with
    probability 1/2, then brightness, contrast and saturation times 1 +- `jitter`, then RandAugment.
    """
    top, left, height, width = _random_crop(frames.shape[1], frames.shape[2], settings, rng)
    view = _resize(frames[:, top : top + height, left : left + width], size, size)
    if settings.flip and rng.random() < 0.5:
        view = view[:, :, ::-1]
    if settings.jitter > 0:
        view = _jitter(view, 1 + settings.jitter * rng.uniform(-1, 1, 3))
    if settings.rand_augment is not None:
        view = rand_augment(view, settings.rand_augment, rng)
    return view


def resample(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [T, H, W, 3], resized to `width` x `height` pixels and back to H x W.

    What every pixel of a video whose humans were removed has been through (HAT: 432 x 240).
    """
    return _resize(_resize(frames, height, width), *frames.shape[1:3])


def square_crops(frames: np.ndarray, size: int, count: int) -> list[np.ndarray]:
    """`count` squares of uint8 [T, H, W, 3], each resized to uint8 [T, size, size, 3].

    Their side is the shorter side of the frames. One is in the middle; more are spread evenly
    along the longer side, from its start to its end.
    """
    height, width = frames.shape[1:3]
    side, room = min(height, width), abs(height - width)
    starts = [room * i // (count - 1) for i in range(count)] if count > 1 else [room // 2]
    wide = width > height
    squares = [
        frames[:, :, start : start + side] if wide else frames[:, start : start + side]
        for start in starts
    ]
    return [_resize(square, size, size) for square in squares]


def to_video(frames: np.ndarray, normalize: Literal["imagenet", "per_clip"]) -> torch.Tensor:
    """float32 [3, T, H, W] of uint8 [T, H, W, 3].

    `per_clip`: mean 0 and standard deviation 1 over all values of the clip; `imagenet`: the fixed
    mean and deviation of each channel.
    """
    video = np.ascontiguousarray(frames.transpose(3, 0, 1, 2), dtype=np.float32)
    if normalize == "per_clip":
        video -= video.mean()
        video /= max(float(video.std()), 1.0)  # a black clip stays black
    else:
        video /= 255
        video -= np.array(IMAGENET_MEAN, np.float32)[:, None, None, None]
        video /= np.array(IMAGENET_STD, np.float32)[:, None, None, None]
    return torch.from_numpy(video)


def erase(video: torch.Tensor, probability: float, rng: np.random.Generator) -> None:
    """With `probability`, fill one box of `video`, float32 [3, T, H, W], in place with N(0, 1).

    The box is the same in all frames, the noise is not. Its area and aspect ratio are drawn as in
    Zhong et al. 2020, with the bounds of timm and VideoMAE; where no box fits, nothing is erased.
    """
    if not rng.random() < probability:
        return
    frames, height, width = video.shape[1:]
    log_ratio = np.log(ERASED_RATIO)
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*ERASED_AREA)
        ratio = math.exp(rng.uniform(*log_ratio))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = rng.standard_normal((3, frames, h, w), dtype=np.float32)
            video[:, :, top : top + h, left : left + w] = torch.from_numpy(noise)
            return


def _random_crop(
    height: int, width: int, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width, in pixels."""
    log_ratio = np.log(settings.crop_ratio)
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*settings.crop_scale)
        ratio = math.exp(rng.uniform(*log_ratio))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    # No crop fits (a frame that is long and narrow): the largest of an allowed ratio.
    ratio = min(max(width / height, settings.crop_ratio[0]), settings.crop_ratio[1])
    h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def _resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = frames.shape[1] > height and frames.shape[2] > width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (width, height), interpolation=method) for frame in frames])


def _jitter(frames: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Each change mixes a pixel with black, the clip's mean gray, or its own gray: all affine."""
    brightness, contrast, saturation = factors
    rows = np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3)
    mean_gray = brightness * GRAY @ cv2.mean(rows)[:3]
    color = saturation * np.eye(3) + (1 - saturation) * GRAY  # keeps gray, so the order is free
    offset = np.full((3, 1), (1 - contrast) * mean_gray)
    matrix = np.hstack([brightness * contrast * color, offset])
    return cv2.transform(rows, matrix).reshape(frames.shape)  # rounds and saturates
