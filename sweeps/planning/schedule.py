"""When a plan would be done on so many devices, by Graham's list scheduling.

Whenever devices are free, the stage at the head of the queue takes its own if they suffice. As in
`cluster.room` nobody overtakes the head, so that a large gang is not starved by small ones. Who
stands first is not told as there: here whoever unblocks the longest chain of work, in seconds; the
cluster goes by no prices, and by the number of stages that wait.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.planning.spot import Nodes, Spot


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stage that is to be made. Times are wall-clock seconds of its gang."""

    seconds: float
    devices: float  # of its whole gang; less than one where several share a device
    waits_for: Sequence[str] = ()  # names of tasks
    trials: Sequence[int] = ()  # that want it; none: wanted from the start
    fewer: Sequence[float] = ()  # devices that it makes do with, the most first
    checkpoint_seconds: float = math.inf  # of work between two checkpoints; infinite: none


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of the tasks."""

    seconds: float  # until all are done
    taken_back: int  # nodes
    interrupted: int  # times that a task was
    repeated: float  # device-seconds of work that was done again
    restarting: float  # device-seconds that were held, but for no step


def makespan(
    tasks: Mapping[str, Task], devices: float, concurrent: int | None = None
) -> float | None:
    """Seconds until all `tasks` are done; None where one needs more devices than there are.

    `concurrent`: trials at a time, in the order of their numbers; None: all at once.
    """
    if any(task.devices > devices for task in tasks.values()):
        return None
    return simulate(tasks, [devices], concurrent).seconds


def simulate(
    tasks: Mapping[str, Task],
    nodes: Sequence[float],
    concurrent: int | None = None,
    spot: Spot | None = None,
) -> Run:
    """Run the tasks on nodes of so many devices each, which together are enough for any of them.

    A task that loses a node gives back all its devices and stands in the queue again, with what
    its last checkpoint holds. With as many of the devices it takes, of `fewer`, it is that much
    slower, to its end.
    """
    assert all(min((task.devices, *task.fewer)) <= sum(nodes) for task in tasks.values())
    return _Simulation(tasks, Nodes(nodes, spot), concurrent, spot).run()


@dataclass
class _Attempt:
    number: int
    devices: float
    begins: float  # its first step; before, it restarts
    speed: float  # seconds of work in a second


class _Simulation:
    def __init__(
        self,
        tasks: Mapping[str, Task],
        nodes: Nodes,
        concurrent: int | None,
        spot: Spot | None,
    ) -> None:
        self._tasks, self._nodes, self._spot = tasks, nodes, spot
        self._rank = critical_paths(tasks)
        self._missing = {
            n: {each for each in t.waits_for if each in tasks} for n, t in tasks.items()
        }
        self._dependants = _dependants(tasks)
        self._trials = _Trials(tasks, concurrent)
        self._queue: list[tuple[float, str]] = []
        self._queued: set[str] = set()
        self._running: dict[str, _Attempt] = {}
        self._ends: list[tuple[float, str, int]] = []  # of attempts, those that were cut included
        self._kept: dict[str, float] = {}  # seconds of work that a checkpoint holds
        self._attempts = 0
        self._interrupted, self._repeated, self._restarting = 0, 0.0, 0.0

    def run(self) -> Run:
        now = 0.0
        self._enqueue(self._trials.begun())
        while self._queue or self._running:
            while self._queue and self._start(self._queue[0][1], now):
                heapq.heappop(self._queue)
            if self._ends and self._ends[0][0] <= self._nodes.next_change:
                end, name, number = heapq.heappop(self._ends)
                if name in self._running and self._running[name].number == number:
                    now = end
                    self._finish(name)
            else:
                now = self._nodes.next_change
                for name in self._nodes.change():
                    self._interrupt(name, now)
        assert len(self._queued) == len(self._tasks), "the tasks wait for each other"
        return Run(
            seconds=now,
            taken_back=self._nodes.taken_back,
            interrupted=self._interrupted,
            repeated=self._repeated,
            restarting=self._restarting,
        )

    def _enqueue(self, names: Iterable[str]) -> None:
        for name in names:
            if not self._missing[name] and name not in self._queued and self._trials.wanted(name):
                self._queued.add(name)
                heapq.heappush(self._queue, (-self._rank[name], name))

    def _start(self, name: str, now: float) -> bool:
        task = self._tasks[name]
        for devices in (task.devices, *task.fewer):
            if self._nodes.take(name, devices):
                break
        else:
            return False
        begins = now + (self._spot.restart_seconds if self._spot and name in self._kept else 0.0)
        self._attempts += 1
        speed = devices / task.devices if task.devices else 1.0
        attempt = _Attempt(self._attempts, devices, begins, speed)
        self._running[name] = attempt
        left = task.seconds - self._kept.get(name, 0.0)
        heapq.heappush(self._ends, (begins + left / attempt.speed, name, attempt.number))
        self._restarting += (begins - now) * devices
        return True

    def _finish(self, name: str) -> None:
        del self._running[name]
        self._nodes.give_back(name)
        for other in self._dependants[name]:
            self._missing[other].discard(name)
        self._enqueue([*self._dependants[name], *self._trials.ended(name)])

    def _interrupt(self, name: str, now: float) -> None:
        task, attempt = self._tasks[name], self._running.pop(name)
        self._nodes.give_back(name)
        kept = self._kept.get(name, 0.0)
        done = kept + max(0.0, now - attempt.begins) * attempt.speed
        every = task.checkpoint_seconds
        self._kept[name] = kept if math.isinf(every) else done // every * every
        self._interrupted += 1
        self._repeated += (done - self._kept[name]) * task.devices
        self._restarting -= max(0.0, attempt.begins - now) * attempt.devices
        heapq.heappush(self._queue, (-self._rank[name], name))


def critical_paths(tasks: Mapping[str, Task]) -> dict[str, float]:
    """Of each task, the seconds of the longest chain of tasks that begins with it."""
    dependants = _dependants(tasks)
    found: dict[str, float] = {}
    for name in reversed(_in_order(tasks)):
        behind = max((found[each] for each in dependants[name]), default=0.0)
        found[name] = tasks[name].seconds + behind
    return found


class _Trials:
    """Which trials run: a task is queued when one that wants it does."""

    def __init__(self, tasks: Mapping[str, Task], concurrent: int | None) -> None:
        self._tasks = tasks
        self._left: dict[int, set[str]] = {}
        for name, task in tasks.items():
            for trial in task.trials:
                self._left.setdefault(trial, set()).add(name)
        self._waiting = sorted(self._left)
        started = len(self._waiting) if concurrent is None else concurrent
        self._running = set(self._waiting[:started])
        del self._waiting[:started]

    def wanted(self, name: str) -> bool:
        trials = self._tasks[name].trials
        return not trials or not self._running.isdisjoint(trials)

    def begun(self) -> Iterable[str]:
        return [name for name in self._tasks if self.wanted(name)]

    def ended(self, done: str) -> list[str]:
        """The task is done; the tasks of the trials that begin because others ended with it."""
        new: list[str] = []
        for trial in self._tasks[done].trials:
            self._left[trial].discard(done)
            if not self._left[trial] and trial in self._running:
                self._running.discard(trial)
                new += self._next()
        return new

    def _next(self) -> list[str]:
        while self._waiting:
            trial = self._waiting.pop(0)
            if self._left[trial]:  # else all it wanted was made for others
                self._running.add(trial)
                return sorted(self._left[trial])
        return []


def _dependants(tasks: Mapping[str, Task]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in tasks}
    for name, task in tasks.items():
        for each in task.waits_for:
            if each in tasks:
                found[each].append(name)
    return found


def _in_order(tasks: Mapping[str, Task]) -> list[str]:
    """Every task after those it waits for."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for each in tasks[name].waits_for:
                if each in tasks:
                    visit(each)
            order[name] = None

    for name in tasks:
        visit(name)
    return list(order)
