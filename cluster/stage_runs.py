"""One attempt at a stage on the cluster: a Ray Train run if it trains, a Ray task if not."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from trainables.config import Execution
from trainables.data.catalog import Dataset
from trainables.stage import TRAINED, Stage
from trainables.stage_store import StageStore

QUEUE_POLL_SECONDS = 0.2
DEATHS = (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError)


class StageFailed(Exception):
    """A stage that is not tried again; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """All that a worker needs. `datasets` is a reference, fetched where the stage runs."""

    stage: Stage
    number: int
    store: StageStore
    datasets: ray.ObjectRef
    execution: Execution
    stages: Any  # the `Stages` actor, asked whether the stage is still wanted


def run(attempt: Attempt) -> None:
    """Run the stage until it is finished, or stopped because nobody wants it. Blocks.

    Raises whatever Ray makes of the failure; see `explain`.
    """
    if attempt.stage.kind in TRAINED:
        _run_under_train(attempt)
        return
    task = ray.remote(_work).options(
        name=f"{attempt.stage.kind} {attempt.stage.identity}",
        num_cpus=attempt.execution.cpus_per_worker,
        num_gpus=attempt.execution.gpus_per_worker,
        max_retries=0,  # the attempts are counted by `Stages`
    )
    ray.get(task.remote({"attempt": attempt}))


def needs(stage: Stage, execution: Execution) -> dict[str, float]:
    """The CPUs and GPUs that the stage holds while it runs."""
    workers = execution.workers if stage.kind in TRAINED else 1
    return {
        "CPU": float(workers * execution.cpus_per_worker),
        "GPU": workers * execution.gpus_per_worker,
    }


def what_is_short(stage: Stage, execution: Execution) -> str | None:
    """Why the cluster can never run the stage, with the remedy; None if it can."""
    workers = execution.workers if stage.kind in TRAINED else 1
    each = {"CPU": float(execution.cpus_per_worker), "GPU": execution.gpus_per_worker}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(_times(each, node) for node in nodes)
    limits = _autoscaling_limits()
    if limits is not None:
        room = max(room, _times(each, limits))
    if room >= workers:
        return None
    totals = {name: sum(node.get(name, 0.0) for node in nodes) for name in each}
    there = f"{len(nodes)} node{'s' * (len(nodes) != 1)} with {_shown(totals)} in all"
    if limits is not None:
        there += f", and can grow to {_shown(limits)}"
    return (
        f"needs {workers} worker{'s' * (workers != 1)} of {_shown(each)}, but the cluster has room "
        f"for {room} (it has {there}); lower execution's workers, cpus_per_worker or "
        f"gpus_per_worker for {stage.kind}, or add nodes"
    )


class Room:
    """CPUs and GPUs by our own account, first come first served. Whoever waits holds nothing."""

    def __init__(self) -> None:
        self._queue: list[str] = []
        self._held: dict[str, dict[str, float]] = {}

    @asynccontextmanager
    async def held(
        self, identity: str, need: dict[str, float], check: Callable[[], None]
    ) -> AsyncIterator[None]:
        """Inside, `need` is the stage's. What `check` raises while it waits ends the waiting."""
        self._queue.append(identity)
        try:
            check()
            while self._queue[0] != identity or not self._fits(need):
                await asyncio.sleep(QUEUE_POLL_SECONDS)
                check()
        finally:
            self._queue.remove(identity)
        self._held[identity] = need
        try:
            yield
        finally:
            del self._held[identity]

    def why(self, identity: str, need: Mapping[str, float]) -> str:
        """What a stage waits for."""
        if identity not in self._queue:
            return "another sweep on this storage runs it"
        if ahead := self._queue.index(identity):
            return f"{ahead} before it"
        free = self._free()
        lacks = [f"{n:g} {name}, free {free[name]:g}" for name, n in need.items() if n]
        return f"needs {'; '.join(lacks)}"

    def _fits(self, need: Mapping[str, float]) -> bool:
        return all(free >= need[name] for name, free in self._free().items())

    def _free(self) -> dict[str, float]:
        """Of what there is, or what the autoscaler would start: what no stage holds."""
        there, limits = ray.cluster_resources(), _autoscaling_limits() or {}
        return {
            name: max(there.get(name, 0.0), limits.get(name, 0.0))
            - sum(held[name] for held in self._held.values())
            for name in ("CPU", "GPU")
        }


