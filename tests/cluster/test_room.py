"""Whose turn it is, which gangs stay, what a gang's workers are told; without a cluster."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from cluster import gangs, room
from cluster.gangs import Gang, Place, Workers
from cluster.resources import Cluster, Shape
from cluster.room import Room
from cluster.stage_runs import Attempt, StageFailed
from cluster.vital_signs import Process
from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import StageStore

ONE, TWO, HALF = (Shape(workers=n, cpus=c, gpus=0) for n, c in ((1, 2), (2, 2), (1, 1)))
ALL = TWO
STAGE, NEXT_STAGE = "a stage's attempt", "the next one's"


@pytest.fixture(autouse=True)
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "QUEUE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(gangs, "AGREEMENT_SECONDS", 0.3)


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus}


@dataclass
class ScriptedNodes:
    """In place of a cluster's: what is there changes as a test says."""

    there: list[dict[str, float]]
    to_start: list[dict[str, float]] = field(default_factory=list)
    gone: list[dict[str, float]] = field(default_factory=list)

    def now(self) -> Cluster:
        return Cluster(there=self.there, to_start=self.to_start, gone=self.gone)


def a_room(
    *there: dict[str, float],
    unblocks: Callable[[str], int] = lambda identity: 0,
    **more: list[dict[str, float]],
) -> Room:
    return Room(ScriptedNodes([*there] or [node(4)], **more), unblocks)  # type: ignore[arg-type]


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), timeout=10))


def a_gang(shape: Shape) -> Any:
    return Gang(shape, asyncio.get_running_loop().create_future())


def asks(gang: Gang, rank: int, number: int = 0, mistake: str | None = None) -> Any:
    return asyncio.create_task(gang.next_order(rank, number, mistake))


async def stay(there: Room, name: str, shape: Shape, leaves: Gang | None = None) -> Gang | None:
    """A short stage, which may leave a gang behind; returns the gang that it found."""
    async with there.place(name, [shape], lambda: None) as place:
        found = place.gang
        await asyncio.sleep(0.05)
        if leaves is not None:
            place.gang = leaves
    return found


def test_the_next_stage_of_a_shape_gets_the_gang_that_the_last_one_left_unless_it_died() -> None:
    async def scene() -> None:
        there, left = a_room(), a_gang(ONE)
        assert await stay(there, "first", ONE, leaves=left) is None
        assert await stay(there, "of another shape", HALF) is None
        assert await stay(there, "second", ONE) is left
        assert await stay(there, "third", ONE) is left
        left.over.set_result(None)
        assert await stay(there, "fourth", ONE) is None
        assert await stay(there, "all that there is", TWO) is None

    play(scene)


def test_an_idle_gang_is_told_to_end_after_its_time_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "IDLE_SECONDS", 0.5)

    async def scene() -> None:
        there, left = a_room(), a_gang(ONE)
        asked = asks(left, rank=0)
        await stay(there, "first", ONE, leaves=left)
        await asyncio.sleep(0.3)
        await stay(there, "second", ONE)  # its time starts anew
        await asyncio.sleep(0.3)
        assert not asked.done()
        assert await asked is None

    play(scene)


def test_the_longest_idle_makes_room_for_another_shape_which_waits_until_it_is_gone() -> None:
    async def scene() -> None:
        there, old, young = a_room(), a_gang(ONE), a_gang(ONE)
        await asyncio.gather(stay(there, "1", ONE, old), stay(there, "2", ONE, young))
        asked_old, asked_young = asks(old, rank=0), asks(young, rank=0)
        other = asyncio.create_task(stay(there, "other", HALF))
        assert await asked_old is None
        await asyncio.sleep(0.1)
        assert not other.done()  # the old one is told, not gone
        old.over.set_result(None)
        assert await other is None
        assert not asked_young.done()

    play(scene)


def test_shapes_take_turns_in_the_order_in_which_they_came() -> None:
    async def scene() -> None:
        there, started = a_room(), []

        async def stage(name: str, shape: Shape) -> None:
            async with there.place(name, [shape], lambda: None):
                started.append(name)
                await asyncio.sleep(0.05)

        shapes = {"a": ONE, "b": TWO, "c": ONE, "d": ONE, "e": TWO, "f": ONE}
        await asyncio.gather(*(stage(name, shape) for name, shape in shapes.items()))
        assert started == [*"abcdef"]

    play(scene)


