"""What took each second of a stretch of time, over several processes; no second counts twice.

Functions are timed from outside. As workers import this before all else, it imports little.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Span:
    """One call: of which cause, from when to when (seconds since the epoch), of which thread."""

    cause: str
    began: float
    ended: float
    cpu: float = 0.0  # seconds of its thread
    process: int = 0
    thread: str = ""

    def is_here(self) -> bool:
        """Whether this process made the call."""
        return self.process == os.getpid()


def timed(owner: Any, name: str, cause: str, folder: Path) -> None:
    """From here on each call of `owner.name` is a line in the folder's file of this process."""
    setattr(owner, name, noted(getattr(owner, name), cause, folder))


def noted(function: Callable[..., Any], cause: str, folder: Path) -> Callable[..., Any]:
    """The same function; the calls that end leave a line, whoever kills the process later."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        began, cpu = time.time(), time.thread_time()
        try:
            return function(*arguments, **named)
        finally:
            note(folder, cause, began, time.time(), time.thread_time() - cpu)

    return call


def note(folder: Path, cause: str, began: float, ended: float, cpu: float = 0.0) -> None:
    line = [cause, repr(began), repr(ended), repr(cpu), threading.current_thread().name]
    with (folder / f"{os.getpid()}.spans").open("a") as file:
        file.write("\t".join(line) + "\n")


def read_spans(folder: Path) -> list[Span]:
    """Those of all processes."""
    found = []
    for file in folder.glob("*.spans"):
        for line in file.read_text().splitlines():
            cause, began, ended, cpu, thread = line.split("\t")
            times = float(began), float(ended), float(cpu)
            found.append(Span(cause, *times, process=int(file.stem), thread=thread))
    return found


def attributed(
    spans: Iterable[Span], order: Sequence[str], began: float, ended: float, rest: str
) -> dict[str, float]:
    """Seconds from `began` to `ended` by cause, which add up to all of them.

    Where several causes are at work, the first of `order` has the time: so name what is inside
    before what is around it. `rest` has what nobody has.
    """
    changes = [
        (min(max(when, began), ended), by, span.cause)
        for span in spans
        for when, by in ((span.began, 1), (span.ended, -1))
    ]
    found, active, at = dict.fromkeys([*order, rest], 0.0), Counter[str](), began
    for when, by, cause in [*sorted(changes), (ended, 0, rest)]:
        found[next((each for each in order if active[each]), rest)] += when - at
        at = when
        active[cause] += by
    return found
