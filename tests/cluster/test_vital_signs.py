from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cluster.stage_runs import Attempt, work
from cluster.vital_signs import HangLimits, Process, VitalSigns
from tests.cluster.conftest import Start
from tests.cluster.test_stages import get, stage, states, steps, want, worker_pid
from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.storage.folder import Folder
from trainables.storage.local_files import LocalFiles


def process(number: int) -> Process:
    return Process(host=f"host{number}", node=f"node{number}", pid=number, started=0.0)


def signs(seconds: float | None, first: float | None) -> VitalSigns:
    made = VitalSigns(HangLimits(seconds=seconds, first_step_seconds=first))
    for rank in (0, 1):
        made.at_work(rank, process(rank))
    return made


def test_silence_is_counted_from_the_first_step_on() -> None:
    of = signs(seconds=10, first=None)
    assert of.tick(1000) is None
    of.beat(0)
    of.beat(1)
    assert of.tick(6) is None
    of.beat(0)
    assert of.tick(11) == "no step for 10 s (worker 1 on host1)"  # who was silent before the other


def test_workers_that_wait_for_one_that_has_something_to_do_of_its_own_do_not_hang() -> None:
    of = signs(seconds=10, first=10)
    of.beat(0)
    of.beat(1)
    for _ in range(5):  # worker 0 fits a probe, 1 waits for it
        assert of.tick(9) is None
        of.beat(0)
    assert of.tick(11) == "no step for 10 s (worker 1 on host1)"


def test_the_first_step_has_a_limit_of_its_own_until_all_have_taken_it() -> None:
    of = signs(seconds=10, first=100)
    assert of.tick(99) is None
    of.beat(0)
    assert of.tick(99) is None
    assert of.tick(2) == "no first step for 100 s (worker 1 on host1)"


def test_workers_that_outlive_their_end_are_killed_again_after_as_long_a_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(Process, "kill", lambda self: killed.append(self.pid))
    of = signs(seconds=10, first=None)
    for rank in of.workers:
        of.beat(rank)
    for _ in range(2):  # the first order to kill is lost
        assert of.tick(6) is None
        assert of.tick(6) is not None
        of.kill()
    assert killed == [0, 1, 0, 1]


def test_without_limits_nothing_hangs_and_a_worker_that_is_not_there_yet_is_not_silent() -> None:
    of = signs(seconds=None, first=None)
    of.beat(0)
    assert of.tick(1e9) is None
    assert VitalSigns(HangLimits(seconds=1, first_step_seconds=1)).tick(1e9) is None


def test_who_waits_for_the_storage_is_not_stuck_nor_are_those_who_wait_for_him() -> None:
    of = signs(seconds=10, first=100)
    of.beat(0)
    of.beat(1)
    for _ in range(5):
        of.waits()  # the worker that writes a checkpoint; the other is in a collective operation
        assert of.tick(9) is None
    assert of.tick(2) == "no step for 10 s (worker 0 on host0)"


def test_that_it_waits_for_the_storage_is_no_first_step() -> None:
    of = signs(seconds=10, first=100)
    of.waits()
    assert of.tick(99) is None


def test_a_worker_says_that_it_waits_for_a_disk_that_is_full_with_a_stand_in_for_the_actor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[Any, ...]] = []
    refusals = [OSError(errno.ENOSPC, "No space left on device") for _ in range(2)]
    put = LocalFiles.write

    def write(self: LocalFiles, path: str, data: bytes) -> None:
        if refusals:
            raise refusals.pop()
        put(self, path, data)

    def checkpoint(wanted: Stage, store: StageStore, *_: Any) -> None:
        store.checkpoint(wanted.identity).write("last.pt", b"state")

    monkeypatch.setattr(LocalFiles, "write", write)
    monkeypatch.setattr("trainables.stages.run.run_stage", checkpoint)
    monkeypatch.setattr("trainables.storage.folder.FIRST_PAUSE", 0.01)
    monkeypatch.setattr(Process, "this", lambda: process(0))
    monkeypatch.setattr("cluster.stage_runs.ray.get", lambda reference: {})
    heard = SimpleNamespace(remote=lambda *what: said.append(what))
    ignored = SimpleNamespace(remote=lambda *what: None)
    attempt = Attempt(
        stage=stage(),
        store=StageStore(Folder(str(tmp_path), patience_seconds=60)),
        datasets=None,
        execution=toy_execution(),
        stages=SimpleNamespace(at_work=ignored, beat=ignored, unwanted=ignored, waits=heard),
        probes=None,
    )
    assert work(attempt) is None
    assert said == [(stage().identity,)] * 2
    assert attempt.store.checkpoint(stage().identity).read("last.pt") == b"state"


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize(
    ("kind", "way"),
    [pytest.param("mae", "a loop", marks=pytest.mark.slow), ("finetune", "a stop")],
)
def test_a_worker_that_hangs_is_killed_and_its_stage_goes_on_from_the_checkpoint(
    start: Start, kind: str, way: str
) -> None:
    stages = start(hang_seconds=6.0)
    wanted = stage(kind, steps=4, pause=0.1, hangs_at=2, hangs_in=way)
    assert get(want(stages, wanted, 1))["attempts"] == 2
    assert sorted(set(steps(stages, wanted))) == [1, 2, 3, 4]
    assert states(stages, wanted) == ["queued", "started", "retry", "started", "finished"]
    (retry,) = [e for e in stages.events(0)[0] if e["state"] == "retry"]
    assert retry["reason"].startswith("no step for 6 s (worker ")
    assert not psutil.pid_exists(worker_pid(stages, wanted))
