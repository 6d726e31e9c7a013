"""Carries what happens to the terminal and to MLflow, in one thread and in order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cluster.tracking import Tracker
from sweeps.plan import make_plan, price
from sweeps.prepare import Prepared
from sweeps.records import TrialRecord
from sweeps.stage_facts import describe
from sweeps.terminal import Terminal
from sweeps.trial_names import trial_name
from trainables.stage import TRAINED, Stage
from trainables.trial import trial_stages

Events = Callable[[int], tuple[list[dict[str, Any]], int]]  # since -> (events, next)
POLL_SECONDS = 0.5
PRICE_SECONDS = 60.0  # between two words on what is left to do


class Watch:
    """Trials' changes come by `changed`, stages' events are asked for through `follow`."""

    def __init__(self, prepared: Prepared, tracker: Tracker, terminal: Terminal) -> None:
        self._search = prepared.search
        self._data = prepared.data
        self._store = prepared.store
        self._costs = prepared.costs
        self._tracker = tracker
        self._terminal = terminal
        self._changed: queue.SimpleQueue[TrialRecord] = queue.SimpleQueue()
        known = self._search.known()
        self._stages = {s.identity: s for n in known for s in self._stages_of(n)}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._events: Events | None = None
        self._next_event = 0
        self._price_told = -PRICE_SECONDS

    def catch_up(self) -> None:
        """Bring MLflow to what the files say: an earlier process may have died between the two."""
        for record in self._search.records:
            if record.finished:
                self._track_trial(record)
                for stage in self._stages_of(record.number):
                    self._track_stage(stage.identity)

    def changed(self, record: TrialRecord) -> None:
        self._changed.put(record)

    def follow(self, events: Events) -> None:
        """Start the thread; `events` is polled until `stop`."""
        self._events = events
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell what is still to be told, then end."""
        self._stop.set()
        assert self._thread is not None, "follow comes first"
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while not self._changed.empty():
            record = self._changed.get()
            self._terminal.trial(record)
            self._track_trial(record)
        assert self._events is not None
        events, self._next_event = self._events(self._next_event)
        for event in events:
            self._stage_event(event)

    def _stage_event(self, event: dict[str, Any]) -> None:
        identity, kind, state = event["identity"], event["kind"], event["state"]
        stage = self._stages.get(identity)
        shown = dict(event)
        if stage is not None:
            shown["what"] = describe(stage)
            shown["epochs"] = stage.settings.get(kind, {}).get("epochs")
        self._terminal.stage(shown)
        if state == "progress":
            self._tracker.stage_progress(identity, kind, [event["point"]])
        elif state == "started":
            self._tracker.stage_progress(identity, kind, [])
        elif state in ("finished", "reused"):
            self._track_stage(identity)
        elif state == "failed":
            self._tracker.stage_failed(identity, kind, event["reason"])
        if state == "finished" and kind in TRAINED:
            self._tell_price()

    def _tell_price(self) -> None:
        if time.monotonic() < self._price_told + PRICE_SECONDS:
            return
        self._price_told = time.monotonic()
        self._costs.refresh()
        if to_do := price(make_plan(self._search.known(), 0, self._data, self._costs)):
            self._terminal.say(f"[dim]{to_do}[/dim]")

    def _track_stage(self, identity: str) -> None:
        record = self._store.record(identity)
        if record is not None:
            kind = record.stage["kind"]
            self._tracker.stage_progress(identity, kind, self._store.progress(identity))
            self._tracker.stage_finished(asdict(record))

    def _track_trial(self, record: TrialRecord) -> None:
        number = record.number
        if record.state == "waiting":
            return
        for stage in self._stages_of(number):
            self._stages[stage.identity] = stage
        run_id = self._tracker.trial_started(
            number,
            trial_name(record),
            self._search.config(record).model_dump(mode="json"),
            {"origin": record.origin},
        )
        if run_id:
            self._search.tracked(number, run_id)
        if record.rungs:
            epochs = self._search.config(record).align.epochs
            points = [
                {
                    "epoch": point.rung * epochs,
                    **{f"rung/{name}": value for name, value in point.accuracies.items()},
                }
                for point in record.rungs
            ]
            self._tracker.trial_progress(number, points)
        if record.state in ("complete", "failed", "pruned"):
            metrics = {f"accuracy/{name}": value for name, value in record.scores.items()}
            if record.score is not None:
                metrics = {"score": record.score, **metrics}
            roles = {_role(stage): stage.identity for stage in self._stages_of(number)}
            self._tracker.trial_finished(number, record.state, metrics, roles, record.reason)

    def _stages_of(self, number: int) -> list[Stage]:
        if number < len(self._search.records):
            config = self._search.config(self._search.records[number])
        else:
            config = self._search.known()[number][1]
        return list(trial_stages(config, self._data).all())


def _role(stage: Stage) -> str:
    """'align 0.5 scenes + 0.5 synthetic': unique within a trial."""
    return f"{stage.kind} {describe(stage)}".strip()
