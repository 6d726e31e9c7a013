"""The room that the cluster has for stages, and the gangs that keep some of it warm."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain

from cluster.gangs import Gang, Place
from cluster.resources import (
    Cluster,
    Nodes,
    Resources,
    Shape,
    covers,
    free_by_host,
    shown,
    total,
    waits_for_placement,
    workers_on,
)

QUEUE_POLL_SECONDS = 0.2
IDLE_SECONDS = 20.0  # how long a gang without work keeps its room when nobody else wants it


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    arrival: int  # whose is lower came first
    identity: str
    shapes: Sequence[Shape]
    at_once: bool
    look: asyncio.Event = field(default_factory=asyncio.Event)  # there may be room for it now


class Room:
    """CPUs and GPUs by our own account. Whoever waits holds nothing.

    Whoever unblocks most stands first in the queue, of equals whoever came first. Nobody overtakes
    the first, so that a large gang is not starved by small stages, unless the first needs nodes
    that have gone: it has its turn again when they are back.

    Nodes that an autoscaler may start are room: what is placed on them waits for them, and so
    makes them come. A gang keeps the room of the stage that it has ended, until the next stage of
    that shape takes both, the first in the queue has no other room, or IDLE_SECONDS have passed.
    """

    def __init__(self, nodes: Nodes, unblocks: Callable[[str], int] = lambda identity: 0) -> None:
        """`unblocks`: how many stages wait for the one of this identity, as of now."""
        self._nodes = nodes
        self._unblocks = unblocks
        self._queue: list[_Waiting] = []
        self._arrivals: dict[str, int] = {}  # kept: who tries again is not sent to the end
        self._stages: dict[str, Shape] = {}
        self._idle: dict[Gang, asyncio.TimerHandle] = {}  # the longest idle first
        self._leaving: set[Gang] = set()
        self._going: set[str] = set()
        self._cluster, self._looked = nodes.now(), time.monotonic()
        self._head: _Waiting | None = None  # of the queue, as it was
        self._sorted = -math.inf  # at that time; not since the queue has changed

    def vacate(self, going: set[str]) -> None:
        """No gang waits for its next stage on one of these nodes, which are going away."""
        self._going = going
        for gang in [gang for gang in self._idle if gang.nodes & going]:
            self._end(gang)

    @asynccontextmanager
    async def place(
        self,
        identity: str,
        shapes: Sequence[Shape],
        check: Callable[[], None],
        *,
        at_once: bool = False,
    ) -> AsyncIterator[Place]:
        """Inside, the place is the stage's. What `check` raises while it waits ends the waiting.

        It has the first of the `shapes` for which there is room; `at_once`: on the nodes that are
        there, rather than on ones to be started, if any of the shapes fits on these.
        """
        arrival = self._arrivals.setdefault(identity, len(self._arrivals))
        waiting = _Waiting(arrival=arrival, identity=identity, shapes=shapes, at_once=at_once)
        self._queue.append(waiting)
        self._sorted = -math.inf
        try:
            check()
            while self._first() is not waiting or (shape := self._room_for(waiting)) is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(QUEUE_POLL_SECONDS):  # nodes come and go unheard
                        await waiting.look.wait()
                waiting.look.clear()
                check()
        finally:
            self._queue.remove(waiting)
            self._wake_first()
        place = Place(shape, self._idle_gang(shape))
        if place.gang is not None:
            self._idle.pop(place.gang).cancel()
        self._stages[identity] = shape
        try:
            yield place
        finally:
            del self._stages[identity]
            if place.gang is not None and not place.gang.over.done():
                wait = asyncio.get_running_loop().call_later
                self._idle[place.gang] = wait(IDLE_SECONDS, self._end, place.gang)
                self.vacate(self._going)
            self._wake_first()

    def lately(self) -> Cluster:
        """The nodes of a moment ago: one look at them serves all who ask."""
        if time.monotonic() - self._looked > QUEUE_POLL_SECONDS:
            self._cluster, self._looked = self._nodes.now(), time.monotonic()
        return self._cluster

    def _wake_first(self) -> None:
        """Asks nobody, so that no stage that has ended can fail here."""
        self._sorted = -math.inf
        if self._queue:
            min(self._queue, key=self._order).look.set()

    def _first(self) -> _Waiting | None:
        """Sorted once for all who wait: if each did it, a long queue would be all the work here."""
        if time.monotonic() - self._sorted > QUEUE_POLL_SECONDS:
            queue = sorted(self._queue, key=self._order)
            self._head = next((each for each in queue if self._fits(each)), None)
            self._sorted = time.monotonic()
        return self._head

    def _fits(self, waiting: _Waiting) -> bool:
        """Whether there are nodes for it."""
        narrowest = waiting.shapes[-1]
        return workers_on(self.lately().usable, narrowest) >= narrowest.workers

    def _order(self, waiting: _Waiting) -> tuple[int, int]:
        return -self._unblocks(waiting.identity), waiting.arrival

    def why(self, identity: str) -> str:
        """What a stage waits for that holds no place yet."""
        queue = sorted(self._queue, key=self._order)
        waiting = next((each for each in queue if each.identity == identity), None)
        if waiting is None:
            return "another sweep on this storage runs it"
        shape, cluster = waiting.shapes[-1], self._nodes.now()
        if (fit := workers_on(cluster.usable, shape)) < shape.workers:
            return f"waits for a node to come back: {shape.workers} workers, room for {fit}"
        if ahead := sum(self._fits(each) for each in queue[: queue.index(waiting)]):
            return f"{ahead} before it"
        free = self._free(cluster.usable, self._idle, self._leaving)
        short = {
            name: need for name, need in shape.need().items() if not covers(free, {name: need})
        }
        lacks = [f"{need:g} {name}, free {free[name]:g}" for name, need in short.items()]
        return f"needs {'; '.join(lacks)}" if lacks else "starts"

    def why_not_begun(self, identity: str) -> str:
        """What a stage waits for that holds a place, if its workers are not there yet."""
        if identity not in self._stages:
            return ""
        shape, there = self._stages[identity], self._nodes.now().there
        if workers_on(there, shape) < shape.workers or not covers(total(there), self._held()):
            return "waits for a node to start"
        if not waits_for_placement(shape):
            return ""
        free = "; ".join(f"{shown(free)} on {host}" for host, free in free_by_host())
        return f"needs {shape.workers} x {shown(shape.each())}, each on one node; free {free}"

    def usage(self, begun: Iterable[str]) -> dict[str, dict[str, float]]:
        """CPUs and GPUs: of the nodes that are `up`, `held` by stages and by gangs between two of
        them, `at_work` for the stages that have `begun`."""
        at_work = [self._stages[each] for each in begun if each in self._stages]
        up = total(self._nodes.now().there)
        return {"up": up, "held": self._held(), "at_work": _needs(at_work)}

    def _held(self) -> dict[str, float]:
        gangs = [gang.shape for gang in chain(self._idle, self._leaving)]
        return _needs([*self._stages.values(), *gangs])

    def _room_for(self, waiting: _Waiting) -> Shape | None:
        """The shape in which the first in the queue can start; idle gangs make room for it."""
        for gang in [gang for gang in self._idle if gang.over.done()]:  # it died
            self._idle.pop(gang).cancel()
        self._leaving = {gang for gang in self._leaving if not gang.over.done()}
        nodes = _nodes_for(waiting, self._nodes.now())
        fit = [shape for shape in waiting.shapes if workers_on(nodes, shape) >= shape.workers]
        if not fit:
            return None
        free = self._free(nodes)
        shape = next((shape for shape in fit if covers(free, shape.need())), fit[-1])
        need = shape.need()
        if self._idle_gang(shape) or covers(self._free(nodes, self._idle, self._leaving), need):
            return shape
        if self._idle and not covers(self._free(nodes, self._idle), need):
            self._end(next(iter(self._idle)))  # for those that leave are too few
        return None

    def _idle_gang(self, shape: Shape) -> Gang | None:
        """The one that has been idle the shortest, so that those too many grow old and leave."""
        return next((gang for gang in reversed(self._idle) if gang.shape == shape), None)

    def _end(self, gang: Gang) -> None:
        self._idle.pop(gang).cancel()
        self._leaving.add(gang)
        gang.over.add_done_callback(lambda _: self._wake_first())
        gang.end()

    def _free(self, nodes: Iterable[Resources], *gangs: Iterable[Gang]) -> dict[str, float]:
        """What of these nodes no stage holds, nor one of these gangs."""
        held = _needs([*self._stages.values(), *(gang.shape for gang in chain(*gangs))])
        return {name: amount - held[name] for name, amount in total(nodes).items()}


def _needs(shapes: Iterable[Shape]) -> dict[str, float]:
    return total(shape.need() for shape in shapes)


def _nodes_for(waiting: _Waiting, cluster: Cluster) -> Sequence[Resources]:
    there = cluster.there
    if waiting.at_once and any(workers_on(there, s) >= s.workers for s in waiting.shapes):
        return there
    return cluster.usable
