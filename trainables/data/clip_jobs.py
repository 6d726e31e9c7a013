"""The same work on every clip of a dataset, in processes that may die of it, with progress."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CHUNK = 8  # clips a worker is given at once

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Sequence[Job]], list[Result]],
    jobs: Sequence[Job],
    workers: int,
    died: Callable[[Job], Result],
    chunk: int = CHUNK,
) -> Generator[list[Result]]:
    """`work` on all jobs in spawned processes, `chunk` by chunk as they are done.

    A clip that kills the process that decodes it is found out; `died` says what comes of it.
    """
    waiting = deque(jobs[start : start + chunk] for start in range(0, len(jobs), chunk))
    while waiting:
        running: dict[Future[list[Result]], Sequence[Job]] = {}
        pool = _pool(workers)
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    running[pool.submit(work, waiting[0])] = waiting[0]
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    results = future.result()
                    del running[future]
                    yield results
        except BrokenProcessPool:
            suspects = [job for jobs_of_one in running.values() for job in jobs_of_one]
            for result in _one_by_one(work, suspects, died):
                yield [result]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def in_parallel(
    work: Callable[[Sequence[Job]], list[Result]],
    jobs: Sequence[Job],
    workers: int,
    died: Callable[[Job], Result],
) -> Iterator[list[Result]]:
    """`work` on all jobs, chunk by chunk as they are done: one worker is this process itself."""
    if workers == 1:
        for job in jobs:
            yield work([job])
        return
    chunks = in_processes(work, jobs, workers, died)
    try:
        yield from chunks
    finally:
        chunks.close()


def _one_by_one(
    work: Callable[[Sequence[Job]], list[Result]],
    jobs: Iterable[Job],
    died: Callable[[Job], Result],
) -> Iterator[Result]:
    """Each clip in a process that may die of it alone."""
    pool = _pool(1)
    try:
        for job in jobs:
            try:
                yield pool.submit(work, [job]).result()[0]
            except BrokenProcessPool:
                yield died(job)
                pool = _pool(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_leave_interrupts)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the first alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def with_progress(
    chunks: Iterable[list[Result]],
    name: str,
    total: int,
    note: Callable[[], str],
    console: Console,
    unit: str = "clips",
) -> Iterator[list[Result]]:
    """`chunks`, with a bar on a terminal and a line for every tenth elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    done, told = 0, 0
    terminal = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not terminal) as progress:
        bar = progress.add_task(name, total=total, note="")
        for chunk in chunks:
            done += len(chunk)
            yield chunk
            progress.update(bar, completed=done, note=note())
            if not terminal and 10 * done // total > told < 9:
                told = 10 * done // total
                more = f", {note()}" if note() else ""
                console.print(f"{name}: {done:,} of {total:,} {unit}{more}")