def explain(error: BaseException) -> tuple[str, bool]:
    """Why an attempt failed, and whether another one may go better."""
    errors = list(_causes(error))
    for cause in errors:
        if isinstance(cause, StageFailed):
            return str(cause), False
    for cause in errors:
        if isinstance(cause, DEATHS):
            return "a worker process died (killed, out of memory, or its node is gone)", True
    return f"{type(errors[0]).__name__}: {errors[0]}", True


def _run_under_train(attempt: Attempt) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    execution = attempt.execution
    scratch = attempt.store.root.parent / "train_runs"
    name = f"{attempt.stage.identity}-{attempt.number}"
    for left_over in scratch.glob(f"{attempt.stage.identity}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    resources = {"CPU": float(execution.cpus_per_worker), "GPU": execution.gpus_per_worker}
    trainer = _trainer_class(execution.workers)(
        _work,
        train_loop_config={"attempt": attempt},
        scaling_config=ScalingConfig(
            num_workers=execution.workers,
            use_gpu=execution.gpus_per_worker > 0,
            resources_per_worker={key: value for key, value in resources.items() if value},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(scratch),
            # A node that is reclaimed costs no attempt; every other failure is for `Stages`.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(scratch / name, ignore_errors=True)


def _trainer_class(workers: int) -> Any:
    """Ray's trainer, less what this run has no use for: the start of a run is most of a short one.

    One process needs no group; without, neither this process nor the controller imports torch.
    """
    if workers == 1:
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer as Trainer
    else:
        from ray.train.torch import TorchTrainer as Trainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback

    class WithoutRayData(Trainer):
        def _create_default_callbacks(self) -> list[Any]:
            # Saves a process: the one that would hand out Ray datasets.
            made = super()._create_default_callbacks()
            return [callback for callback in made if not isinstance(callback, DatasetsCallback)]

    return WithoutRayData


def _work(config: dict[str, Any]) -> None:
    """What every worker of a stage does."""
    from trainables.stage_run import NonFiniteLoss, StageStopped
    from trainables.stages.run import run_stage

    attempt: Attempt = config["attempt"]
    datasets: Mapping[str, Dataset] = ray.get(attempt.datasets)

    def unwanted() -> bool:
        answer: bool = ray.get(attempt.stages.unwanted.remote(attempt.stage.identity))
        return answer

    try:
        run_stage(attempt.stage, attempt.store, datasets, attempt.execution, unwanted)
    except StageStopped:
        return
    except (ValueError, NonFiniteLoss) as error:  # the next attempt would end the same way
        raise StageFailed(str(error)) from None


def _causes(error: BaseException) -> list[BaseException]:
    """What lies behind Ray's wrappings, one for each worker that failed."""
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    if isinstance(error, WorkerGroupError):
        return [cause for each in error.worker_failures.values() for cause in _causes(each)]
    if isinstance(error, ControllerError):
        return _causes(error.controller_failure)
    if isinstance(error, WorkerHealthCheckFailedError):
        return _causes(error.health_check_failure)
    if isinstance(error, RayTaskError) and error.cause is not None:
        return _causes(error.cause)
    return [error]


def _autoscaling_limits() -> dict[str, float] | None:
    """The most that a cluster with an autoscaler can have; None without one."""
    limits: dict[str, float] | None = (
        ray._private.state.state.get_max_resources_from_cluster_config()
    )
    return limits


def _times(each: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many workers that need `each` a node has room for."""
    return min(math.floor(node.get(name, 0.0) / need) for name, need in each.items() if need)


def _shown(resources: Mapping[str, float]) -> str:
    words = [f"{resources.get('CPU', 0):g} CPU"]
    if resources.get("GPU"):
        words.append(f"{resources['GPU']:g} GPU")
    return " and ".join(words)
