"""From the frames of a clip to what the model sees: one draw, the same for all its frames.

Pixels stay uint8 until they are on the device: there a batch is normalised and erased as one.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from trainables.data.clips import resized
from trainables.data.rand_augment import rand_augment
from trainables.training_settings import AugmentSettings, Normalize

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


def scale_of(frames: np.ndarray, normalize: Normalize) -> np.ndarray:
    """float32 [2, 3], for `normalised`: what is subtracted from each channel, what then divides it.

    Of uint8 [T, H, W, 3]. `per_clip`: mean and standard deviation over all values of the clip;
    `imagenet`: a mean and a deviation of each channel that are always the same.
    """
    if normalize == "imagenet":
        return np.array([IMAGENET_MEAN, IMAGENET_STD], np.float32) * 255
    rows = np.ascontiguousarray(frames).reshape(-1, frames.shape[2] * 3)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(rows))
    return np.array([[mean] * 3, [max(deviation, 1.0)] * 3], np.float32)  # black stays black


def normalised(frames: Tensor, scale: Tensor) -> Tensor:
    """float32 [B, 3, T, H, W] of uint8 [B, T, H, W, 3], by each clip's `scale` [B, 2, 3].

    Channels lie next to each other in memory, as they come and as convolutions like them.
    """
    width = frames.shape[3]
    # Along whole rows: a CPU is slow where it is told so of three channels at a time.
    by_row = scale.view(-1, 2, 3).repeat(1, 1, width).view(-1, 2, 1, 1, 3 * width)
    subtracted, divisor = by_row.unbind(dim=1)
    rows = frames.flatten(3).float().sub_(subtracted).div_(divisor)
    return rows.view(frames.shape).permute(0, 4, 1, 2, 3)


def erased_box(
    height: int, width: int, probability: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """With `probability`, a box of a frame to erase: top, left, height, width; else all 0.

    Its area and aspect ratio are drawn as in Zhong et al. 2020, with the bounds of timm and
    VideoMAE; where no box fits, nothing is erased.
    """
    if not rng.random() < probability:
        return 0, 0, 0, 0
    log_ratio = np.log(ERASED_RATIO)
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*ERASED_AREA)
        ratio = math.exp(rng.uniform(*log_ratio))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return 0, 0, 0, 0


def erase(video: Tensor, boxes: Tensor, seeds: Tensor) -> None:
    """Fill the box [4] of each clip of `video`, float32 [B, 3, T, H, W], in place with N(0, 1).

    A box is the same in all frames, the noise is not: it follows from the clip's seed and the kind
    of device. `boxes` [B, 4] and `seeds` [B] are on the host.
    """
    for clip, (top, left, height, width), seed in zip(
        video, boxes.tolist(), seeds.tolist(), strict=True
    ):
        if height:
            generator = torch.Generator(video.device).manual_seed(seed)
            clip[:, :, top : top + height, left : left + width].normal_(generator=generator)


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
    """Bilinear, as torchvision resizes tensors; to less than half, means of areas: no aliases."""
    if frames.shape[1:3] == (height, width):
        return frames
    halved = frames.shape[1] > 2 * height or frames.shape[2] > 2 * width
    method = cv2.INTER_AREA if halved else cv2.INTER_LINEAR
    return resized(frames, width, height, method)


def _jitter(frames: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Each change mixes a pixel with black, the clip's mean gray, or its own gray: all affine."""
    brightness, contrast, saturation = factors
    rows = np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3)
    mean_gray = brightness * GRAY @ cv2.mean(rows)[:3]
    color = saturation * np.eye(3) + (1 - saturation) * GRAY  # keeps gray, so the order is free
    offset = np.full((3, 1), (1 - contrast) * mean_gray)
    matrix = np.hstack([brightness * contrast * color, offset])
    return cv2.transform(rows, matrix).reshape(frames.shape)  # rounds and saturates
