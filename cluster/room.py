"""The room that the cluster has for stages, and the gangs that keep some of it warm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import chain

from cluster.gangs import Gang, Place
from cluster.resources import Shape, in_all

QUEUE_POLL_SECONDS = 0.2
IDLE_SECONDS = 20.0  # how long a gang without work keeps its room when nobody else wants it


class Room:
    """CPUs and GPUs by our own account. Whoever waits holds nothing.

    Whoever unblocks most stands first in the queue, of equals whoever came first. Nobody overtakes
    the first, so that a large gang is not starved by small stages.

    A gang keeps the room of the stage that it has ended, until the next stage of that shape takes
    both, the first in the queue has no other room, or IDLE_SECONDS have passed.
    """

    def __init__(self, unblocks: Callable[[str], int] = lambda identity: 0) -> None:
        """`unblocks`: how many stages wait for the one of this identity, as of now."""
        self._unblocks = unblocks
        self._queue: list[str] = []  # in the order of arrival
        self._stages: dict[str, Shape] = {}
        self._idle: dict[Gang, asyncio.TimerHandle] = {}  # the longest idle first
        self._leaving: set[Gang] = set()
        self._going: set[str] = set()

    def vacate(self, going: set[str]) -> None:
        """No gang waits for its next stage on one of these nodes, which are going away."""
        self._going = going
        for gang in [gang for gang in self._idle if gang.nodes & going]:
            self._end(gang)

    @asynccontextmanager
    async def place(
        self, identity: str, shape: Shape, check: Callable[[], None]
    ) -> AsyncIterator[Place]:
        """Inside, the place is the stage's. What `check` raises while it waits ends the waiting."""
        self._queue.append(identity)
        try:
            check()
            while self._in_order()[0] != identity or not self._is_room(shape):
                await asyncio.sleep(QUEUE_POLL_SECONDS)
                check()
        finally:
            self._queue.remove(identity)
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

    def _in_order(self) -> list[str]:
        return sorted(self._queue, key=lambda identity: -self._unblocks(identity))

    def why(self, identity: str, need: Mapping[str, float]) -> str:
        """What a stage waits for."""
        if identity not in self._queue:
            return "another sweep on this storage runs it"
        if ahead := self._in_order().index(identity):
            return f"{ahead} before it"
        free = self._free(self._idle, self._leaving)
        lacks = [f"{n:g} {name}, free {free[name]:g}" for name, n in need.items() if n]
        return f"needs {'; '.join(lacks)}"

    def _is_room(self, shape: Shape) -> bool:
        """Whether the first in the queue can start; if not, an idle gang makes room for it."""
        for gang in [gang for gang in self._idle if gang.over.done()]:  # it died
            self._idle.pop(gang).cancel()
        self._leaving = {gang for gang in self._leaving if not gang.over.done()}
        if self._idle_gang(shape) or _covers(self._free(self._idle, self._leaving), shape):
            return True
        if self._idle and not _covers(self._free(self._idle), shape):  # those that leave: too few
            self._end(next(iter(self._idle)))
        return False

    def _idle_gang(self, shape: Shape) -> Gang | None:
        """The one that has been idle the shortest, so that those too many grow old and leave."""
        return next((gang for gang in reversed(self._idle) if gang.shape == shape), None)

    def _end(self, gang: Gang) -> None:
        self._idle.pop(gang).cancel()
        self._leaving.add(gang)
        gang.end()

    def _free(self, *gangs: Iterable[Gang]) -> dict[str, float]:
        """What no stage holds, nor one of these gangs."""
        free = in_all()
        for shape in [*self._stages.values(), *(gang.shape for gang in chain(*gangs))]:
            for name, need in shape.need().items():
                free[name] -= need
        return free


def _covers(free: Mapping[str, float], shape: Shape) -> bool:
    return all(free[name] >= need for name, need in shape.need().items())
