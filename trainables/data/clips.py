"""Frames of one clip from disk: a window in time of a video file, or of a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from trainables.data.video_files import ClipUnreadable, read_frames
from trainables.training_settings import VideoReader

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_clip(
    path: Path,
    *,
    frames: int,
    seconds: float,
    position: float,
    short_side: int,
    frame_rate: float | None,
    video_reader: VideoReader = "decord",
) -> np.ndarray:
    """uint8 [frames, H, W, 3] RGB, spread evenly over a window of `seconds`.

    Args:
        path: a video file, or a folder of jpg or png frames in the order of their names.
        seconds: length of the window; a shorter clip is used whole.
        position: 0 puts the window at the start of the clip, 1 at its end.
        short_side: pixels; larger frames are shrunk to it, smaller ones stay as they are.
        frame_rate: frames per second of a folder.
        video_reader: which library reads video files; both give the same frames, but of a video
            whose frames change size: decord stretches all to the first's, PyAV refuses it.

    Raises:
        ClipUnreadable: the reason, for one line.
    """
    reader = ClipReader(
        frames=frames,
        seconds=seconds,
        short_side=short_side,
        keep_bytes=0,
        video_reader=video_reader,
    )
    return reader.read(path, position, frame_rate)


@dataclass(kw_only=True)
class ClipReader:
    """`read_clip` with a memory: clips that fit into the window read the same at every position,
    so their frames are kept, up to `keep_bytes` in all."""

    frames: int
    seconds: float
    short_side: int
    keep_bytes: int
    video_reader: VideoReader = "decord"
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

    def shrunk(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] with `short_side` pixels as its short side, or as it is if smaller."""
        short = min(frame.shape[:2])
        if short <= self.short_side:
            return frame
        height, width = (round(side * self.short_side / short) for side in frame.shape[:2])
        return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def fitted(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [T, height, width, 3]: the middle of `frames` [T, H, W, 3], as large as fits."""
    own_height, own_width = frames.shape[1:3]
    scale = min(own_height / height, own_width / width)
    cut_height, cut_width = round(height * scale), round(width * scale)
    top, left = (own_height - cut_height) // 2, (own_width - cut_width) // 2
    cut = frames[:, top : top + cut_height, left : left + cut_width]
    way = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR  # areas, enlarged, are blocks
    return resized(cut, width, height, way)


def resized(frames: np.ndarray, width: int, height: int, interpolation: int) -> np.ndarray:
    """uint8 [T, height, width, 3] of [T, H, W, 3]; `interpolation` as OpenCV names it."""
    result = np.empty((len(frames), height, width, 3), np.uint8)
    for frame, to in zip(frames, result, strict=True):  # in place: fresh memory costs more
        cv2.resize(frame, (width, height), dst=to, interpolation=interpolation)
    return result


def _read_video(
    path: Path, reader: ClipReader, position: float, _frame_rate: float | None
) -> tuple[np.ndarray, bool]:
    whole = False

    def choose(length: int, rate: float) -> list[int]:
        nonlocal whole
        indices, whole = reader.window(length, rate, position)
        return indices

    frames = read_frames(path, reader.video_reader, choose, reader.shrunk)
    return _stacked(path, frames), whole


def _read_folder(
    path: Path, reader: ClipReader, position: float, frame_rate: float | None
) -> tuple[np.ndarray, bool]:
    assert frame_rate is not None, "check_files lets no folder pass without a frame rate"
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if len(files) < 2:
        raise ClipUnreadable(path, f"has {len(files)} frames; 2 are needed")
    indices, whole = reader.window(len(files), frame_rate, position)
    images = {index: _read_image(files[index], reader) for index in dict.fromkeys(indices)}
    return _stacked(path, [images[index] for index in indices]), whole


def _stacked(path: Path, frames: Sequence[np.ndarray]) -> np.ndarray:
    if len({frame.shape for frame in frames}) > 1:
        raise ClipUnreadable(path, "its frames differ in size")
    return np.stack(frames)


def _read_image(file: Path, reader: ClipReader) -> np.ndarray:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise ClipUnreadable(file.parent, f"{file.name} is no image")
    return cv2.cvtColor(reader.shrunk(image), cv2.COLOR_BGR2RGB)
