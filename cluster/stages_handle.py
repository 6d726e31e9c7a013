"""The `Stages` actor as the entry process and the trials see it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.resources import (
    Nodes,
    driver_resources,
    nodes_that_may_start,
    shapes_of,
    trials_to_feed,
    what_is_short,
)
from cluster.stage_runs import StageFailed, said_by
from cluster.stages import Stages
from cluster.vital_signs import HangLimits
from trainables.config import Execution
from trainables.data.catalog import Dataset
from trainables.intermediate_probes import IntermediateProbes
from trainables.stage import Stage, executed_as
from trainables.stage_store import StageStore

LOOK_SECONDS = 2.0
NO_TRIAL = -1  # who wants a stage that no trial wants


class Executions(Protocol):
    """How each kind of stage runs; `tasks` are the kinds that do not train."""

    @property
    def mae(self) -> Execution: ...
    @property
    def align(self) -> Execution: ...
    @property
    def finetune(self) -> Execution: ...
    @property
    def tasks(self) -> Execution: ...
    @property
    def attempts(self) -> int: ...
    @property
    def hang_seconds(self) -> float | None: ...
    @property
    def first_step_seconds(self) -> float | None: ...
    @property
    def driver_resource(self) -> str | None: ...


class StagesHandle:
    """The `Stages` actor as others see it. It dies with the process that made the handle.

    It runs where drivers do, else on the node of that process. `probes` are made of what aligns.
    Raises ValueError if no node is for drivers.
    """

    def __init__(
        self,
        store: StageStore,
        datasets: Mapping[str, Dataset],
        executions: Executions,
        probes: IntermediateProbes | None = None,
    ) -> None:
        here = ray.get_runtime_context()
        self.driver_resources = driver_resources(executions.driver_resource)
        actor = ray.remote(Stages).options(
            num_cpus=0,
            resources=self.driver_resources,
            # What gives back a dead Train run's CPUs asks for this, or gives up where it finds
            # more than one Ray on the machine. All that the actor starts inherits it.
            runtime_env={"env_vars": {"RAY_ADDRESS": here.gcs_address}},
            max_concurrency=100_000,  # each waiting trial is a call
            # All calls can be made again: what was finished is in the store.
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy="DEFAULT"
            if self.driver_resources
            else NodeAffinitySchedulingStrategy(here.get_node_id(), soft=False),
        )
        self.store = store
        self._executions = {
            name: getattr(executions, name) for name in ("mae", "align", "finetune", "tasks")
        }
        self._datasets = ray.put(dict(datasets))
        self.probes = probes
        limits = HangLimits(
            seconds=executions.hang_seconds, first_step_seconds=executions.first_step_seconds
        )
        may_start = nodes_that_may_start()
        self._nodes = Nodes(may_start)
        self._looked, self._trials_at_once = -LOOK_SECONDS, 1
        self._actor = actor.remote(
            self.store, self._executions, executions.attempts, probes, limits, may_start
        )

    def check_room(self, stages: Iterable[Stage]) -> None:
        """Raises ValueError, saying what is short, if the cluster can never run one of them."""
        for kind, stage in {stage.kind: stage for stage in stages}.items():
            execution = self._executions[executed_as(kind)]
            if short := what_is_short(stage, execution, self._nodes.now()):
                raise ValueError(f"execution of {kind}: {short}")

    def trials_at_once(self, stages: Iterable[Stage]) -> int:
        """How many trials of such stages the cluster can feed, with the nodes that it may start.

        As many as it can run of the widest of these stages at once; at least 1. The cluster is
        looked at every LOOK_SECONDS.
        """
        if time.monotonic() > self._looked + LOOK_SECONDS:
            shapes = [shapes_of(each, self._executions[executed_as(each.kind)]) for each in stages]
            self._trials_at_once = trials_to_feed(shapes, self._nodes.now())
            self._looked = time.monotonic()
        return self._trials_at_once

    def datasets(self) -> dict[str, Dataset]:
        datasets: dict[str, Dataset] = ray.get(self._datasets)
        return datasets

    def want(self, stage: Stage, trial: int) -> ray.ObjectRef:
        """A reference to the stage's record; see `Stages.want` for what `ray.get` raises."""
        return self._actor.want.remote(stage, trial, [self._datasets])

    def want_all(self, stages: Iterable[Stage]) -> None:
        """Returns when all are finished. Raises StageFailed if one fails; OSError as `want`."""
        try:
            ray.get([self.want(stage, NO_TRIAL) for stage in stages])
        except OSError as error:
            raise OSError(f"the storage: {said_by(error)}") from error

    def want_each(self, stages: Iterable[Stage]) -> list[BaseException]:
        """Returns when all have ended, and why some failed. Raises OSError as `want`."""
        failed: list[BaseException] = []
        for wanted in [self.want(stage, NO_TRIAL) for stage in stages]:
            try:
                ray.get(wanted)
            except StageFailed as error:
                failed.append(said_by(error))
            except OSError as error:
                raise OSError(f"the storage: {said_by(error)}") from error
        return failed

    def drop(self, trial: int) -> None:
        self._actor.drop.remote(trial)

    def events(self, since: int) -> tuple[list[dict[str, Any]], int]:
        """See `Stages.events`."""
        events, following = ray.get(self._actor.events.remote(since))
        return events, following

    def status(self) -> list[dict[str, Any]]:
        """See `Stages.status`."""
        status: list[dict[str, Any]] = ray.get(self._actor.status.remote())
        return status

    def usage(self) -> dict[str, dict[str, float]]:
        """See `Room.usage`."""
        usage: dict[str, dict[str, float]] = ray.get(self._actor.usage.remote())
        return usage

    def kill(self, *, restart: bool = False) -> None:
        """End the actor and all that it runs."""
        ray.kill(self._actor, no_restart=not restart)
