"""The operations of RandAugment on all frames of a clip, uint8 [T, H, W, 3], each as PIL does it.

By OpenCV, which takes a fraction of PIL's time. What looks a pixel up in a table gives PIL's very
values, blends with a neighbourhood differ by 1 at most, and what moves pixels has OpenCV's bicubic
kernel (a = -0.75; PIL's has -0.5) and blends with the gray outside along the border.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

OUTSIDE = (128, 128, 128)  # timm's fill
LUMA = np.array([19595, 38470, 7471]) / 65536  # PIL's ITU-R 601-2
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13  # PIL's ImageFilter.SMOOTH
VALUES = np.arange(256)


def auto_contrast(frames: np.ndarray) -> np.ndarray:
    """Each frame's and channel's darkest value becomes 0, its brightest 255."""
    return _by_histogram(frames, _stretched)


def equalize(frames: np.ndarray) -> np.ndarray:
    return _by_histogram(frames, _equalized)


def invert(frames: np.ndarray) -> np.ndarray:
    return 255 - frames


def posterize(frames: np.ndarray, bits: int) -> np.ndarray:
    return _looked_up(frames, VALUES & ~(2 ** (8 - bits) - 1))


def solarize(frames: np.ndarray, threshold: int) -> np.ndarray:
    return _looked_up(frames, np.where(threshold > VALUES, VALUES, 255 - VALUES))


def solarize_add(frames: np.ndarray, added: int) -> np.ndarray:
    return _looked_up(frames, np.where(VALUES < 128, np.minimum(VALUES + added, 255), VALUES))


def brightness(frames: np.ndarray, factor: float) -> np.ndarray:
    return _looked_up(frames, _blend(0, factor))


def contrast(frames: np.ndarray, factor: float) -> np.ndarray:
    """Away from, or towards, each frame's own mean gray."""
    changed = np.empty(frames.shape, np.uint8)
    for frame, to in zip(frames, changed, strict=True):
        gray = int(cv2.mean(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))[0] + 0.5)
        to[:] = _looked_up(frame, _blend(gray, factor))
    return changed


def color(frames: np.ndarray, factor: float) -> np.ndarray:
    matrix = factor * np.eye(3) + (1 - factor) * LUMA
    rows = np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3)
    # PIL cuts off where OpenCV rounds.
    return cv2.transform(rows, np.hstack([matrix, np.full((3, 1), -0.5)])).reshape(frames.shape)


def sharpness(frames: np.ndarray, factor: float) -> np.ndarray:
    kernel = (1 - factor) * SMOOTH
    kernel[1, 1] += factor
    changed = frames.copy()
    for frame, to in zip(frames, changed, strict=True):  # PIL leaves the outermost pixels
        to[1:-1, 1:-1] = cv2.filter2D(frame, -1, kernel, delta=-0.5)[1:-1, 1:-1]
    return changed


def shear_x(frames: np.ndarray, factor: float) -> np.ndarray:
    return _moved(frames, (1, factor, 0), (0, 1, 0))


def shear_y(frames: np.ndarray, factor: float) -> np.ndarray:
    return _moved(frames, (1, 0, 0), (factor, 1, 0))


def translate_x(frames: np.ndarray, part: float) -> np.ndarray:
    return _moved(frames, (1, 0, part * frames.shape[2]), (0, 1, 0))


def translate_y(frames: np.ndarray, part: float) -> np.ndarray:
    return _moved(frames, (1, 0, 0), (0, 1, part * frames.shape[1]))


def rotate(frames: np.ndarray, degrees: float) -> np.ndarray:
    """Counter-clockwise around the middle."""
    height, width = frames.shape[1:3]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return _moved(frames, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


# By timm's names.
OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "PosterizeIncreasing": posterize,
    "SolarizeIncreasing": solarize,
    "SolarizeAdd": solarize_add,
    "ColorIncreasing": color,
    "ContrastIncreasing": contrast,
    "BrightnessIncreasing": brightness,
    "SharpnessIncreasing": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateXRel": translate_x,
    "TranslateYRel": translate_y,
}


def _looked_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`table` [256], or [256, 3] of each channel, at every value."""
    return cv2.LUT(
        np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-2], 3),
        np.broadcast_to(table.reshape(256, 1, -1), (256, 1, 3)).astype(np.uint8),
    ).reshape(pixels.shape)


def _blend(other: int, factor: float) -> np.ndarray:
    """[256]: `other` + factor x (value - `other`), cut off as PIL's Image.blend does."""
    blended = np.float32(other) + np.float32(factor) * (VALUES - other).astype(np.float32)
    return np.clip(blended, 0, 255).astype(np.uint8)


def _by_histogram(frames: np.ndarray, table: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Every frame looked up in a table of each channel's own, which its histogram [256] gives."""
    changed = np.empty(frames.shape, np.uint8)
    for frame, to in zip(frames, changed, strict=True):
        counts = [
            cv2.calcHist([frame], [c], None, [256], [0, 256]).ravel().astype(np.int64)
            for c in range(3)
        ]
        to[:] = _looked_up(frame, np.stack([table(each) for each in counts], axis=1))
    return changed


def _stretched(counts: np.ndarray) -> np.ndarray:
    there = counts.nonzero()[0]
    low, high = int(there[0]), int(there[-1])
    if high <= low:
        return VALUES
    scale = 255.0 / (high - low)
    return np.clip((VALUES * scale - low * scale).astype(int), 0, 255)


def _equalized(counts: np.ndarray) -> np.ndarray:
    there = counts[counts > 0]
    step = int(there.sum() - there[-1]) // 255
    if step == 0:
        return VALUES
    return np.minimum((step // 2 + np.cumsum(counts) - counts) // step, 255)


def _moved(frames: np.ndarray, to_x: tuple[float, ...], to_y: tuple[float, ...]) -> np.ndarray:
    """Where each pixel comes from: x = a x' + b y' + c, in PIL's coordinates, whose pixels have
    their middle at one half."""
    matrix = np.array([to_x, to_y], dtype=np.float64)
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    moved = np.empty(frames.shape, np.uint8)
    for frame, to in zip(frames, moved, strict=True):
        cv2.warpAffine(
            frame,
            matrix,
            frame.shape[1::-1],
            dst=to,
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=OUTSIDE,
        )
    return moved
