"""What a running sweep says of itself in its folder, for whoever looks at it from elsewhere.

`plan.json`: the stages that are known of, with what tells them apart and what prices them.
`stages.json`: what runs and waits, written on a change and at least every BEAT_SECONDS, so that
silence means that the process is dead. `usage.json`: see `usage`, written with it. Nothing reads
them to continue but that sum: the records are the state.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from sweeps.planning.costs import rate_key
from sweeps.planning.stage_facts import describe, stage_clips
from sweeps.records import write_json
from sweeps.searching.search import Search
from sweeps.watching.guarded import guarded
from sweeps.watching.usage import USAGE, Usage
from trainables.data.catalog import Dataset
from trainables.stage import Stage, canonical_hash
from trainables.trial import trial_stages

PLAN, STAGES = "plan.json", "stages.json"
CHANGE_SECONDS = 2.0  # a change is written this soon, and not more often
BEAT_SECONDS = 10.0


class Stages(Protocol):
    """See the `Stages` actor; asked every CHANGE_SECONDS."""

    def status(self) -> list[dict[str, Any]]: ...
    def usage(self) -> dict[str, dict[str, float]]: ...


class Heartbeat:
    """A thread that writes these from `start` to `stop`. A storage that refuses is waited for."""

    def __init__(
        self, search: Search, data: Mapping[str, Dataset], stages: Stages, usage: Usage
    ) -> None:
        """`usage`: of the sweep's earlier lives."""
        self._search, self._data, self._stages = search, data, stages
        self._usage, self._counted = usage, time.monotonic()
        self._planned: dict[str, dict[str, Any]] = {}  # identity -> what plan.json says of it
        self._known = 0  # trials whose stages are planned
        for number, (_, trial) in search.known().items():
            self._plan(trial_stages(trial, data).searched(), number)
            self._known = number + 1
        self._plan_written = False
        self._last: list[dict[str, Any]] | None = None
        self._last_time = 0.0
        self._began = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def expect(self, stages: Iterable[Stage]) -> None:
        """More stages, which no trial needs."""
        for stage in stages:
            self._plan(stage.chain(), None)
        self._plan_written = False

    def stop(self) -> None:
        """Say that the end was orderly."""
        self._stop.set()
        self._thread.join()
        self._write(USAGE, self._usage.as_json())
        self._write(STAGES, self._state([], ended=True))

    def _run(self) -> None:
        beat = guarded(self.beat)  # the actor may be away, and a record not to be read
        while not self._stop.is_set():
            beat()
            self._stop.wait(CHANGE_SECONDS)

    def beat(self) -> None:
        """Write what has changed, or that nothing has."""
        records = self._search.records
        for record in records[self._known :]:
            trial = self._search.config(record)
            self._plan(trial_stages(trial, self._data).searched(), record.number)
            self._known, self._plan_written = record.number + 1, False
        if not self._plan_written:
            plan = {
                "trials": self._search.trials,
                "known": self._known,
                "stages": dict(self._planned),
            }
            self._plan_written = self._write(PLAN, plan)
        stages = self._stages.status()
        now = time.monotonic()
        self._usage = self._usage.later(now - self._counted, self._stages.usage())
        self._counted = now
        if stages != self._last or time.time() - self._last_time >= BEAT_SECONDS:
            self._write(USAGE, self._usage.as_json())
            if self._write(STAGES, self._state(stages, ended=False)):
                self._last, self._last_time = stages, time.time()

    def _plan(self, stages: Iterable[Stage], trial: int | None) -> None:
        for stage in stages:
            if stage.identity not in self._planned:
                self._planned[stage.identity] = {
                    "kind": stage.kind,
                    "what": describe(stage),
                    "epochs": _epochs(stage),
                    "clips": stage_clips(stage, self._data),
                    "like": canonical_hash(rate_key(stage.kind, stage.settings)),
                    "trials": [],
                }
            if trial is not None:
                self._planned[stage.identity]["trials"].append(trial)

    def _state(self, stages: list[dict[str, Any]], *, ended: bool) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "began": self._began,
            "time": time.time(),
            "ended": ended,
            "stages": stages,
        }

    def _write(self, name: str, data: Any) -> bool:
        try:
            write_json(self._search.folder.impatient(), name, data)
        except OSError:  # tried again with the next beat; training does not stop for it
            return False
        return True


def _epochs(stage: Stage) -> int | None:
    """How many epochs it trains; None if it does not."""
    parts = [part for part in stage.settings.values() if isinstance(part, Mapping)]
    return next((part["epochs"] for part in parts if "epochs" in part), None)