def test_the_next_begins_when_there_is_room_and_not_with_its_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "QUEUE_POLL_SECONDS", 3600.0)

    async def scene() -> None:
        there, left = a_room(), a_gang(ONE)
        asked = asks(left, rank=0)
        stages = [stay(there, "a", ONE, left), *(stay(there, name, TWO) for name in "bcd")]
        running = asyncio.gather(*stages)
        assert await asked is None  # told to make room
        left.over.set_result(None)
        await running

    play(scene)


def test_who_tries_again_has_the_turn_it_had_and_gets_the_widest_shape_that_there_is_room_for() -> (
    None
):
    elastic = [Shape(workers=n, cpus=2, gpus=0) for n in (4, 2, 1)]

    async def scene() -> None:
        nodes = ScriptedNodes([node(4), node(4)])
        there = Room(nodes)  # type: ignore[arg-type]
        got: list[Any] = []

        async def stage(name: str, shapes: list[Shape], **how: Any) -> None:
            async with there.place(name, shapes, lambda: None, **how) as place:
                got.append((name, place.shape.workers))
                await asyncio.sleep(0.05)

        await stage("first", elastic)
        nodes.gone = [nodes.there.pop()]
        ahead = asyncio.create_task(stage("holds all", [TWO]))
        await asyncio.sleep(0)
        later = asyncio.create_task(stage("later", [TWO]))
        await asyncio.sleep(0.02)
        assert there.why("later") == "needs 4 CPU, free 0"
        again = asyncio.create_task(stage("first", elastic, at_once=True))
        await asyncio.sleep(0)
        assert there.why("later") == "1 before it"
        await asyncio.gather(ahead, later, again)
        assert got == [("first", 4), ("holds all", 2), ("first", 2), ("later", 2)]
        assert there.usage([]) == {"up": node(4), "held": node(0), "at_work": node(0)}

    play(scene)


def test_nodes_that_may_start_are_room_but_not_for_who_goes_on_with_what_is_there() -> None:
    elastic = [Shape(workers=n, cpus=2, gpus=0) for n in (2, 1)]

    async def scene() -> None:
        there = a_room(node(2), to_start=[node(2)])
        async with there.place("waits for a node", elastic, lambda: None) as place:
            assert place.shape.workers == 2
            assert there.why_not_begun("waits for a node") == "waits for a node to start"
        async with there.place("goes on", elastic, lambda: None, at_once=True) as place:
            assert place.shape.workers == 1
        none = a_room(node(0), to_start=[node(2), node(2)])
        async with none.place("makes them come", elastic, lambda: None, at_once=True) as place:
            assert place.shape.workers == 2

    play(scene)


def test_a_stage_whose_node_has_gone_waits_for_it_to_come_back_and_says_so() -> None:
    async def scene() -> None:
        nodes = ScriptedNodes([node(2)], gone=[node(2)])
        there = Room(nodes)  # type: ignore[arg-type]
        waiting = asyncio.create_task(stay(there, "stage", TWO))
        await asyncio.sleep(0.05)
        assert there.why("stage") == "waits for a node to come back: 2 workers, room for 1"
        nodes.there.append(nodes.gone.pop())
        await waiting

    play(scene)


def test_who_waits_for_a_node_to_come_back_keeps_nobody_from_those_that_are_there() -> None:
    async def scene() -> None:
        nodes = ScriptedNodes([node(2)], gone=[node(2)])
        there = Room(nodes)  # type: ignore[arg-type]
        wide = asyncio.create_task(stay(there, "wide", TWO))
        await asyncio.sleep(0.05)
        await stay(there, "narrow", ONE)
        assert not wide.done()

        release = asyncio.Event()

        async def holds() -> None:
            async with there.place("holds", [ONE], lambda: None):
                await release.wait()

        held = asyncio.create_task(holds())
        await asyncio.sleep(0.05)
        later = asyncio.create_task(stay(there, "later", ONE))
        await asyncio.sleep(0.05)
        assert there.why("later") == "needs 2 CPU, free 0"
        assert there.why("wide") == "waits for a node to come back: 2 workers, room for 1"
        nodes.there.append(nodes.gone.pop())
        await asyncio.sleep(0.1)
        assert there.why("later") == "1 before it"  # though there is room for it now
        release.set()
        await asyncio.gather(held, wide, later)

    play(scene)


