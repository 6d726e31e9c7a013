"""One clip anew: smaller, with key frames close together, so that a window is quick to read."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import av
import cv2

from trainables.data.clips import IMAGE_SUFFIXES
from trainables.data.video_files import ClipUnreadable, check_whole
from trainables.data.whole_files import write_whole


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a prepared clip is like. It changes pixels, so it belongs to the data's identity."""

    short_side: int  # pixels; smaller clips stay as they are
    gop: int  # frames from one key frame to the next
    crf: int  # x264's constant rate factor: 18 is about what the eye cannot tell

    def __str__(self) -> str:
        return f"short side {self.short_side}, gop {self.gop}, crf {self.crf}"


class Job(NamedTuple):
    source: Path  # a video file or a folder of frames
    target: Path
    frame_rate: float | None  # of frame folders


class Prepared(NamedTuple):
    job: Job
    state: Literal["made", "there", "unreadable"]
    reason: str = ""


def prepare_clips(jobs: Sequence[Job], recipe: Recipe) -> list[Prepared]:
    """Each clip made anew, unless it is there. One that cannot be read becomes an empty file:
    training finds it unreadable, as it would have found the original.

    Raises:
        OSError: the disk of the targets refuses, which says nothing of a clip.
    """
    return [_prepare(job, recipe) for job in jobs]


def died(job: Job) -> Prepared:
    return _unreadable(job, "the process that decoded it died")


def _prepare(job: Job, recipe: Recipe) -> Prepared:
    if job.target.exists():
        empty = job.target.stat().st_size == 0
        return Prepared(job, *(("unreadable", "found so before") if empty else ("there",)))
    try:
        reencode(job.source, job.target, recipe, job.frame_rate)
    except ClipUnreadable as error:
        return _unreadable(job, error.reason)
    return Prepared(job, "made")


def _unreadable(job: Job, reason: str) -> Prepared:
    job.target.parent.mkdir(parents=True, exist_ok=True)
    job.target.touch()
    return Prepared(job, "unreadable", reason)


def reencode(source: Path, target: Path, recipe: Recipe, frame_rate: float | None) -> None:
    """Write `target`, H.264 in mp4 whatever its name says, whole or not at all. No sound.

    Frame i of the one is frame i of the other. `frame_rate`: of a folder, in frames per second.

    Raises:
        ClipUnreadable: `source` cannot be read to its end, or has fewer than 2 frames.
        OSError: `target` cannot be written.
    """
    try:
        count, content = _encoded(source, recipe, frame_rate)
    except (av.FFmpegError, cv2.error) as error:
        raise ClipUnreadable(source, str(error)) from None
    if count < 2:
        raise ClipUnreadable(source, f"has {count} frames; 2 are needed")
    write_whole(target, content)


def _encoded(source: Path, recipe: Recipe, frame_rate: float | None) -> tuple[int, bytes]:
    """How many frames, and the file: in memory, so that no error of a disk is one of the clip."""
    rate, frames = _folder(source, frame_rate) if source.is_dir() else _file(source)
    count, file = 0, io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=rate)
                stream.width, stream.height = _size(frame.width, frame.height, recipe.short_side)
                odd = stream.width % 2 or stream.height % 2
                stream.pix_fmt = "yuv444p" if odd else "yuv420p"
                stream.codec_context.thread_count = 1  # there is a process for each core
                stream.options = {
                    **{"crf": str(recipe.crf), "preset": "veryfast", "sc_threshold": "0"},
                    **{"g": str(recipe.gop), "keyint_min": str(recipe.gop), "bf": "0"},
                    "tune": "fastdecode",  # half the time to read, for a fifth more bytes
                }
                stream.codec_context.colorspace = frame.colorspace
                stream.codec_context.color_range = frame.color_range
            small = frame.reformat(
                stream.width, stream.height, stream.pix_fmt, interpolation="AREA"
            )
            small.pts, small.time_base = count, 1 / rate
            count += 1
            container.mux(stream.encode(small))
        if stream is not None:
            container.mux(stream.encode(None))
    return count, file.getvalue()


def _file(source: Path) -> tuple[Fraction, Iterator[av.VideoFrame]]:
    check_whole(source)
    container = av.open(str(source))
    if not container.streams.video:
        container.close()
        raise ClipUnreadable(source, "has no video stream")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1

    def frames() -> Iterator[av.VideoFrame]:
        with container:
            yield from container.decode(stream)

    rate = stream.average_rate
    if not rate:
        container.close()
        raise ClipUnreadable(source, "states no frame rate")
    return Fraction(rate).limit_denominator(1001), frames()


def _folder(source: Path, frame_rate: float | None) -> tuple[Fraction, Iterator[av.VideoFrame]]:
    assert frame_rate is not None, "check_files lets no folder pass without a frame rate"
    files = sorted(file for file in source.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)

    def frames() -> Iterator[av.VideoFrame]:
        for file in files:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise ClipUnreadable(source, f"{file.name} is no image")
            yield av.VideoFrame.from_ndarray(image, format="bgr24")

    return Fraction(frame_rate).limit_denominator(1001), frames()


def _size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """The size to shrink to, in even numbers; as it is where it is small enough."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return 2 * round(width * short_side / short / 2), 2 * round(height * short_side / short / 2)
