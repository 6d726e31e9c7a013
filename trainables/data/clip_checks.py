"""What is wrong with a clip on disk, found by decoding it as training does, in many processes."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from trainables.data.clips import ClipReader, ClipUnreadable

PROBLEMS = {
    "missing": "it is not on disk",
    "unreadable": "it cannot be opened or decoded; training replaces it by another clip, and "
    "stops when more than a sweep's max_unreadable are so",
    "short": "its window holds fewer frames than asked; training repeats some",
}
CHUNK = 8  # clips a worker is given at once
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
    """`check_clips` in spawned processes, chunk by chunk as they are done.

    A clip that kills the process that decodes it is found out and told as unreadable.
    """
    waiting = deque(jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK))
    while waiting:
        running: dict[Future[list[Found]], Sequence[Job]] = {}
        pool = _pool(workers)
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    running[pool.submit(check_clips, waiting[0], frames, seconds)] = waiting[0]
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    found = future.result()
                    del running[future]
                    yield found
        except BrokenProcessPool:
            suspects = [job for chunk in running.values() for job in chunk]
            for found_alone in _one_by_one(suspects, frames, seconds):
                yield [found_alone]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_by_one(jobs: Iterable[Job], frames: int, seconds: float) -> Iterator[Found]:
    """Each clip in a process that may die of it alone."""
    pool = _pool(1)
    try:
        for job in jobs:
            try:
                yield pool.submit(check_clips, [job], frames, seconds).result()[0]
            except BrokenProcessPool:
                yield Found(job.path, "unreadable", "the process that decoded it died")
                pool = _pool(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_leave_interrupts)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the first alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