def test_parts_of_a_gpu_share_it_beside_each_other_and_never_lie_across_two() -> None:
    part = Shape(workers=1, cpus=1, gpus=0.4)  # two on one GPU

    async def scene() -> None:
        there, inside, most = a_room(node(8, 2)), 0, 0

        async def task(name: str) -> None:
            nonlocal inside, most
            async with there.place(name, [part], lambda: None):
                inside += 1
                most = max(most, inside)
                usage = there.usage([name])
                assert (usage["held"]["GPU"], usage["at_work"]["GPU"]) == (inside / 2, 0.5)
                await asyncio.sleep(0.05)
                inside -= 1

        await asyncio.gather(*(task(f"{number}") for number in range(9)))
        assert most == 4

    play(scene)


def test_a_mistake_that_all_workers_make_fails_the_stage_and_the_next_order_comes() -> None:
    async def scene() -> None:
        gang = a_gang(TWO)
        running = asyncio.create_task(gang.run(STAGE))
        assert await asyncio.gather(asks(gang, 0), asks(gang, 1)) == [(1, STAGE)] * 2
        first = asks(gang, 0, 1, "too few clips")
        await asyncio.sleep(0.1)
        assert not running.done()
        second = asks(gang, 1, 1, "too few clips")
        with pytest.raises(StageFailed, match="too few clips"):
            await running
        running = asyncio.create_task(gang.run(NEXT_STAGE))
        assert await asyncio.gather(first, second) == [(2, NEXT_STAGE)] * 2
        for rank in (0, 1):
            asks(gang, rank, 2)
        await running

    play(scene)


def test_a_worker_that_fails_alone_is_told_so_and_the_stage_fails_once_the_gang_is_gone() -> None:
    async def scene() -> None:
        gang = a_gang(TWO)
        running = asyncio.create_task(gang.run(STAGE))
        await asyncio.gather(asks(gang, 0), asks(gang, 1))
        with pytest.raises(StageFailed, match="only me"):
            await asks(gang, 1, 1, "only me")
        assert not running.done()
        gang.over.set_exception(RuntimeError("the Train run fails"))
        with pytest.raises(StageFailed, match="only me"):
            await running
        gang.over.exception()

    play(scene)


def test_a_gang_on_a_node_that_goes_away_is_told_to_end_and_no_stage_is_given_it() -> None:
    async def scene() -> None:
        there, left = a_room(), a_gang(ONE)
        left.workers = {0: Process(host="host", node="spot", pid=1, started=0.0)}
        asked = asks(left, rank=0)
        await stay(there, "first", ONE, leaves=left)
        there.vacate({"another"})
        assert not asked.done()
        there.vacate({"spot"})
        assert await asked is None
        again = a_gang(ONE)
        again.workers = left.workers
        assert await stay(there, "second", ONE, leaves=again) is None
        assert await asks(again, rank=0) is None  # it began there before that was known
        left.over.set_result(None)
        again.over.set_result(None)
        assert await stay(there, "third", ONE) is None

    play(scene)


def test_what_ended_the_gang_is_the_error_of_the_stage_and_nobody_waits_for_ever() -> None:
    async def scene() -> None:
        gang = a_gang(TWO)
        running = asyncio.create_task(gang.run(STAGE))
        await asyncio.gather(asks(gang, 0), asks(gang, 1))
        waiting = asks(gang, 0, 1)
        gang.over.set_exception(RuntimeError("out of memory"))
        with pytest.raises(RuntimeError, match="out of memory"):
            await running
        assert await waiting is None

    play(scene)


