"""The causes of `overhead.py`: where the time of a sweep of no-op trials goes, beside no training.

Functions are timed from outside, in the driver, in the trials' processes and in the workers; what
happened to stages is known by the events that the driver hears of.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.orchestration import through_ray
from benchmarks.timeline import Span, attributed, note, noted, read_spans, timed

# What is inside stands before what is around it.
OPTUNA = "Optuna: ask and tell"
RECORD = "the trial's record"
SEARCH = "search, beside these"
WRITES = "storage of stages: files written, deleted"
READS = "storage of stages: files read, listed"
GANG = "stage on a warm gang of Ray Train"
TASK = "stages as Ray tasks"
QUEUE = "stages' queue"
PROCESS = "the trial's process: settings, calls"
TUNE = "Tune: its loop, its actor"
A_TRIAL = (OPTUNA, RECORD, SEARCH, WRITES, READS, GANG, TASK, QUEUE, TUNE, PROCESS)
TELLS = "telling MLflow"  # in a thread beside the search
IMPORTS = "imports of Ray and Tune"
LATER = "the trials after the first, beside that"
FIRST_GANG, FIRST_TASK = "Ray Train's first gang", "the first Ray task"
SEARCHING = "Tune's start and end"
ONCE = {  # functions of sweeps.run: theirs
    "prepare": "settings, data, plan",
    "_print_prepared": "settings, data, plan",
    "start_tracker": "MLflow opens",
    "_send_the_rest": "MLflow gets the rest",
    "_write_answer": "report, answer",
}
RAY, AFTER = "Ray starts and stops", "after the search: bias, report split"
A_SWEEP = (
    *(FIRST_GANG, FIRST_TASK, LATER, SEARCHING, RAY, AFTER),
    *dict.fromkeys(ONCE.values()),
)
REST, IN_ALL = "everything else", "in all"
COMMAND = "the command"
MLFLOW = "mlflow"
THREADS = {  # of the driver, beside Tune's: theirs
    MLFLOW: "MLflow's thread",
    "watch": "telling MLflow and the terminal",
    "heartbeat": "the state for --status",
    "report": "the report so far",
}
AT_START = """from pathlib import Path

from benchmarks.no_op_stage import stand_in
from benchmarks.timeline import timed
from trainables.storage.local_files import LocalFiles

stand_in()
for name in ("write", "create", "delete", "remove"):
    timed(LocalFiles, name, {writes!r}, Path({folder!r}))
for name in ("read", "listed"):
    timed(LocalFiles, name, {reads!r}, Path({folder!r}))
