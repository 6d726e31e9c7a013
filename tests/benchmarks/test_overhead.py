"""Where the time of a sweep went: what is inside goes before what is around it, and all adds up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.orchestration import ROOT
from benchmarks.overhead_causes import (
    A_TRIAL,
    FIRST_GANG,
    GANG,
    IN_ALL,
    QUEUE,
    RECORD,
    TASK,
    TUNE,
    WRITES,
    Mark,
    later_trials,
    stage_spans,
)
from benchmarks.timeline import Span, attributed, noted, read_spans


def test_each_second_has_the_first_cause_of_the_order_that_is_at_work() -> None:
    spans = [
        Span("around", 1.0, 6.0),
        Span("inside", 2.0, 3.0),
        Span("inside", 2.5, 4.0),
        Span("around", 8.0, 99.0),
        Span("inside", -5.0, -1.0),
    ]
    found = attributed(spans, ["inside", "around"], 0.0, 10.0, rest="else")
    assert found == {"inside": 2.0, "around": 5.0, "else": 3.0}


def test_a_call_leaves_its_span_even_where_it_raises(tmp_path: Path) -> None:
    def half(number: int) -> float:
        return 1 / number

    call = noted(half, "dividing", tmp_path)
    assert call(1) == 1.0
    with pytest.raises(ZeroDivisionError):
        call(0)
    spans = read_spans(tmp_path)
    assert [span.cause for span in spans] == ["dividing", "dividing"]
    assert all(span.is_here() and span.began <= span.ended for span in spans)


def test_a_stage_waits_from_queued_to_started_and_works_until_it_is_finished() -> None:
    def event(identity: str, kind: str, state: str, time: float) -> dict[str, object]:
        return {"identity": identity, "kind": kind, "state": state, "time": time}

    events = [
        event("a", "align", "queued", 1.0),
        event("p", "probe", "queued", 1.5),
        event("a", "align", "started", 2.0),
        event("a", "align", "progress", 2.5),
        event("a", "align", "finished", 3.0),
        event("p", "probe", "started", 3.0),
        event("p", "probe", "finished", 3.5),
        event("r", "probe", "reused", 4.0),
    ]
    assert stage_spans(events) == [
        Span(QUEUE, 1.0, 2.0),
        Span(GANG, 2.0, 3.0),
        Span(QUEUE, 1.5, 3.0),
        Span(TASK, 3.0, 3.5),
    ]


def test_the_rows_of_a_trial_add_up_and_threads_beside_it_are_not_among_them() -> None:
    def mark(at: float) -> Mark:
        return Mark(at, cpu=at / 2, threads={"MainThread": at / 4, "mlflow": at / 8})

    ends = [mark(at) for at in (1.0, 3.0, 5.0, 7.0)]
    spans = [
        Span(GANG, 3.0, 4.0),
        Span(WRITES, 3.5, 4.0, process=os.getpid() + 1, thread="asyncio_0"),
        Span(RECORD, 5.0, 6.0, process=os.getpid(), thread="watch"),
    ]
    found = later_trials(spans, ends, mlflow=0.5)
    wall, cpu = found["seconds_a_trial"], found["driver_cpu_seconds_a_trial"]
    assert wall[IN_ALL] == 2.0 == (7.0 - 3.0) / 2
    assert (wall[GANG], wall[WRITES], wall[TUNE]) == (0.25, 0.25, 1.5)
    assert wall[RECORD] == 0.0
    assert found["storage_changes_a_trial"] == 0.5
    assert cpu["MLflow's thread"] == 0.5  # told late, and yet counted
    assert cpu[IN_ALL] == pytest.approx(2.0 / 2 - 2.0 / 8 + 0.5)


@pytest.mark.slow
def test_a_sweep_through_ray_has_time_in_every_cause() -> None:
    command = [sys.executable, "benchmarks/overhead.py", "--parts", "ours"]
    command += ["--trials", "8", "--repeats", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    ours = json.loads(done.stdout.splitlines()[-1])["ours"]
    wall = {cause: seconds["median"] for cause, seconds in ours["seconds_a_trial"].items()}
    assert all(wall[cause] > 0 for cause in A_TRIAL)
    assert wall[IN_ALL] == pytest.approx(sum(wall[cause] for cause in A_TRIAL), rel=1e-2)
    assert ours["seconds_of_the_sweep"][FIRST_GANG]["median"] > wall[GANG]
