"""One attempt at a stage: what a worker does, as a Ray task or in a gang, and why it failed."""

from __future__ import annotations

from collections.abc import Mapping
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

from cluster.resources import Shape
from cluster.vital_signs import Process, pulse
from trainables.config import Execution
from trainables.data.catalog import Dataset
from trainables.intermediate_probes import IntermediateProbes
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.storage.folder import PASSING, while_waiting

DEATHS = (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError)


class StageFailed(Exception):
    """A stage that is not tried again; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """All that a worker needs. `datasets` is a reference, fetched where the stage runs."""

    stage: Stage
    store: StageStore
    datasets: ray.ObjectRef
    execution: Execution
    stages: Any  # the `Stages` actor: told that the stage goes on, asked whether it is wanted
    probes: IntermediateProbes | None


def work(attempt: Attempt, rank: int = 0) -> str | None:
    """Run the stage on this process until it is finished, or stopped: unwanted, or not wanted here.

    `rank`: this process's among those that run it.

    Returns the user's mistake, if there was one: the next attempt would end the same way. What is
    raised instead leaves the process in doubt (memory, the device): it should end.
    """
    stages, identity = attempt.stages, attempt.stage.identity
    stages.at_work.remote(identity, rank, Process.this())  # from now on its time passes

    from trainables.stage_run import NonFiniteLoss, StageStopped
    from trainables.stages.run import run_stage

    datasets: Mapping[str, Dataset] = ray.get(attempt.datasets)

    def unwanted() -> bool:
        answer: bool = ray.get(stages.unwanted.remote(identity))
        return answer

    beat = pulse(lambda: stages.beat.remote(identity, rank))
    before = while_waiting.set(lambda: stages.waits.remote(identity))
    try:
        run_stage(
            attempt.stage,
            attempt.store,
            datasets,
            attempt.execution,
            unwanted,
            attempt.probes,
            beat,
        )
    except StageStopped:
        pass
    except (ValueError, NonFiniteLoss) as error:
        return str(error)
    finally:
        while_waiting.reset(before)
    return None


def run_task(attempt: Attempt, shape: Shape) -> None:
    """Run the stage as a Ray task. Blocks.

    Raises StageFailed for a user's mistake, else whatever Ray makes of the failure; see `explain`.
    """
    task = ray.remote(
        num_cpus=shape.cpus,
        num_gpus=shape.gpus,
        max_calls=1 if shape.gpus else 0,  # the process ends, and so gives back the GPU's memory
        max_retries=0,  # the attempts are counted by `Stages`
    )(work)
    name = f"{attempt.stage.kind} {attempt.stage.identity}"
    mistake = ray.get(task.options(name=name).remote(attempt))
    if mistake is not None:
        raise StageFailed(mistake)


class Stuck(Exception):
    """Workers that took no step for too long, and were killed."""


def explain(error: BaseException) -> tuple[str, bool]:
    """Why an attempt failed, and whether another one may go better."""
    if isinstance(error, StageFailed):
        return str(error), False
    if isinstance(error, Stuck):
        return str(error), True
    errors = _causes(error)
    if any(isinstance(cause, DEATHS) for cause in errors):
        return "a worker process died (killed, out of memory, or its node is gone)", True
    return f"{type(errors[0]).__name__}: {errors[0]}", True


def never_placed(error: BaseException | None) -> bool:
    """Whether the workers waited for room that did not come. They have held nothing."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return any(isinstance(cause, WorkerGroupStartupTimeoutError) for cause in _causes(error))


def lost_its_node(error: BaseException | None) -> bool:
    """Whether a node was lost, by Ray's own word, or workers were lost before they had begun."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

    lost = NodeDiedError, WorkerGroupStartupFailedError
    return any(isinstance(cause, lost) for cause in _causes(error))


def refused_by_storage(error: BaseException | None) -> OSError | None:
    """What the storage said, where that a worker waited for it in vain is what `error` is about."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in PASSING:
            return cause
    return None


def said_by(error: BaseException) -> BaseException:
    """What was raised in another process, without Ray's wrapping."""
    return error.cause if isinstance(error, RayTaskError) else error


def _causes(error: BaseException | None) -> list[BaseException]:
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
    return [] if error is None else [error]
