"""The `Stages` actor where a node is lost, with scripted nodes and workers: no Ray runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import NodeDiedError, WorkerCrashedError

from cluster import gangs, room, stages
from cluster.gangs import Gang, Place
from cluster.resources import Cluster
from cluster.stage_runs import Attempt, StageFailed
from cluster.stages import Stages
from cluster.vital_signs import HangLimits, Process
from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import StageStore

SILENT_FOR_EVER = HangLimits(seconds=None, first_step_seconds=None)
NODE = {"CPU": 1.0, "GPU": 0.0}
FIRST, SECOND, PROBE = (
    Stage(kind=kind, settings={"number": number})
    for number, kind in enumerate(("align", "align", "probe"))
)


class TwoNodes:
    """Nodes of one CPU."""

    def __init__(self) -> None:
        self.there, self.gone = 2, 0

    def now(self) -> Cluster:
        return Cluster(there=[NODE] * self.there, to_start=[], gone=[NODE] * self.gone)


def script(monkeypatch: pytest.MonkeyPatch, nodes: TwoNodes, run: Any, is_gone: Any) -> None:
    """Attempts do what `run` says, on these nodes."""
    monkeypatch.setattr(stages, "Nodes", lambda _: nodes)
    monkeypatch.setattr(stages, "is_gone", is_gone)
    monkeypatch.setattr(stages, "nodes_going", set)
    monkeypatch.setattr(room, "QUEUE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(room, "waits_for_placement", lambda shape: False)
    monkeypatch.setattr(gangs.Workers, "run", run)
    context = SimpleNamespace(current_actor=None, was_current_actor_reconstructed=False)
    monkeypatch.setattr(stages.ray, "get_runtime_context", lambda: context)


def stages_of(
    store: StageStore,
    workers: int | tuple[int, ...],
    attempts: int,
    limits: HangLimits = SILENT_FOR_EVER,
) -> Stages:
    executions = dict.fromkeys(("align", "tasks"), toy_execution(workers=workers))
    return Stages(store, executions, attempts, None, limits, [])


def test_scripted_a_stage_that_loses_a_node_goes_on_with_fewer_before_all_others_at_no_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes, store = TwoNodes(), StageStore(tmp_path)
    ran: list[tuple[Stage, int]] = []
    seen: list[dict[str, Any]] = []

    async def run(_: Any, attempt: Attempt, place: Place) -> None:
        ran.append((attempt.stage, place.shape.workers))
        for rank in range(place.shape.workers):
            process = Process(host=f"host{rank}", node=f"node{rank}", pid=1, started=0.0)
            await actor.at_work(attempt.stage.identity, rank, process)
        await all_wanted.wait()
        seen.append({each["identity"]: each for each in await actor.status()})
        if attempt.stage is FIRST and place.shape.workers == 2:
            nodes.there, nodes.gone = 1, 1
            raise RuntimeError("connection closed by peer")
        store.publish(attempt.stage, write={}, metrics={}, cost={"device_seconds": 1.0, "clips": 0})

    async def is_gone(_: set[str]) -> bool:
        return nodes.gone > 0

    script(monkeypatch, nodes, run, is_gone)

    async def scene() -> None:
        nonlocal actor, all_wanted
        all_wanted = asyncio.Event()
        actor = stages_of(store, workers=(1, 2), attempts=1)
        asked = []
        for number, stage in enumerate((FIRST, SECOND, PROBE), start=1):
            asked.append(asyncio.create_task(actor.want(stage, 1, [None])))
            while len(await actor.status()) < number or not ran:  # so that they come in order
                await asyncio.sleep(0.01)
        all_wanted.set()
        await asyncio.gather(*asked)

    actor: Any = None
    all_wanted: Any = None
    asyncio.run(asyncio.wait_for(scene(), timeout=60))
    assert ran == [(FIRST, 2), (FIRST, 1), (SECOND, 1), (PROBE, 1)]
    begun = seen[0]
    assert begun[FIRST.identity]["hosts"] == ["host0", "host1"]
    assert begun[FIRST.identity]["workers"] == 2
    assert begun[SECOND.identity]["why"] == "needs 1 CPU, free 0"
    assert begun[PROBE.identity]["why"] == "1 before it"


def bring(store: StageStore, attempts: int) -> list[dict[str, Any]]:
    """The first stage, on one worker; its events. Raises what its trial would hear."""

    async def scene() -> list[dict[str, Any]]:
        actor = stages_of(store, workers=1, attempts=attempts)
        await actor.want(FIRST, 1, [None])
        return (await actor.events(0))[0]

    return asyncio.run(asyncio.wait_for(scene(), timeout=60))


async def always_gone(_: set[str]) -> bool:
    return True


async def never_gone(_: set[str]) -> bool:
    return False


def published(store: StageStore) -> None:
    store.publish(FIRST, write={}, metrics={}, cost={"device_seconds": 1.0, "clips": 0})


@pytest.mark.parametrize("dies", ["at once", "while it writes a checkpoint"])
def test_scripted_a_stage_that_takes_down_every_node_it_is_given_fails_in_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dies: str
) -> None:
    store, ran = StageStore(tmp_path), list[Place]()

    async def run(_: Any, attempt: Attempt, place: Place) -> None:
        ran.append(place)
        if dies == "while it writes a checkpoint":
            store.checkpoint(FIRST.identity).write(f".last.pt-{len(ran)}.tmp", b"half")
        if len(ran) == 9:
            published(store)
        raise WorkerCrashedError

    script(monkeypatch, TwoNodes(), run, always_gone)
    with pytest.raises(StageFailed, match="its node was lost 3 times at the same checkpoint"):
        bring(store, attempts=2)
    assert len(ran) == 3


@pytest.mark.parametrize("died", ["in this sweep", "in an earlier one"])
def test_scripted_of_a_stage_whose_worker_died_right_after_its_record_nothing_else_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, died: str
) -> None:
    store = StageStore(tmp_path)

    def finish_and_die() -> None:
        published(store)
        store.checkpoint(FIRST.identity).write("last.pt", b"state")  # as if not yet tidied up

    async def run(_: Any, attempt: Attempt, place: Place) -> None:
        finish_and_die()
        raise WorkerCrashedError

    script(monkeypatch, TwoNodes(), run, never_gone)
    if died == "in an earlier one":
        finish_and_die()
    last = bring(store, attempts=1)[-1]["state"]
    assert last == ("finished" if died == "in this sweep" else "reused")
    assert store.checkpoint(FIRST.identity).listed() == []


def test_scripted_nodes_that_are_lost_after_a_checkpoint_or_with_a_warning_are_never_too_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, ran = StageStore(tmp_path), []

    async def run(_: Any, attempt: Attempt, place: Place) -> None:
        ran.append(place)
        if len(ran) % 2:
            store.checkpoint(FIRST.identity).write("last.pt", b"state" * len(ran))
        if len(ran) < 9:
            raise WorkerCrashedError
        published(store)

    script(monkeypatch, TwoNodes(), run, always_gone)
    bring(store, attempts=2)
    assert len(ran) == 9

    async def warned(_: Any, attempt: Attempt, place: Place) -> None:
        here = Process(host="host", node="spot", pid=1, started=0.0)
        await actor.at_work(FIRST.identity, 0, here)
        ran.append(place)
        if len(ran) < 19:
            raise WorkerCrashedError
        published(again)

    async def scene() -> None:
        nonlocal actor
        actor = stages_of(again, workers=1, attempts=1)
        actor._watch.going = {"spot"}
        await actor.want(FIRST, 1, [None])

    actor: Any = None
    again = StageStore(tmp_path / "again")
    script(monkeypatch, TwoNodes(), warned, never_gone)
    asyncio.run(asyncio.wait_for(scene(), timeout=60))
    assert len(ran) == 19


@pytest.mark.parametrize("known", ["by Ray's word", "by the gang that was there"])
def test_scripted_a_node_that_is_lost_before_its_workers_say_where_they_are_costs_no_attempt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: str
) -> None:
    store, ran = StageStore(tmp_path), []

    async def run(_: Any, attempt: Attempt, place: Place) -> None:
        ran.append(place)
        if len(ran) == 1 and known == "by Ray's word":
            raise NodeDiedError("it is gone")
        if len(ran) == 1:
            place.gang = Gang(place.shape, asyncio.get_running_loop().create_future())
            place.gang.workers[0] = Process(host="host", node="spot", pid=1, started=0.0)
            place.gang.over.set_result(None)
            raise WorkerCrashedError
        published(store)

    async def is_gone(ids: set[str]) -> bool:
        return ids == {"spot"}

    script(monkeypatch, TwoNodes(), run, is_gone)
    states = [event["state"] for event in bring(store, attempts=1)]
    assert states == ["queued", "started", "retry", "queued", "started", "finished"]


def test_scripted_a_gang_that_does_not_take_up_its_next_stage_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, ran, killed = StageStore(tmp_path), [], []
    store.poll_seconds = 0.01
    frozen = Process(host="host", node="node", pid=7, started=0.0)

    async def run(_: Any, attempt: Attempt, place: Place) -> None:
        ran.append(attempt.stage)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if attempt.stage is FIRST:
            place.gang = Gang(place.shape, over)
            await actor.at_work(FIRST.identity, 0, frozen)
        elif len(ran) == 2:  # stopped meanwhile, it says nothing
            assert place.gang is not None and place.gang.workers == {0: frozen}
            await dead.wait()
            place.gang.over.set_result(None)
            raise WorkerCrashedError
        store.publish(attempt.stage, write={}, metrics={}, cost={"device_seconds": 1.0, "clips": 0})

    def kill(process: Process) -> None:
        killed.append(process)
        dead.set()

    script(monkeypatch, TwoNodes(), run, never_gone)
    monkeypatch.setattr(Process, "kill", kill)

    async def scene() -> list[dict[str, Any]]:
        nonlocal actor, dead
        dead = asyncio.Event()
        limits = HangLimits(seconds=None, first_step_seconds=0.3)
        actor = stages_of(store, workers=1, attempts=2, limits=limits)
        for stage in (FIRST, SECOND):
            await actor.want(stage, 1, [None])
        return (await actor.events(0))[0]

    actor: Any = None
    dead: Any = None
    events = asyncio.run(asyncio.wait_for(scene(), timeout=60))
    (reason,) = [event["reason"] for event in events if event["state"] == "retry"]
    assert reason == "no first step for 0.3 s (worker 0 on host): killed"
    assert killed == [frozen] and ran == [FIRST, SECOND, SECOND]
