"""Writes the report again and again while a sweep runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sweeps.searching.search import Search
from sweeps.watching.guarded import guarded

WRITE_SECONDS = 20.0  # between two reports
SHARE_OF_TIME = 0.05  # at most, of one core: a report of a thousand trials takes its time


class LiveReport:
    """A thread that calls `write` once trials have ended, until `stop`. Raises nothing."""

    def __init__(self, search: Search, write: Callable[[], object]) -> None:
        self._search, self._write = search, write
        self._written = self._finished()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _finished(self) -> int:
        return sum(record.finished for record in self._search.records)

    def _run(self) -> None:
        pause, write = WRITE_SECONDS, guarded(self._write_what_is_new)
        while not self._stop.wait(pause):
            began = time.monotonic()
            write()
            pause = max(WRITE_SECONDS, (time.monotonic() - began) / SHARE_OF_TIME)

    def _write_what_is_new(self) -> None:
        finished = self._finished()
        if finished != self._written:
            self._write()
            self._written = finished
