"""The command, but it trains each stage in its own process, where the command asks Ray to.

All else is real: settings, search, stages, records, MLflow, report. For tests of what is told of
a sweep, on machines on which a Ray takes a minute to start.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sweeps import mixing, run
from sweeps.prepare import Prepared
from sweeps.reporting.summary import report_stages
from sweeps.watching.terminal import Terminal
from sweeps.watching.watch import Watch
from trainables.stage import Stage
from trainables.stages.run import run_stage
from trainables.trial import trial_stages


class TrainedHere:
    """Brings stages, and says of them what the `Stages` actor would."""

    def __init__(self, prepared: Prepared) -> None:
        self.store, self.data = prepared.store, prepared.data
        self.execution = prepared.sweep.settings.execution.tasks
        self._events: list[dict[str, Any]] = []
        self._running: Stage | None = None
        self._told = 0.0

    def bring(self, stage: Stage) -> None:
        for part in stage.chain():
            if self.store.record(part.identity) is not None:
                self._tell(part, "reused")
                continue
            self.store.begin_attempt(part.identity)
            self._tell(part, "started")
            self._running, self._told = part, 0.0
            run_stage(part, self.store, self.data, self.execution, lambda: False)
            self._running = None
            record = self.store.record(part.identity)
            assert record is not None
            self._tell(part, "finished", record=asdict(record))

    def events(self, since: int) -> tuple[list[dict[str, Any]], int]:
        if (running := self._running) is not None:
            for point in self.store.progress(running.identity):
                if point["epoch"] > self._told:
                    self._told = point["epoch"]
                    self._tell(running, "progress", point=point)
        return self._events[since:], len(self._events)

    def _tell(self, stage: Stage, state: str, **more: Any) -> None:
        event = {"identity": stage.identity, "kind": stage.kind, "state": state, "trials": []}
        self._events.append({**event, "time": time.time(), **more})


def run_what_is_not_done(prepared: Prepared, watch: Watch, terminal: Terminal) -> None:
    search, here = prepared.search, TrainedHere(prepared)
    if not search.unfinished():
        terminal.say("every trial is finished; nothing is trained")
        return
    watch.follow(here.events)
    while (assignment := search.ask()) is not None:
        parts = trial_stages(search.config(search.records[assignment.number]), prepared.data)
        for part in parts.searched():
            here.bring(part)
        found = {name: prepared.store.record(end.identity) for name, end in parts.scored.items()}
        accuracies = {name: record.metrics["accuracy"] for name, record in found.items() if record}
        stages = {f"{part.kind} {part.identity}": part.identity for part in parts.searched()}
        search.complete(assignment.number, accuracies, stages)
    for stage in report_stages(search, prepared.data):
        here.bring(stage)
    watch.stop()
    watch.catch_up()


if __name__ == "__main__":
    run._run_what_is_not_done = run_what_is_not_done
    sys.exit(mixing.main())
