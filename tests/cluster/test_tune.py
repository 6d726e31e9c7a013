from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.state import list_actors

from cluster.stages_handle import StagesHandle
from cluster.study import Assignment, RungPoint
from cluster.tune import run_trials
from tests.cluster.conftest import Executions, until
from tests.toy import toy_data, toy_trial
from trainables.intermediate_probes import IntermediateProbes
from trainables.stage_store import StageStore

pytestmark = pytest.mark.usefixtures("two_cpus")
SECONDS = 150  # that the trials of a test may take
UNLUCKY = 13  # the stand-in for init fails with this seed


@dataclass
class Script:
    """A study that hands out trials by seed, and notes what it is told."""

    seeds: list[int]
    stops: dict[int, float] = field(default_factory=dict)  # trial -> at which rung
    epochs: int = 0  # of align, the only stage here that is a Ray Train run
    told: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    rungs: dict[int, list[RungPoint]] = field(default_factory=dict)
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
        )

    def reached(self, number: int, point: RungPoint) -> bool:
        self.rungs.setdefault(number, []).append(point)
        if self.stops.get(number) == point.rung:
            self._tell(number, "pruned")
            return False
        return True

    def complete(
        self, number: int, accuracies: Mapping[str, float], stages: Mapping[str, str]
    ) -> None:
        self._tell(number, "complete", accuracies)

    def failed(self, number: int, reason: str) -> None:
        self._tell(number, "failed", reason)

    def _tell(self, number: int, *what: Any) -> None:
        assert number not in self.told
        self.told[number] = what
        self.order.append(f"tell {number}")


@pytest.fixture
def stages(tmp_path: Path) -> Any:
    handle = StagesHandle(StageStore(tmp_path / "stages"), toy_data(), Executions())
    yield handle
    handle.kill()


def run(study: Script, stages: StagesHandle, **settings: Any) -> None:
    arguments = {"concurrent": lambda: 1, **settings}
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        run_trials(study, stages, **arguments)
    finally:
        signal.alarm(0)


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


def test_trials_that_end_at_once_leave_their_processes_to_the_next(stages: StagesHandle) -> None:
    before = waiting_processes()
    run(Script(sorted([*range(5)] * 3), epochs=8), stages, concurrent=lambda: 3)
    # Three, and on a slow machine one or two that were not needed any more when they had started.
    assert 3 <= len(waiting_processes().keys() - before.keys()) < 6  # Tune: seven or more


def test_a_process_that_died_between_two_trials_costs_none_of_them(stages: StagesHandle) -> None:
    before = waiting_processes()
    killed = []

    class Kills(Script):
        def ask(self) -> Assignment | None:
            if len(self.told) == 2 and self.asked == 2:
                for actor, pid in waiting_processes().items():
                    if actor not in before and pid:
                        with suppress(ProcessLookupError):  # one that was not needed any more
                            os.kill(pid, signal.SIGKILL)
                            killed.append(pid)
            return super().ask()

    study = Kills([1, 1, 2, 2])
    run(study, stages, concurrent=lambda: 2 if study.asked < 2 or len(study.told) >= 2 else 0)
    assert {number: state for number, (state, *_) in study.told.items()} == dict.fromkeys(
        range(4), "complete"
    )
    assert killed


def waiting_processes() -> dict[str, int]:
    """The actors of trials that there are or have been, and their processes.

    0: it has not started, or is dead.
    """
    found = list_actors(ray.get_runtime_context().gcs_address, limit=10_000)
    return {
        actor.actor_id: (actor.state == "ALIVE" and actor.pid) or 0
        for actor in found
        if actor.class_name.endswith("ImplicitFunc")  # or wrap_function.<locals>.ImplicitFunc
    }


def test_more_trials_run_at_a_time_once_the_cluster_can_feed_more(stages: StagesHandle) -> None:
    study = Script([1, 2, 3, 4])
    run(study, stages, concurrent=lambda: 3 if study.told else 1)
    assert study.order[:4] == ["ask 0", "tell 0", "ask 1", "ask 2"]  # the third may end before
    assert {state for state, *_ in study.told.values()} == {"complete"}


PROBES = IntermediateProbes(
    rungs=(0.25, 0.5),
    downstream=("low",),
    train_clips=4,
    selection_clips=2,
    l2_grid=(1.0,),
    max_unreadable=0.01,
    precision="fp32",
)


def test_the_study_is_asked_at_each_rung_and_what_it_stops_is_trained_no_further(
    tmp_path: Path,
) -> None:
    stages = StagesHandle(StageStore(tmp_path / "stages"), toy_data(), Executions(), PROBES)
    study = Script([90, 5], stops={1: 0.25}, epochs=24)
    run(study, stages)

    def ended() -> list[str]:
        events = [event for event in stages.events(0)[0] if event["kind"] == "align"]
        return sorted({event["identity"]: event["state"] for event in events}.values())

    until(lambda: ended() == ["finished", "stopped"])
    stages.kill()
    assert [study.told[n][0] for n in range(2)] == ["complete", "pruned"]
    assert [(p.rung, p.accuracies) for p in study.rungs[0]] == [
        (0.25, {"low": 0.9}),
        (0.5, {"low": 0.9}),
    ]
    # A second each for the start and for each of 48 steps, foreseen from those that are done.
    assert [point.device_seconds for point in study.rungs[0]] == [49.0, 49.0]
    assert [point.rung for point in study.rungs[1]] == [0.25]


def test_two_trials_at_a_time_on_two_cpus_do_not_lock_each_other_out(
    stages: StagesHandle,
) -> None:
    study = Script([1, 2, 1], epochs=1)
    run(study, stages, concurrent=lambda: 2)
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


def test_a_trial_that_the_storage_refuses_for_too_long_stays_unfinished_and_ends_the_sweep(
    stages: StagesHandle,
) -> None:
    blocked = stages.store.root.path
    assert blocked is not None
    blocked.write_text("a file where the folder of stages should be")
    study = Script([7, 8])
    with pytest.raises(OSError, match="the storage: .*Not a directory"):
        run(study, stages)
    assert study.asked == 1 and study.told == {}