"""


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.folder / "spans"
    folder.mkdir()
    began = time.time()
    import ray

    import cluster.tune
    from cluster.stages_handle import StagesHandle

    note(folder, IMPORTS, began, time.time())
    from cluster.tracking import Tracker
    from search_spaces.study import Study
    from sweeps import run
    from sweeps.searching.search import Search

    for owner, names, cause in (
        (Study, ("ask", "add", "tell"), OPTUNA),
        (Search, ("_write",), RECORD),
        (Search, ("ask", "complete"), SEARCH),
        (Tracker, ("trial_started", "stage_progress", "stage_finished", "trial_finished"), TELLS),
        (ray, ("init", "shutdown"), RAY),
        (StagesHandle, ("want_all", "want_each"), AFTER),
        (cluster.tune, ("run_trials",), SEARCHING),
        (run, ("run_sweep",), COMMAND),
        *((run, (name,), cause) for name, cause in ONCE.items()),
    ):
        for name in names:
            timed(owner, name, cause, folder)
    cluster.tune.trial_process = TimedTrial(cluster.tune.trial_process, folder)
    events, ends = kept_events(StagesHandle), marks_after(Search, "complete")
    opened = marks_after(run, "start_tracker")
    at_start = AT_START.format(writes=WRITES, reads=READS, folder=str(folder))
    through_ray(arguments, at_start)
    (mlflow,) = (Mark.now().threads[MLFLOW] - mark.threads[MLFLOW] for mark in opened)
    spans = [*read_spans(folder), *stage_spans(events)]
    return {**later_trials(spans, ends, mlflow / len(ends)), **whole_sweep(spans, ends)}


class TimedTrial:
    """`trial_process` in its own process, with the time that it waits for Tune to take a report."""

    def __init__(self, trial_process: Callable[..., None], folder: Path) -> None:
        self._trial_process, self._folder = trial_process, folder
        self.__name__ = trial_process.__name__

    def __call__(self, config: dict[str, Any], *, stages: Any) -> None:
        from ray import tune

        report = tune.report
        timed(tune, "report", TUNE, self._folder)
        try:
            noted(self._trial_process, PROCESS, self._folder)(config, stages=stages)
        finally:
            tune.report = report


def kept_events(handle: Any) -> list[dict[str, Any]]:
    """All events of stages, as the watch hears of them."""
    kept: list[dict[str, Any]] = []
    events = handle.events

    def keep(self: Any, since: int) -> Any:
        found, following = events(self, since)
        kept.extend(found)
        return found, following

    handle.events = keep
    return kept


def stage_spans(events: Iterable[dict[str, Any]]) -> list[Span]:
    spans, since = [], dict[str, float]()
    for event in events:
        identity, state = event["identity"], event["state"]
        cause = {"started": QUEUE, "finished": GANG if event["kind"] == "align" else TASK}.get(
            state
        )
        if cause is not None:
            spans.append(Span(cause, since[identity], event["time"]))
        if state in ("queued", "started"):
            since[identity] = event["time"]
    return spans


@dataclass(frozen=True)
class Mark:
    """What the driver had used at a time, in processor seconds."""

    time: float
    cpu: float
    threads: dict[str, float]  # those of its threads that Python knows, by name

    @staticmethod
    def now() -> Mark:
        threads = {
            thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            for thread in threading.enumerate()
            if thread.ident is not None
        }
        return Mark(time.time(), time.process_time(), threads)


def marks_after(owner: Any, name: str) -> list[Mark]:
    """One as each call of `owner.name` ends."""
    marks: list[Mark] = []
    function = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        found = function(*arguments, **named)
        marks.append(Mark.now())
        return found

    setattr(owner, name, call)
    return marks


def later_trials(spans: Sequence[Span], ends: list[Mark], mlflow: float) -> dict[str, Any]:
    """Seconds a trial of the later half: of the wall, and of the driver's processor.

    `mlflow`: what MLflow's thread takes a trial, over the whole sweep, for it comes later.
    """
    half = len(ends) // 2
    first, last, trials = ends[half - 1], ends[-1], len(ends) - half
    chain = [span for span in spans if span.thread in ("", "MainThread") or not span.is_here()]
    wall = attributed(chain, A_TRIAL, first.time, last.time, rest=TUNE)
    within = [span for span in spans if first.time < span.ended <= last.time and span.is_here()]
    cpu = dict.fromkeys((OPTUNA, RECORD, SEARCH), 0.0)
    for span in within:
        if span.thread == "MainThread" and span.cause in cpu:
            cpu[span.cause] += span.cpu
    cpu[SEARCH] -= cpu[OPTUNA] + cpu[RECORD]
    by_thread = {name: last.threads[name] - first.threads.get(name, 0.0) for name in last.threads}
    cpu[TUNE] = by_thread["MainThread"] - sum(cpu.values())
    cpu |= {cause: by_thread.get(name, 0.0) for name, cause in THREADS.items()}
    cpu[REST] = last.cpu - first.cpu - sum(cpu.values())
    tells = sum(span.ended - span.began for span in within if span.cause == TELLS)
    changes = sum(span.cause == WRITES and first.time < span.ended <= last.time for span in spans)
    return {
        "seconds_a_trial": a_trial(wall, trials),
        "driver_cpu_seconds_a_trial": a_trial(cpu | {THREADS[MLFLOW]: mlflow * trials}, trials),
        "seconds_a_trial_in_which_mlflow_is_told": tells / trials,
        "storage_changes_a_trial": changes / trials,
    }


def a_trial(seconds: dict[str, float], trials: int) -> dict[str, float]:
    each = {cause: value / trials for cause, value in seconds.items()}
    return {**each, IN_ALL: sum(each.values())}


def whole_sweep(spans: Sequence[Span], ends: list[Mark]) -> dict[str, Any]:
    """Seconds of the whole command, and before it those of imports."""
    firsts = {GANG: FIRST_GANG, TASK: FIRST_TASK}
    starting = []
    for cause, first in firsts.items():
        span = min((span for span in spans if span.cause == cause), key=lambda span: span.began)
        starting.append(replace(span, cause=first))
    later = Span(LATER, ends[0].time, ends[-1].time)
    driver = [span for span in spans if span.thread == "MainThread" and span.is_here()]
    (command,) = (span for span in driver if span.cause == COMMAND)
    (imports,) = (span for span in driver if span.cause == IMPORTS)
    found = attributed([later, *starting, *driver], A_SWEEP, command.began, command.ended, REST)
    found = {IMPORTS: imports.ended - imports.began, **found}
    return {"seconds_of_the_sweep": {**found, IN_ALL: sum(found.values())}}
