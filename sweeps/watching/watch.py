"""Carries what happens to the terminal and to MLflow, in order; neither makes it wait."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from cluster.tracking import Tracker
from sweeps.planning.forecast import reported
from sweeps.planning.plan import make_plan
from sweeps.planning.plan_lines import price
from sweeps.planning.stage_facts import describe
from sweeps.prepare import Prepared
from sweeps.records import TrialRecord
from sweeps.reporting.curves import curve_stages
from sweeps.reporting.summary import report_stages
from sweeps.searching.trial_names import trial_name
from sweeps.watching.guarded import guarded
from sweeps.watching.terminal import Terminal
from trainables.stage import TRAINED, Stage
from trainables.stage_store import Record
from trainables.trial import trial_stages

Events = Callable[[int], tuple[list[dict[str, Any]], int]]  # since -> (events, next)
POLL_SECONDS = 0.5
PRICE_SECONDS = 60.0  # between two words on what is left to do


@dataclass(frozen=True)
class _Shown:
    """What a person is told of a stage. Thousands are kept, so the stage itself is not."""

    kind: str
    what: str
    epochs: int | None


class Watch:
    """Trials' changes come by `changed`, stages' events are asked for through `follow`."""

    def __init__(self, prepared: Prepared, tracker: Tracker, terminal: Terminal) -> None:
        self._search = prepared.search
        self._data = prepared.data
        self._store = prepared.store
        self._bias = prepared.bias_stages()
        self._costs = prepared.costs
        self._tracker = tracker
        self._terminal = terminal
        self._changed: queue.SimpleQueue[TrialRecord] = queue.SimpleQueue()
        self._shown: dict[str, _Shown] = {}  # stages by identity
        self._roles: dict[int, dict[str, str]] = {}  # trial -> role -> stage
        self._told: dict[int, TrialRecord] = {}  # trials as MLflow was last told of them
        self._nameless: set[int] = set()  # trials whose run MLflow has not named yet
        self._datasets: dict[str, list[str]] = {}  # stage -> those that it or its inputs name
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._events: Events | None = None
        self._next_event = 0
        self._price_told = -PRICE_SECONDS

    def catch_up(self) -> None:
        """Bring MLflow to what the files say.

        An earlier process may have died before it had sent all, and this one may have missed
        events. What MLflow knows already is not read.
        """
        opened = self._tracker.open_stages()
        for record in self._search.records:
            if record.finished:
                known = self._tracker.knows_trial(record.number, record.state)
                if opened or not known:
                    for identity in self._roles_of(record.number).values():
                        if identity in opened or not known:
                            self._track_stage(identity, record.reason)
                self._track_trial(record)
        if not self._search.unfinished():
            after = [
                *curve_stages(self._search, self._data),
                *report_stages(self._search, self._data),
                *self._bias,
            ]
            for stage in self._show(part for end in after for part in end.chain()):
                self._track_stage(stage.identity)

    def changed(self, record: TrialRecord) -> None:
        self._changed.put(record)

    def follow(self, events: Events) -> None:
        """Start the thread; `events` is polled until `stop`."""
        for number, (_, trial) in self._search.known().items():
            if number not in self._roles:
                self._show(trial_stages(trial, self._data).all())
        self._show(self._bias)
        self._events = events
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell what is still to be told, then end."""
        self._stop.set()
        assert self._thread is not None, "follow comes first"
        self._thread.join()

    def note_runs(self) -> None:
        """Write down the runs that MLflow has made for trials."""
        for number in sorted(self._nameless):
            if run := self._tracker.trial_run(number):
                self._search.tracked(number, run)
                self._nameless.discard(number)

    def _run(self) -> None:
        drain = guarded(self._drain)  # what it did not send, `catch_up` does
        while not self._stop.wait(POLL_SECONDS):
            drain()
        drain()

    def _drain(self) -> None:
        """Beginnings, then stages, then ends: a trial that has ended links its stages."""
        assert self._events is not None
        changed = self._changed.qsize()  # taken once the events that led to them are there
        events, self._next_event = self._events(self._next_event)
        changes = [self._changed.get() for _ in range(changed)]
        for record in changes:
            if not record.finished:
                self._trial_changed(record)
        for event in events:
            self._stage_event(event)
        for record in changes:
            if record.finished:
                self._trial_changed(record)
        self.note_runs()

    def _trial_changed(self, record: TrialRecord) -> None:
        self._roles_of(record.number)  # its stages have names before they are told
        self._terminal.trial(record)
        self._track_trial(record)

    def _stage_event(self, event: dict[str, Any]) -> None:
        identity, kind, state = event["identity"], event["kind"], event["state"]
        shown = dict(event)
        if stage := self._shown.get(identity):
            shown |= {"what": stage.what, "epochs": stage.epochs}
        self._terminal.stage(shown)
        if state == "progress":
            self._tracker.stage_progress(identity, kind, [event["point"]])
        elif state == "started":
            self._tracker.stage_progress(identity, kind, [])
        elif state in ("finished", "reused"):
            self._track_stage(identity)
        elif state in ("failed", "stopped"):
            self._tracker.stage_ended(identity, kind, state, event["reason"])
        if state == "finished" and kind in TRAINED:
            self._tell_price()

    def _tell_price(self) -> None:
        if time.monotonic() < self._price_told + PRICE_SECONDS:
            return
        self._price_told = time.monotonic()
        self._costs.refresh()
        known = self._search.known()
        in_full = reported(self._search)
        plan = make_plan(known, 0, self._data, self._costs, in_full, self._bias)
        if to_do := price(plan):
            self._terminal.say(f"[dim]{to_do}[/dim]")

    def _track_stage(self, identity: str, reason: str | None = None) -> None:
        """`reason`: of the trial that wanted it, if it has ended without it."""
        if self._tracker.knows_stage(identity):
            return
        record = self._store.record(identity)
        if record is not None:
            kind = record.stage["kind"]
            self._tracker.stage_progress(identity, kind, self._store.progress(identity))
            self._tracker.stage_finished(asdict(record), self._datasets_of(record))
        elif reason and not self._tracker.knows_stage(identity, unfinished=True):
            points, kind = self._store.progress(identity), self._shown[identity].kind
            if points or self._store.attempts(identity):
                self._tracker.stage_progress(identity, kind, points)
                self._tracker.stage_ended(
                    identity, kind, "failed" if identity in reason else "stopped", reason
                )

    def _track_trial(self, record: TrialRecord) -> None:
        number, before = record.number, self._told.get(record.number)
        if record.state == "waiting":
            return
        self._told[number] = record
        if record.mlflow_run_id is None:
            self._nameless.add(number)
        if before is None:
            if record.finished and self._tracker.knows_trial(number, record.state):
                return
            self._tracker.trial_started(
                number,
                trial_name(record),
                self._search.config(record).model_dump(mode="json"),
                {"origin": record.origin},
                _seconds(record.started_at),
            )
        if rungs := record.rungs[len(before.rungs) if before else 0 :]:
            epochs = self._search.config(record).align.epochs
            points = [
                {
                    "epoch": point.rung * epochs,
                    **{f"rung/{name}": value for name, value in point.accuracies.items()},
                }
                for point in rungs
            ]
            self._tracker.trial_progress(number, points, _seconds(record.started_at))
        if record.state in ("complete", "failed", "pruned") and not (before and before.finished):
            metrics = {f"accuracy/{name}": value for name, value in record.scores.items()}
            if record.score is not None:
                metrics = {"score": record.score, **metrics}
            for identity in self._roles_of(number).values():
                self._track_stage(identity)  # its events may have been lost
            self._tracker.trial_finished(
                number,
                record.state,
                metrics,
                self._roles_of(number),
                record.reason,
                _seconds(record.finished_at),
            )

    def _roles_of(self, number: int) -> dict[str, str]:
        """A trial's stages, all of them: 'align 0.5 scenes + 0.5 synthetic' -> identity."""
        if number not in self._roles:
            roles: dict[str, str] = {}
            config = self._search.config(self._search.records[number])
            for stage in self._show(trial_stages(config, self._data).all()):
                role = f"{stage.kind} {describe(stage)}".strip()
                roles[f"{role} {stage.identity[:6]}" if role in roles else role] = stage.identity
            self._roles[number] = roles
        return self._roles[number]

    def _show(self, stages: Iterable[Stage]) -> list[Stage]:
        stages = list(stages)
        for stage in stages:
            epochs = stage.settings.get(stage.kind, {}).get("epochs")
            self._shown[stage.identity] = _Shown(stage.kind, describe(stage), epochs)
        return stages

    def _datasets_of(self, record: Record) -> list[str]:
        if record.identity not in self._datasets:
            inputs = map(self._store.record, record.stage["inputs"].values())
            inherited = {name for each in inputs if each for name in self._datasets_of(each)}
            self._datasets[record.identity] = sorted(record.stage["data"] or inherited)
        return self._datasets[record.identity]


def _seconds(iso: str | None) -> float:
    """Since the epoch; now for a trial that failed before it began."""
    return datetime.fromisoformat(iso).timestamp() if iso else time.time()
