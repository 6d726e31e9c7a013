"""What a worker does, and what its failures mean; without Ray."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.stage_runs import Attempt, work
from cluster.vital_signs import Process
from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import StageStore


def test_a_worker_says_where_it_is_before_it_does_what_may_take_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Process] = []
    here = Process(host="host", node="node", pid=1, started=0.0)
    monkeypatch.setattr(Process, "this", lambda: here)
    monkeypatch.setitem(sys.modules, "trainables.stages.run", None)  # it cannot be imported
    at_work = SimpleNamespace(remote=lambda identity, rank, process: told.append(process))
    attempt = Attempt(
        stage=Stage(kind="align", settings={}),
        store=StageStore(Path("/nowhere")),
        datasets=None,
        execution=toy_execution(),
        stages=SimpleNamespace(at_work=at_work),
        probes=None,
    )
    with pytest.raises(ImportError):
        work(attempt)
    assert told == [here]
