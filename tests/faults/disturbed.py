"""The real command on a cluster of nodes, while something is done to it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.conftest import until
from tests.faults.aftermath import Steps, check_aftermath, finished_stages, storage_of
from tests.faults.ray_nodes import Node, RayNodes
from tests.sweeps.commands import command


class DisturbedSweep:
    """A sweep that is run, disturbed, run again if its process ended, and looked at in the end."""

    def __init__(self, sweep: Path, cluster: RayNodes) -> None:
        self.sweep, self.cluster = sweep, cluster
        self.faults = 0
        self.measured: dict[str, Any] = {}
        self._finished: dict[str, int] = {}
        self._arguments: tuple[str, ...] = ()
        self._log = sweep.parent / "log"

    def start(self, *arguments: str) -> None:
        """With the arguments of the last time, if none are given."""
        self._arguments = arguments or self._arguments
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                command(self.sweep, *self._arguments),
                cwd=self.sweep.parent,
                env=self.cluster.submit_environment,
                stdout=log,
                stderr=log,
            )

    def wait_for(self, moment: Callable[[], Any], seconds: float = 300) -> None:
        """Until `moment` is true, while the command runs."""
        deadline = time.monotonic() + seconds
        while not moment():
            assert self.process.poll() is None, f"it has ended: {self.printed()}"
            assert time.monotonic() < deadline, f"waited for {seconds} s: {self.printed()}"
            time.sleep(0.02)

    def wait_for_training(self, kind: str, step: int) -> str:
        """Until a stage of the `kind` that is not finished has taken the step; its identity."""
        found: list[str] = []

        def trains() -> bool:
            for identity, taken in self.steps().taken.items():
                there = storage_of(self.sweep) / "stages" / identity / "record.json"
                if self.kind_of(identity) == kind and taken[-1][0] >= step and not there.exists():
                    found.append(identity)
            return bool(found)

        self.wait_for(trains)
        return found[0]

    def kind_of(self, identity: str) -> str:
        plan = json.loads((storage_of(self.sweep) / "toy" / "plan.json").read_text())
        kind: str = plan["stages"][identity]["kind"]
        return kind

    def steps(self) -> Steps:
        return Steps.read(self.cluster.trace)

    def trainer(self, identity: str) -> psutil.Process:
        """The process that took the stage's last step."""
        return psutil.Process(self.steps().taken[identity][-1][1])

    def node_of(self, identity: str) -> Node:
        """The node that the stage trains on."""
        parent = self.trainer(identity).ppid()
        (found,) = [n for n in self.cluster.nodes if n.lives() and n.raylet.pid == parent]
        return found

    def last_trainer(self) -> psutil.Process:
        """The process that took the last step of all."""
        last = max((taken[-1] for taken in self.steps().taken.values()), key=lambda step: step[2])
        return psutil.Process(last[1])

    def goes_on(self, seconds: float = 5.0) -> bool:
        """Whether something trains; waits for so long that it may."""
        seen, end = self.steps().last(), time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if self.steps().last() > seen:
                return True
            time.sleep(0.1)
        return False

    def attempts(self, identity: str) -> int:
        file = storage_of(self.sweep) / "stages" / identity / "attempts"
        return len(file.read_text()) if file.exists() else 0

    def fault(
        self,
        strike: Callable[[], object],
        identity: str,
        mend: Callable[[], object] = lambda: None,
    ) -> None:
        """Do it; mend it; wait until the stage is tried again; wait until a step is taken.

        What runs then, and nothing else, holds a place on the cluster.
        """
        self.faults += 1
        self._finished |= finished_stages(self.sweep)
        before, moment = self.attempts(identity), time.time()
        process = self.trainer(identity).pid
        strike()
        mend()
        self.wait_for(lambda: self.attempts(identity) > before)
        self.measured["seconds until the next attempt"] = round(time.time() - moment, 1)
        self.wait_for(lambda: self.steps().by_others(identity, process))
        went_on = self.steps().by_others(identity, process)[0]
        self.measured["seconds until the next step"] = round(went_on - moment, 1)
        self.every_group_has_workers()

    def kill_driver(self) -> None:
        """Of the one trial that runs; until another process has taken its place."""
        (driver,) = self.cluster.find("ray::ImplicitFunc")
        self._finished |= finished_stages(self.sweep)
        driver.kill()
        self.wait_for(lambda: [d for d in self.cluster.find("ray::ImplicitFunc") if d != driver])
        self.every_group_has_workers()

    def kill_entry_process_and_submit_again(self) -> None:
        """All that it started ends by itself, and gives back what it held, before it is started."""
        began = time.time()
        self.process.kill()
        self.process.wait()
        self.nothing_is_left()
        self.measured["seconds until all has ended"] = round(time.time() - began, 1)
        self.start()

    def every_group_has_workers(self) -> None:
        """While the sweep runs, for with its job's end Ray removes even a group that was leaked.

        One that is about to start has none yet: it must get some, or go.
        """
        without = self.cluster.groups_without_workers()

        def none_stays() -> bool:
            without.intersection_update(self.cluster.groups_without_workers())
            return not without

        until(none_stays, seconds=120)

    def nothing_is_left(self) -> None:
        """Of what the sweep held on the cluster."""
        until(lambda: not self.cluster.left_behind(), seconds=60)

    def end(self, seconds: float = 400) -> None:
        code = self.process.wait(timeout=seconds)
        assert code == 0, self.printed()
        self.nothing_is_left()

    def check(
        self, undisturbed: Path, most_repeated: int, score_tolerance: float | None = None
    ) -> None:
        """See `check_aftermath`; and that every step of what trained was taken."""
        steps = self.steps()
        self.measured["steps repeated"] = sum(steps.repeated().values())
        print(json.dumps(self.measured))
        check_aftermath(
            self.sweep,
            undisturbed,
            finished_before=self._finished,
            steps=steps,
            most_repeated=most_repeated,
            score_tolerance=score_tolerance,
        )

    def all_printed(self) -> str:
        return self._log.read_text()

    def printed(self) -> str:
        return self.all_printed()[-3000:]
