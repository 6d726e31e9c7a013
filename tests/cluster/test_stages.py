from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.stage_runs import StageFailed
from cluster.stages_handle import StagesHandle
from tests.cluster.conftest import Start, until
from tests.toy import toy_execution
from trainables.stage import Stage

pytestmark = pytest.mark.usefixtures("two_cpus")


def stage(kind: str = "mae", *, inputs: dict[str, Stage] | None = None, **settings: Any) -> Stage:
    return Stage(kind=kind, settings=settings, inputs=inputs or {})


def get(reference: Any) -> Any:
    return ray.get(reference, timeout=400)


def want(stages: StagesHandle, wanted: Stage, trial: int) -> Any:
    return stages.want(wanted, trial)


def states(stages: StagesHandle, wanted: Stage) -> list[str]:
    events = stages.events(0)[0]
    return [
        e["state"] for e in events if e["identity"] == wanted.identity and e["state"] != "progress"
    ]


def steps(stages: StagesHandle, wanted: Stage) -> list[int]:
    log = Path(stages.store.root.url, "log")
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [int(step) for identity, _, step, _ in lines if identity == wanted.identity]


def worker_pid(stages: StagesHandle, wanted: Stage) -> int:
    lines = stages.store.root.read("log").decode().splitlines()
    return next(int(line.split()[3]) for line in lines if line.startswith(wanted.identity))


@ray.remote(num_cpus=0)
class WaitingTrial:
    def pid(self) -> int:
        return os.getpid()

    def want(self, stages: Any, wanted: Stage, trial: int) -> Any:
        return ray.get(stages.want(wanted, trial))


def test_two_trials_want_one_stage_and_it_is_trained_once(start: Start) -> None:
    stages, wanted = start(), stage(steps=3)
    first, second = get([want(stages, wanted, 1), want(stages, wanted, 2)])
    assert first == second
    assert first["identity"] == wanted.identity
    assert steps(stages, wanted) == [1, 2, 3]
    assert states(stages, wanted) == ["queued", "started", "finished"]


def test_the_first_trial_is_killed_and_the_second_gets_what_was_trained_once(start: Start) -> None:
    stages, wanted = start(), stage("probe", steps=8, pause=0.3)
    killed = WaitingTrial.remote()  # type: ignore[attr-defined]
    pid = get(killed.pid.remote())
    lost = killed.want.remote(stages, wanted, 1)
    until(lambda: steps(stages, wanted))
    os.kill(pid, signal.SIGKILL)
    kept = want(stages, wanted, 2)
    stages.drop(1)
    with pytest.raises(ray.exceptions.RayActorError):
        get(lost)
    assert get(kept)["attempts"] == 1
    assert steps(stages, wanted) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_killed_worker_costs_an_attempt_and_the_next_resumes_from_the_checkpoint(
    start: Start,
) -> None:
    stages, wanted = start(), stage(steps=6, pause=0.3)
    record = want(stages, wanted, 1)
    until(lambda: len(steps(stages, wanted)) >= 2)
    os.kill(worker_pid(stages, wanted), signal.SIGKILL)
    assert get(record)["attempts"] == 2
    assert sorted(set(steps(stages, wanted))) == [1, 2, 3, 4, 5, 6]
    assert len(steps(stages, wanted)) <= 7  # at most the step that was cut is taken again
    assert states(stages, wanted) == ["queued", "started", "retry", "started", "finished"]


def test_a_stage_whose_worker_always_dies_fails_after_its_attempts(start: Start) -> None:
    stages, wanted = start(), stage("probe", dies=True)
    with pytest.raises(StageFailed, match=r"a worker process died .*; 2 attempts"):
        get(want(stages, wanted, 1))
    assert len(steps(stages, wanted)) == 2


def test_a_stage_that_interests_nobody_stops_keeps_its_checkpoint_and_continues(
    start: Start,
) -> None:
    stages, wanted = start(), stage(steps=12, pause=0.3)
    want(stages, wanted, 1)
    until(lambda: len(steps(stages, wanted)) >= 2)
    stages.drop(1)
    until(lambda: "stopped" in states(stages, wanted))
    done = len(steps(stages, wanted))
    assert done < 12
    assert stages.store.record(wanted.identity) is None
    get(want(stages, wanted, 2))
    assert steps(stages, wanted) == list(range(1, 13))


def test_a_failure_is_told_with_its_reason_to_all_who_wait_and_to_who_comes_later(
    start: Start,
) -> None:
    stages, wanted = start(), stage(mistake="the moon is full; wait")
    above = stage("align", inputs={"start": wanted})
    waiting = [want(stages, wanted, 1), want(stages, above, 2)]
    for asked in waiting:
        with pytest.raises(StageFailed, match=f"mae {wanted.identity}: the moon is full; wait"):
            get(asked)
    began = time.monotonic()
    with pytest.raises(StageFailed, match="the moon is full"):
        get(want(stages, wanted, 3))
    assert time.monotonic() - began < 2
    assert states(stages, wanted) == ["queued", "started", "failed"]  # and not tried again
    assert states(stages, above) == []


