from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.stages_handle import StagesHandle
from cluster.study import Assignment
from cluster.tune import run_trials
from tests.cluster.conftest import Executions
from tests.toy import toy_data, toy_trial
from trainables.stage_store import StageStore

pytestmark = pytest.mark.usefixtures("two_cpus")
SECONDS = 150  # that the trials of a test may take
UNLUCKY = 13  # the stand-in for init fails with this seed


@dataclass
class Script:
    """A study that hands out trials by seed, and notes what it is told."""

    seeds: list[int]
    may_stop: list[bool] = field(default_factory=list)
    epochs: int = 0  # of align, the only stage here that is a Ray Train run
    told: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    curves: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    asked: int = 0
    order: list[str] = field(default_factory=list)

    def ask(self) -> Assignment | None:
        if self.asked == len(self.seeds):
            return None
        number, self.asked = self.asked, self.asked + 1
        self.order.append(f"ask {number}")
        trial = toy_trial(seed=self.seeds[number], align__epochs=self.epochs, mae__epochs=0)
        return Assignment(
            number=number,
            trial=trial.model_dump(mode="json"),
            name=None,
            may_stop=self.may_stop[number] if self.may_stop else True,
        )

    def progress(self, number: int, point: Mapping[str, Any]) -> None:
        self.curves.setdefault(number, []).append((point["epoch"], point["heldout_accuracy"]))

    def complete(
        self, number: int, accuracies: Mapping[str, float], stages: Mapping[str, str]
    ) -> None:
        self._tell(number, "complete", accuracies)

    def failed(self, number: int, reason: str) -> None:
        self._tell(number, "failed", reason)

    def pruned(self, number: int, reason: str) -> None:
        self._tell(number, "pruned", reason)

    def _tell(self, number: int, *what: Any) -> None:
        assert number not in self.told
        self.told[number] = what
        self.order.append(f"tell {number}")


@dataclass(frozen=True)
class Halving:
    grace_epochs: int = 1
    reduction_factor: int = 2


@pytest.fixture
def stages(tmp_path: Path) -> Any:
    handle = StagesHandle(StageStore(tmp_path / "stages"), toy_data(), Executions())
    yield handle
    handle.kill()


def run(study: Script, stages: StagesHandle, **settings: Any) -> None:
    arguments = {"concurrent": 1, "early_stopping": None, **settings}
    sources = ["synthetic", "scenes"]
    scratch = stages.store.root.parent / "tune"
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        run_trials(study, stages, sources=sources, scratch=scratch, **arguments)
    finally:
        signal.alarm(0)
    assert not scratch.exists()


def _too_long(*_: Any) -> None:
    raise TimeoutError("the trials keep each other from their end")


def test_a_failed_trial_is_told_with_its_reason_and_the_sweep_goes_on(
    stages: StagesHandle,
) -> None:
    study = Script([UNLUCKY, 7])
    run(study, stages)
    state, reason = study.told[0]
    assert state == "failed"
    assert reason.startswith("init ")
    assert reason.endswith("13 is unlucky")
    state, accuracies = study.told[1]
    assert (state, set(accuracies.values())) == ("complete", {0.07})
    # With one trial at a time, the study knows the last result before it is asked again.
    assert study.order == ["ask 0", "tell 0", "ask 1", "tell 1"]


def test_a_trial_stopped_early_is_told_as_pruned_and_a_baseline_never_is(
    stages: StagesHandle,
) -> None:
    study = Script([90, 5, 5], may_stop=[True, False, True], epochs=3)
    run(study, stages, early_stopping=Halving())
    assert [study.told[n][0] for n in range(3)] == ["complete", "complete", "pruned"]
    assert study.told[2] == ("pruned", "held-out accuracy 0.050 at epoch 1")
    assert study.curves[0] == [(1, 0.9), (2, 0.9), (3, 0.9)]
    assert study.curves[1] == [(1, 0.05), (2, 0.05), (3, 0.05)]
    assert study.curves[2] == [(1, 0.05)]


def test_two_trials_at_a_time_on_two_cpus_do_not_lock_each_other_out(
    stages: StagesHandle,
) -> None:
    study = Script([1, 2, 1], epochs=1)
    run(study, stages, concurrent=2)
    assert [study.told[n][0] for n in range(3)] == ["complete"] * 3
    started = [e["kind"] for e in stages.events(0)[0] if e["state"] == "started"]
    assert started.count("align") == 2  # the third trial is the first one again


def test_a_killed_trial_process_is_started_again_and_trains_nothing_twice(
    stages: StagesHandle,
) -> None:
    study = Script([3], epochs=8)
    killed: list[int] = []

    def kill_when_training() -> None:
        while not killed:
            if any(e["state"] == "progress" for e in stages.events(0)[0]):
                killed.extend(_trial_processes())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill_when_training, daemon=True)
    killer.start()
    run(study, stages)
    assert killed
    assert study.told[0][0] == "complete"
    started = [e["kind"] for e in stages.events(0)[0] if e["state"] == "started"]
    assert started.count("align") == 1


def _trial_processes() -> list[int]:
    """The processes that wait for a trial, of this test's own Ray."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
            if b"ray::ImplicitFunc.train" in title and os.getpid() in _ancestors(process.name):
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _ancestors(pid: str) -> list[int]:
    found = []
    while pid != "0":
        status = Path("/proc", pid, "status").read_text()
        pid = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid"))
        found.append(int(pid))
    return found


def test_a_study_that_cannot_write_ends_the_sweep_with_its_error(stages: StagesHandle) -> None:
    class Full(Script):
        def failed(self, number: int, reason: str) -> None:
            raise OSError("no space left")

    study = Full([UNLUCKY, 7])
    with pytest.raises(OSError, match="no space left"):
        run(study, stages)
    assert study.asked == 1