def test_a_worker_gives_up_what_each_stage_held_and_looks_through_what_it_imported_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[weakref.ref[Any]] = []
    orders = iter([*((number, STAGE) for number in (1, 2, 3)), None])

    class Model:
        def __init__(self) -> None:
            self.itself = self  # nothing but the collector frees it

    def work(*_: Any) -> None:
        assert all(each() is None for each in held)
        held.append(weakref.ref(Model()))

    monkeypatch.setattr(gangs, "work", work)
    monkeypatch.setattr(gangs.ray, "get", lambda _: next(orders))
    monkeypatch.setattr("ray.train.get_context", MagicMock())
    try:
        gangs._carry_out_orders({"gang": "gang", "stages": MagicMock()})
        assert [each() for each in held] == [None] * 3
        assert gc.get_freeze_count() > len(gc.get_objects())
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("kind", "gpus", "left", "ran"),
    [
        ("align", 0, False, "a new gang"),
        ("probe", 0, False, "a task"),
        ("probe", 0, True, "the gang that was there"),
        ("probe", 0.25, False, "a task"),
        ("probe", 1, True, "the gang that was there"),
    ],
)
def test_what_trains_runs_in_a_gang_and_the_rest_as_a_task_unless_a_gang_is_there(
    monkeypatch: pytest.MonkeyPatch, kind: str, gpus: float, left: bool, ran: str
) -> None:
    log = []

    def train_run(*_: Any) -> None:
        log.append("a new gang")
        time.sleep(0.1)
        raise RuntimeError("it cannot start here")

    monkeypatch.setattr(gangs, "_train_run", train_run)
    monkeypatch.setattr(gangs, "run_task", lambda *_: log.append("a task"))
    attempt = Attempt(
        stage=Stage(kind=kind, settings={}),
        store=StageStore(Path("/nowhere")),
        datasets=None,
        execution=toy_execution(),
        stages=None,
        probes=None,
    )

    async def scene() -> None:
        shape = Shape(workers=1, cpus=1, gpus=gpus)
        there = a_gang(shape) if left else None
        running = asyncio.create_task(Workers().run(attempt, Place(shape, there)))
        if there is not None:
            assert await asks(there, 0) == (1, attempt)
            log.append("the gang that was there")
            asks(there, 0, 1)
        await asyncio.wait({running})
        assert (running.exception() is not None) == (ran == "a new gang")

    play(scene)
    assert log == [ran]


def test_who_unblocks_most_stands_first_and_of_equals_who_came_first() -> None:
    async def scene() -> None:
        behind = {"busy": 0, "lone": 1, "trunk": 9, "other lone": 1}
        there, begun = a_room(unblocks=behind.__getitem__), []

        async def stage(name: str) -> None:
            async with there.place(name, [ALL], lambda: None):
                begun.append(name)
                await asyncio.sleep(0.05)

        await asyncio.gather(*(stage(name) for name in behind))
        assert begun == ["busy", "trunk", "lone", "other lone"]

    play(scene)


def test_a_stage_that_more_wait_for_meanwhile_moves_up_in_the_queue() -> None:
    async def scene() -> None:
        behind = {"busy": 0, "first": 1, "second": 1}
        there = a_room(unblocks=behind.__getitem__)
        asked = [asyncio.create_task(stay(there, name, ALL)) for name in behind]
        await asyncio.sleep(0.02)
        assert there.why("second") == "1 before it"
        behind["second"] = 5
        assert there.why("first") == "1 before it"
        await asyncio.gather(*asked)

    play(scene)


def test_a_long_queue_is_sorted_once_for_all_who_wait_and_not_by_each() -> None:
    async def scene() -> None:
        asked: list[str] = []
        there, release = (
            a_room(unblocks=lambda name: len(asked.append(name) or "")),
            asyncio.Event(),
        )

        async def stage(name: str) -> None:
            async with there.place(name, [ALL], lambda: None):
                await release.wait()

        stages = [asyncio.create_task(stage(str(number))) for number in range(101)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        asked.clear()
        await asyncio.sleep(0.5)
        looks = (time.monotonic() - began) / room.QUEUE_POLL_SECONDS
        assert len(asked) <= 100 * (looks + 2)  # were it by each, a hundred times as often
        for each in stages:
            each.cancel()

    play(scene)
