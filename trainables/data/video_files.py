"""Frames of a video file, the same by decord and by PyAV. The only file that imports decord."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.data.file_ends import missing_bytes
from trainables.training_settings import VideoReader

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext

Choose = Callable[[int, float], Sequence[int]]  # frames, frames per second -> the frames to read
Shrink = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W, 3], at once, frame by frame


class ClipUnreadable(Exception):
    """A clip that is truncated, empty, no video, or a single frame."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_frames(
    path: Path, reader: VideoReader, choose: Choose, shrink: Shrink
) -> list[np.ndarray]:
    """The frames that `choose` asks for, in its order, each uint8 [H, W, 3] RGB after `shrink`.

    Frames are counted in the order in which they are shown.

    Raises:
        ClipUnreadable: the reason, for one line.
    """
    check_whole(path)
    read = _by_decord if reader == "decord" else _by_pyav
    taken = read(path, choose, shrink)
    return [taken[index] for index in taken.order]


def check_whole(path: Path) -> None:
    """Raises ClipUnreadable where a video file is missing or was cut off."""
    try:
        missing = missing_bytes(path)
    except OSError as error:
        raise ClipUnreadable(path, _last_line(error)) from None
    if missing:
        raise ClipUnreadable(path, f"was cut off: its last {missing} bytes are missing")


class _Taken(dict[int, np.ndarray]):
    """Index -> frame; `order` is what was asked for."""

    def __init__(self, path: Path, length: int, rate: float, choose: Choose) -> None:
        if length < 2 or not rate > 0:
            raise ClipUnreadable(path, f"has {length} frames at {rate} per second; 2 are needed")
        super().__init__()
        self.order = choose(length, rate)


def _by_decord(path: Path, choose: Choose, shrink: Shrink) -> _Taken:
    import decord  # loads ffmpeg: only the processes that read video should

    try:
        # One thread: tiny clips open twice as fast, and the loader has processes of its own.
        video = decord.VideoReader(str(path), num_threads=1)
        taken = _Taken(path, len(video), float(video.get_avg_fps()), choose)
        for index in dict.fromkeys(taken.order):
            taken[index] = shrink(_packed(video[index]))
    except (RuntimeError, IndexError, decord.DECORDError, decord.DECORDLimitReachedError) as error:
        raise ClipUnreadable(path, _last_line(error)) from None
    return taken


def _packed(frame: Any) -> np.ndarray:
    """uint8 [H, W, 3] of a decord frame.

    decord 0.6 takes a row's padded length divided by its width for the number of channels: where
    that is not 3 (48 pixels wide: 4), the row is its W x 3 values and then padding.
    """
    array: np.ndarray = frame.asnumpy()
    height, width, channels = array.shape
    return array.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)


def _by_pyav(path: Path, choose: Choose, shrink: Shrink) -> _Taken:
    """One pass over the packets' headers, then only what the wanted frames need is decoded."""
    import av  # as decord: only the processes that read video should load ffmpeg
    from av.video.reformatter import VideoReformatter

    to_rgb = VideoReformatter()  # one for all: each makes its own tables
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ClipUnreadable(path, "has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            packets = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size]
            if len(packets) < stream.frames:
                raise ClipUnreadable(path, f"holds {len(packets)} of its {stream.frames} frames")
            taken = _Taken(path, len(packets), float(stream.average_rate or 0), choose)
            needed = set(taken.order)
            for index, frame in _numbered(container, stream, packets, needed):
                if index in needed:
                    taken[index] = shrink(to_rgb.reformat(frame, format="rgb24").to_ndarray())
    except (av.FFmpegError, ValueError) as error:
        raise ClipUnreadable(path, _last_line(error)) from None
    if missing := needed - set(taken):
        raise ClipUnreadable(path, f"frame {min(missing)} cannot be decoded")
    return taken


def _numbered(
    container: Any, stream: Any, packets: list[tuple[int | None, bool]], needed: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames that are needed, with their numbers, and perhaps others."""
    times = [pts for pts, _ in packets if pts is not None]
    if len(set(times)) == len(packets):
        shown = sorted(times)
        wanted = {shown[index]: index for index in needed}
        for frame in _wanted(container, stream, _groups(packets), wanted.keys()):
            yield wanted[frame.pts], frame
        return
    container.seek(0, stream=stream)  # an avi may not say when a frame is shown
    for index, frame in enumerate(container.decode(stream)):
        yield index, frame
        if index == max(needed):
            return


def _wanted(
    container: Any, stream: Any, groups: list[list[int]], wanted: Set[int]
) -> Iterator[av.VideoFrame]:
    """The frames with the `wanted` time stamps, as they come.

    A group of packets from one key frame to the next stands by itself. Groups without a wanted
    frame are passed over; in the others, frames that no other refers to are left undecoded.
    """
    needed = [group for group in groups if not wanted.isdisjoint(group)]
    decoder: VideoCodecContext = stream.codec_context
    container.seek(needed[0][0], stream=stream)
    arriving = (packet for packet in container.demux(stream) if packet.size)
    for group in needed:
        last = max(place for place, pts in enumerate(group) if pts in wanted)
        here = {*group[: last + 1]}
        for packet in arriving:
            if packet.pts in here:
                here.remove(packet.pts)
                decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                yield from (frame for frame in decoder.decode(packet) if frame.pts in wanted)
            if not here:
                break
        yield from (frame for frame in decoder.decode(None) if frame.pts in wanted)
        decoder.flush_buffers()


def _groups(packets: list[tuple[int | None, bool]]) -> list[list[int]]:
    """Time stamps of packets, cut before each key frame that what follows it does not look behind.

    In an open group, frames that are shown before the key frame refer to the group before.
    """
    groups: list[list[int]] = []
    for pts, is_key in packets:
        assert pts is not None
        if is_key or not groups:
            groups.append([])
        groups[-1].append(pts)
    merged: list[list[int]] = []
    for group in groups:
        if merged and min(group) < group[0]:
            merged[-1] += group
        else:
            merged.append(group)
    return merged


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][-200:]
