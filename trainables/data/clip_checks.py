"""What is wrong with a clip on disk, found by decoding it as training does, in many processes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from trainables.data.clip_jobs import in_processes
from trainables.data.clips import ClipReader
from trainables.data.video_files import ClipUnreadable

PROBLEMS = {
    "missing": "it is not on disk",
    "unreadable": "it cannot be opened or decoded; training replaces it by another clip, and "
    "stops when more than a sweep's max_unreadable are so",
    "short": "its window holds fewer frames than asked; training repeats some",
}
SHORT_SIDE = 256  # pixels; as decoded for training at 224


class Job(NamedTuple):
    path: Path
    frame_rate: float | None  # of frame folders


class Found(NamedTuple):
    """A clip with its problem: a key of PROBLEMS, or "" for a sound clip."""

    path: Path
    problem: str
    reason: str


@dataclass(kw_only=True)
class _Window(ClipReader):
    """A reader that remembers how many different frames its last window had."""

    distinct: int = 0

    def window(self, length: int, rate: float, position: float) -> tuple[list[int], bool]:
        indices, whole = super().window(length, rate, position)
        self.distinct = len(set(indices))
        return indices, whole


def check_clips(jobs: Sequence[Job], frames: int, seconds: float) -> list[Found]:
    """What is wrong with each clip, in this process."""
    reader = _Window(frames=frames, seconds=seconds, short_side=SHORT_SIDE, keep_bytes=0)
    return [_check(job, reader) for job in jobs]


def _check(job: Job, reader: _Window) -> Found:
    if not job.path.exists():
        return Found(job.path, "missing", "does not exist")
    if job.frame_rate is None and job.path.is_dir():
        reason = "is a folder of frames, and the catalog entry gives no frame_rate"
        return Found(job.path, "unreadable", reason)
    try:
        reader.read(job.path, 1.0, job.frame_rate)  # a file that was cut off lacks its end
    except ClipUnreadable as error:
        return Found(job.path, "unreadable", error.reason)
    except OSError as error:
        return Found(job.path, "unreadable", str(error))
    if reader.distinct < reader.frames:
        reason = f"{reader.distinct} frames in {reader.seconds:g} s, {reader.frames} are asked"
        return Found(job.path, "short", reason)
    return Found(job.path, "", "")


def check_in_processes(
    jobs: Sequence[Job], frames: int, seconds: float, workers: int
) -> Generator[list[Found]]:
    """`check_clips` in processes, chunk by chunk as they are done."""
    check = partial(check_clips, frames=frames, seconds=seconds)
    return in_processes(check, jobs, workers, died)


def died(job: Job) -> Found:
    return Found(job.path, "unreadable", "the process that decoded it died")
