"""When a plan would be done on so many devices: its stages queued as the cluster queues them.

Graham's list scheduling: whenever devices are free, the stage at the head of the queue takes its
own if they suffice; who unblocks the longest chain of work stands first. As in `cluster.room`
nobody overtakes the head, so that a large gang is not starved by small ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stage that is to be made. Times are wall-clock seconds of its gang."""

    seconds: float
    devices: float  # of its whole gang; less than one where several share a device
    waits_for: Sequence[str] = ()  # names of tasks
    trials: Sequence[int] = ()  # that want it; none: wanted from the start


def makespan(
    tasks: Mapping[str, Task], devices: float, concurrent: int | None = None
) -> float | None:
    """Seconds until all `tasks` are done; None where one needs more devices than there are.

    `concurrent`: trials at a time, in the order of their numbers; None: all at once.
    """
    if any(task.devices > devices for task in tasks.values()):
        return None
    rank = critical_paths(tasks)
    missing = {name: {each for each in t.waits_for if each in tasks} for name, t in tasks.items()}
    dependants = _dependants(tasks)
    trials = _Trials(tasks, concurrent)
    queue = [(-rank[name], name) for name in trials.begun() if not missing[name]]
    heapq.heapify(queue)
    running: list[tuple[float, str]] = []
    queued = {name for _, name in queue}
    now, free = 0.0, devices
    while queue or running:
        while queue and tasks[queue[0][1]].devices <= free + 1e-9:
            _, name = heapq.heappop(queue)
            free -= tasks[name].devices
            heapq.heappush(running, (now + tasks[name].seconds, name))
        now, done = heapq.heappop(running)
        free += tasks[done].devices
        for name in dependants[done]:
            missing[name].discard(done)
        for name in (*dependants[done], *trials.ended(done)):
            if not missing[name] and name not in queued and trials.wanted(name):
                queued.add(name)
                heapq.heappush(queue, (-rank[name], name))
    assert len(queued) == len(tasks), "the tasks wait for each other"
    return now


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