def test_more_workers_than_the_cluster_has_is_an_error_that_says_what_is_short(
    start: Start,
) -> None:
    stages = start(mae=toy_execution(workers=3), align=toy_execution(gpus_per_worker=1))
    with pytest.raises(StageFailed, match=r"needs 3 workers of 1 CPU, .* room for 2 .*lower"):
        get(want(stages, stage("mae"), 1))
    with pytest.raises(StageFailed, match=r"needs 1 worker of 1 CPU and 1 GPU, .* room for 0"):
        get(want(stages, stage("align"), 1))


def test_inputs_come_first_and_not_at_all_when_the_stage_itself_is_there(start: Start) -> None:
    stages = start()
    below = stage("init")
    above = stage("probe", inputs={"weights": below})
    get(want(stages, above, 1))
    assert [e["kind"] for e in stages.events(0)[0] if e["state"] == "started"] == ["init", "probe"]

    stages.store.folder(below.identity).delete(["record.json"])
    again = start()
    get(want(again, above, 1))
    assert [e["state"] for e in again.events(0)[0]] == ["reused"]


def test_who_waits_for_room_holds_nothing_and_is_forgotten_when_dropped(start: Start) -> None:
    stages = start(align=toy_execution(cpus_per_worker=2))
    running, queued = stage("probe", steps=20, pause=0.1), stage("align")
    finished = want(stages, running, 1)
    until(lambda: steps(stages, running))
    dropped = want(stages, queued, 2)
    until(lambda: "queued" in states(stages, queued))
    status = {event["identity"]: event for event in stages.status()}
    assert status[queued.identity]["why"] == "needs 2 CPU, free 1"
    assert status[running.identity]["hosts"] == [socket.gethostname()]
    assert status[running.identity]["attempt"] == 1
    assert status[running.identity]["since"] <= time.time()
    stages.drop(2)
    with pytest.raises(Exception, match="StageDropped"):
        get(dropped)
    get(finished)
    assert states(stages, queued) == ["queued", "stopped"]


def test_a_stage_with_two_workers_is_one_process_group(start: Start) -> None:
    stages, wanted = start(), stage("finetune", steps=1)
    assert get(want(stages, wanted, 1))["metrics"]["ranks"] == 2
    root = Path(stages.store.root.url)
    assert list(root.parent.iterdir()) == [root]  # nothing of Train's


def test_a_stage_leased_by_another_sweep_is_waited_for_until_that_is_dead_or_gives_it_back(
    start: Start,
) -> None:
    stages, given_back, left = start(), stage("init"), stage("probe")
    lease = stages.store.lease(given_back.identity)
    assert lease.take()
    take = (
        "import pathlib, sys; from trainables.stage_store import StageStore; "
        "assert StageStore(pathlib.Path(sys.argv[1])).lease(sys.argv[2]).take(); "
        "print('taken', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", take, stages.store.root.url, left.identity],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert other.stdout is not None and other.stdout.readline() == b"taken\n"
    waiting = [want(stages, given_back, 1), want(stages, left, 1)]
    assert ray.wait(waiting, timeout=2) == ([], waiting)
    lease.give_back()
    other.kill()
    other.wait()
    get(waiting)


def test_two_sweeps_that_need_one_stage_at_once_train_it_once_between_them(start: Start) -> None:
    first, second, wanted = start(), start(), stage("probe", steps=6, pause=0.3)
    records = get([want(first, wanted, 1), want(second, wanted, 1)])
    assert records[0] == records[1] and records[0]["attempts"] == 1
    assert steps(first, wanted) == [1, 2, 3, 4, 5, 6]
    ends = sorted(states(each, wanted)[-1] for each in (first, second))
    assert ends == ["finished", "reused"]


def test_the_actor_itself_is_killed_and_the_trials_still_get_their_stage(start: Start) -> None:
    stages, wanted = start(), stage("probe", steps=6, pause=0.3)
    waiting = want(stages, wanted, 1)
    until(lambda: len(steps(stages, wanted)) >= 2)
    stages.kill(restart=True)
    assert get(waiting)["attempts"] == 2
    assert sorted(set(steps(stages, wanted))) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_the_actor_is_killed_while_a_gang_starts_which_then_holds_nothing(start: Start) -> None:
    stages, wanted = start(), stage("finetune")  # it needs both CPUs
    waiting = want(stages, wanted, 1)
    until(lambda: ray.available_resources().get("CPU", 0) == 0)
    stages.kill(restart=True)
    assert get(waiting)["metrics"]["ranks"] == 2


def test_the_entry_process_is_killed_all_ends_with_it_and_the_next_one_continues(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    stand_in, root = Path(__file__).parent / "stand_in", Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{stand_in}{os.pathsep}{root}"}
    command = [sys.executable, str(stand_in / "entry.py"), str(tmp_path), "30", "0.3"]

    def lines() -> list[list[str]]:
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    entry = subprocess.Popen(command, env=environment)
    until(lambda: len(lines()) >= 3)
    entry.kill()
    entry.wait()
    until(lambda: not Path("/proc", lines()[0][3]).exists(), seconds=15)
    assert len(lines()) < 30

    subprocess.run(command, env=environment, check=True, timeout=120)
    taken = [int(step) for _, _, step, _ in lines()]
    assert sorted(set(taken)) == list(range(1, 31))
    assert len(taken) <= 31  # at most the step that was cut is taken again
