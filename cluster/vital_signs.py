"""What the workers of one attempt at a stage say of themselves, and what ends one that is stuck."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

BEAT_SECONDS = 1.0  # the most often a worker says that it lives
NODES_SECONDS = 1.0  # how soon it is seen that a node is going away
ANSWER_SECONDS = 0.1  # how long it waits for what is said to that before it takes its next step


@dataclass(frozen=True, kw_only=True)
class HangLimits:
    """How long an attempt may be silent; None: for ever."""

    seconds: float | None  # without a step
    first_step_seconds: float | None  # before the first: compiling, warming up, a cold disk


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process on a node of the cluster."""

    host: str
    node: str  # Ray's id of it
    pid: int
    started: float  # seconds since 1970; with `pid`: this one, and none that has its number later

    @staticmethod
    def this() -> Process:
        return Process(
            host=socket.gethostname(),
            node=ray.get_runtime_context().get_node_id(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
        )

    def kill(self) -> None:
        """SIGKILL to it and all its children, by a task on its node. Returns before that runs.

        Ray asks a process to end, which one that is stopped or in a loop does not hear.
        """
        here = NodeAffinitySchedulingStrategy(self.node, soft=False)
        ray.remote(_kill).options(
            name=f"kill {self.pid}", num_cpus=0, max_retries=0, scheduling_strategy=here
        ).remote(self.pid, self.started)


def _kill(pid: int, started: float) -> None:
    try:
        process = psutil.Process(pid)
        if process.create_time() == started:
            for each in [*process.children(recursive=True), process]:
                each.kill()
    except psutil.NoSuchProcess:
        pass


@dataclass
class VitalSigns:
    """Of one attempt's workers, by rank. Time passes by `tick`, for whoever keeps them may be late
    himself: what he has not heard in that time is nobody's silence.
    """

    limits: HangLimits
    workers: dict[int, Process] = field(default_factory=dict)
    told_to_leave: bool = False
    _silent: dict[int, float] = field(default_factory=dict)  # seconds
    _stepped: set[int] = field(default_factory=set)

    def at_work(self, rank: int, process: Process) -> None:
        self.workers[rank] = process
        self._silent[rank] = 0.0
        self._stepped.discard(rank)

    def beat(self, rank: int) -> None:
        self._silent[rank] = 0.0
        self._stepped.add(rank)

    def waits(self) -> None:
        """One waits for a storage that refuses, and the others for it: none of them is stuck."""
        self._silent = dict.fromkeys(self._silent, 0.0)

    def tick(self, seconds: float) -> str | None:
        """Let time pass. Why the attempt counts as stuck; None if it does not.

        A gang is as silent as the least silent of its workers, for the others wait while one has
        something to do of its own; where one hangs, all fall silent at the next step.
        """
        for rank in self.workers:
            self._silent[rank] += seconds
        stepped = self._stepped >= self.workers.keys()
        limit = self.limits.seconds if stepped else self.limits.first_step_seconds
        if not self.workers or limit is None or min(self._silent.values()) <= limit:
            return None
        # The one that has been silent for longest is the one that the others wait for.
        rank = max(sorted(self.workers), key=self._silent.__getitem__)
        which, host = ("step", "first step")[not stepped], self.workers[rank].host
        return f"no {which} for {limit:g} s (worker {rank} on {host})"

    def kill(self) -> None:
        """Kill the workers; `tick` calls for it again if they live on for as long, silently."""
        for rank, worker in self.workers.items():
            self._silent[rank] = 0.0
            worker.kill()

    def nodes(self) -> set[str]:
        return {process.node for process in self.workers.values()}

    def hosts(self) -> list[str]:
        return sorted({process.host for process in self.workers.values()})


class Watch:
    """Over the workers of all stages, and over the nodes that are going away."""

    def __init__(self, limits: HangLimits, nodes_going: Callable[[], set[str]]) -> None:
        self._limits = limits
        self._nodes_going = nodes_going
        self._signs: dict[str, VitalSigns] = {}  # identity -> of its last attempt
        self.going: set[str] = set()  # nodes, gone by now or not

    def begin(self, identity: str, there: Mapping[int, Process]) -> VitalSigns:
        """An attempt at a stage begins; with the workers that are there, if any."""
        signs = self._signs[identity] = VitalSigns(self._limits)
        for rank, process in there.items():
            signs.at_work(rank, process)
        return signs

    def of(self, identity: str) -> VitalSigns:
        return self._signs[identity]

    def begun(self) -> list[str]:
        """The stages whose workers have begun."""
        return [identity for identity, signs in self._signs.items() if signs.workers]

    def at_work(self, identity: str, rank: int, process: Process) -> None:
        if identity in self._signs:
            self._signs[identity].at_work(rank, process)

    def beat(self, identity: str, rank: int) -> bool:
        """Whether that worker must leave."""
        signs = self._signs.get(identity)
        if signs is None:  # of an earlier life of who watches
            return False
        signs.beat(rank)
        signs.told_to_leave = signs.told_to_leave or self.must_leave(signs)
        return signs.told_to_leave

    def waits(self, identity: str) -> None:
        if identity in self._signs:
            self._signs[identity].waits()

    def must_leave(self, signs: VitalSigns) -> bool:
        return bool(signs.nodes() & self.going)

    async def nodes(self, vacate: Callable[[set[str]], None]) -> None:
        """For ever: see which nodes are going away; `vacate` is told those."""
        while True:
            with suppress(Exception):  # Ray's own store was not to be reached: ask again
                self.going |= self._nodes_going()
            vacate(self.going)
            await asyncio.sleep(NODES_SECONDS)


def pulse(tell: Callable[[], Any]) -> Callable[[], bool]:
    """What a stage calls on its way, as often as it likes: `tell` makes a Ray call now and then.

    It returns what that call answered last: whether to leave this place.
    """
    asked: ray.ObjectRef | None = None
    told, leave = 0.0, False

    def beat() -> bool:
        nonlocal asked, told, leave
        patience = 0.0
        if asked is None and time.monotonic() - told > BEAT_SECONDS:
            asked, told, patience = tell(), time.monotonic(), ANSWER_SECONDS
        if asked is not None and ray.wait([asked], timeout=patience)[0]:
            leave, asked = ray.get(asked), None
        return leave

    return beat
