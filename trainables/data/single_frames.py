"""Single frames of a clip, whole, or as windows in which nobody stands.

Masks of the people: for each clip of a dataset its masks lie at the same path under `masks`, as a
video or as a folder of images, one mask a frame, bright (128 and up, or 1 of 0 and 1) where a
person is. `human_removal` writes such folders.

A person that is painted over still shows by the outline, or by the place of a box, what the pose
was, and a pose may tell the class. So what is shown of a masked frame is a square window with no
person in it, drawn at random, of one size for all frames of a dataset: what was where is not seen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from trainables.data.catalog import Clip, Dataset
from trainables.data.clips import ClipReader
from trainables.data.video_files import ClipUnreadable
from trainables.training_settings import VideoReader

PERSON = 128  # of 255: HAT's threshold
MARGIN = 4 / 240  # of the short side, around a mask (HAT's at 240 lines), and pixels at least,
LEAST_MARGIN = 4  # for a codec smears what a person wears over its blocks
FITTING = 0.95  # part of the frames that have room for the window
LEAST_WINDOW = 8  # pixels; less shows no scene


@dataclass(kw_only=True)
class _WholeClips(ClipReader):
    """Frames spread over the whole clip; knows how many it had."""

    length: int = 0

    def window(self, length: int, rate: float, position: float) -> tuple[list[int], bool]:
        self.length = length
        return super().window(length, rate, position)


@dataclass(kw_only=True)
class SingleFrames:
    """Reads `frames` of a clip, evenly spread over it, `short_side` pixels at the most."""

    dataset: Dataset
    frames: int
    video_reader: VideoReader

    def whole(self, clip: Clip, short_side: int) -> list[np.ndarray]:
        """F frames, each uint8 [H, W, 3]. Raises ClipUnreadable."""
        return list(self._read(self.dataset.root / clip.path, short_side)[0])

    def windows(self, clip: Clip, side: float, resolution: int) -> list[np.ndarray] | None:
        """F windows, each uint8 [S, S, 3], S being `side` of the frame's short side.

        Of a frame without room for one, that of another frame; None: no frame has room.
        Raises ClipUnreadable.
        """
        path, short_side = self.dataset.root / clip.path, math.ceil(resolution / side)
        frames, length = self._read(path, short_side)
        masks, of_masks = self._masks(clip, short_side)
        if of_masks != length:
            raise ClipUnreadable(path, f"has {length} frames and {of_masks} masks")
        if masks.shape != frames.shape[:3]:
            found, wanted = (f"{each.shape[2]}x{each.shape[1]}" for each in (masks, frames))
            raise ClipUnreadable(path, f"its masks are {found}, its frames {wanted}")
        pixels = max(1, int(side * min(masks.shape[1:])))
        seed = hashlib.sha256(clip.path.encode()).digest()[:8]
        draw = np.random.default_rng(int.from_bytes(seed))
        tried = [_free_window(*pair, pixels, draw) for pair in zip(frames, masks, strict=True)]
        there = [window for window in tried if window is not None]
        if not there:
            return None
        return [there[i % len(there)] if each is None else each for i, each in enumerate(tried)]

    def free_sides(self, clip: Clip, short_side: int) -> list[float]:
        """Of each frame: the side of the largest window that fits, 0 to 1 of the short side.

        Raises ClipUnreadable.
        """
        masks = self._masks(clip, short_side)[0]
        return [largest_free_square(mask) / min(mask.shape) for mask in masks]

    def _masks(self, clip: Clip, short_side: int) -> tuple[np.ndarray, int]:
        """bool [F, H, W], with margin, and how many masks there are."""
        assert self.dataset.masks is not None
        path = self.dataset.masks / clip.path
        if not path.exists():
            raise ClipUnreadable(path, "there are no masks of this clip")
        read, length = self._read(path, short_side)
        values = read.max(axis=-1)
        people = values >= (1 if values.max() == 1 else PERSON)
        margin = max(LEAST_MARGIN, round(MARGIN * min(people.shape[1:])))
        around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
        masks = np.stack([cv2.dilate(mask.astype(np.uint8), around) > 0 for mask in people])
        return masks, length

    def _read(self, path: Path, short_side: int) -> tuple[np.ndarray, int]:
        reader = _WholeClips(
            frames=self.frames,
            seconds=math.inf,
            short_side=short_side,
            keep_bytes=0,
            video_reader=self.video_reader,
        )
        # Of the whole clip any frame rate gives the same frames.
        return reader.read(path, 0.0, self.dataset.frame_rate or 1.0), reader.length


def window_side(largest: Sequence[float]) -> float:
    """The side that FITTING of the frames have room for; `largest`: of each frame, 0 to 1."""
    return float(np.quantile(largest, 1 - FITTING, method="lower"))


def largest_free_square(mask: np.ndarray) -> int:
    """Side, in pixels, of the largest square that no True of `mask`, bool [H, W], is in."""
    low, high = 0, min(mask.shape)
    sums = cv2.integral(mask.astype(np.uint8))
    while low < high:
        side = (low + high + 1) // 2
        low, high = (side, high) if _corners(sums, side).size else (low, side - 1)
    return low


def _free_window(
    frame: np.ndarray, mask: np.ndarray, side: int, draw: np.random.Generator
) -> np.ndarray | None:
    corners = _corners(cv2.integral(mask.astype(np.uint8)), side)
    if not len(corners):
        return None
    y, x = corners[draw.integers(len(corners))]
    return frame[y : y + side, x : x + side]


def _corners(sums: np.ndarray, side: int) -> np.ndarray:
    """int [N, 2]: the upper left corners (y, x) of all free squares; `sums`: the integral image."""
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.argwhere(inside == 0)
