"""Frames of one clip from disk. The only file that imports decord."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class ClipUnreadable(Exception):
    """A clip that is truncated, empty, no video, or a single frame."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_clip(
    path: Path,
    *,
    frames: int,
    seconds: float,
    position: float,
    short_side: int,
    frame_rate: float | None,
) -> np.ndarray:
    """uint8 [frames, H, W, 3] RGB, spread evenly over a window of `seconds`.

    Args:
        path: a video file, or a folder of jpg or png frames in the order of their names.
        seconds: length of the window; a shorter clip is used whole.
        position: 0 puts the window at the start of the clip, 1 at its end.
        short_side: pixels; larger frames are shrunk to it, smaller ones stay as they are.
        frame_rate: frames per second of a folder.

    Raises:
        ClipUnreadable: the reason, for one line.
    """
    reader = ClipReader(frames=frames, seconds=seconds, short_side=short_side, keep_bytes=0)
    return reader.read(path, position, frame_rate)


@dataclass(kw_only=True)
class ClipReader:
    """`read_clip` with a memory: clips that fit into the window read the same at every position,
    so their frames are kept, up to `keep_bytes` in all."""

    frames: int
    seconds: float
    short_side: int
    keep_bytes: int
    _kept: dict[Path, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    _room: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._room = self.keep_bytes

    def read(self, path: Path, position: float, frame_rate: float | None) -> np.ndarray:
        """As `read_clip`; the array may be the kept one: do not write to it."""
        kept = self._kept.get(path)
        if kept is not None:
            return kept
        read = _read_folder if path.is_dir() else _read_video
        video, whole = read(path, self, position, frame_rate)
        if whole and video.nbytes <= self._room:
            self._kept[path] = video
            self._room -= video.nbytes
        return video

    def window(self, length: int, rate: float, position: float) -> tuple[list[int], bool]:
        """The frames to read of `length` at `rate` per second, and if the window is the clip."""
        span = min(self.seconds * rate, length)
        start = position * (length - span)
        steps = start + (np.arange(self.frames) + 0.5) * span / self.frames
        return np.minimum(steps.astype(int), length - 1).tolist(), span == length

    def size(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width to shrink to; None to leave the frames as they are."""
        short = min(height, width)
        if short <= self.short_side:
            return None
        return (
            round(height * self.short_side / short),
            round(width * self.short_side / short),
        )


def _read_video(
    path: Path, reader: ClipReader, position: float, _frame_rate: float | None
) -> tuple[np.ndarray, bool]:
    import decord  # loads ffmpeg: only the processes that read video should

    try:
        # One thread: tiny clips open twice as fast, and the loader has processes of its own.
        video = decord.VideoReader(str(path), num_threads=1)
        length, rate = len(video), float(video.get_avg_fps())
        if length < 2 or not rate > 0:
            raise ClipUnreadable(path, f"has {length} frames at {rate} per second; 2 are needed")
        indices, whole = reader.window(length, rate, position)
        first = _packed(video.next())
        size = reader.size(*first.shape[:2])
        if size is not None:  # ffmpeg shrinks while it decodes, which is worth opening again
            height, width = size
            video = decord.VideoReader(str(path), width=width, height=height, num_threads=1)
            first = _packed(video.next())
        taken: dict[int, np.ndarray] = {0: first}
        for index in indices:
            if index not in taken:
                taken[index] = _packed(video[index])
    except (RuntimeError, IndexError, decord.DECORDError, decord.DECORDLimitReachedError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ClipUnreadable(path, reason[-1][-200:]) from None
    return np.stack([taken[index] for index in indices]), whole


def _packed(frame: Any) -> np.ndarray:
    """uint8 [H, W, 3] of a decord frame.

    decord 0.6 takes a row's padded length divided by its width for the number of channels: where
    that is not 3 (48 pixels wide: 4), the row is its W x 3 values and then padding.
    """
    array: np.ndarray = frame.asnumpy()
    height, width, channels = array.shape
    return array.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)


def _read_folder(
    path: Path, reader: ClipReader, position: float, frame_rate: float | None
) -> tuple[np.ndarray, bool]:
    assert frame_rate is not None, "check_files lets no folder pass without a frame rate"
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if len(files) < 2:
        raise ClipUnreadable(path, f"has {len(files)} frames; 2 are needed")
    indices, whole = reader.window(len(files), frame_rate, position)
    images = {index: _read_image(files[index], reader) for index in dict.fromkeys(indices)}
    if len({image.shape for image in images.values()}) > 1:
        raise ClipUnreadable(path, "its frames differ in size")
    return np.stack([images[index] for index in indices]), whole


def _read_image(file: Path, reader: ClipReader) -> np.ndarray:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise ClipUnreadable(file.parent, f"{file.name} is no image")
    size = reader.size(*image.shape[:2])
    if size is not None:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
