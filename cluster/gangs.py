"""A gang: the workers of one Ray Train run, which run one stage after another.

A Train run takes longer to start than many a stage to train. The `Stages` actor gives a gang its
orders: each worker asks for the next one and says how the last one ended. So workers without work
wait outside of any collective operation, and one that fails alone is heard while the others
wait for it inside one.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray

from cluster.resources import Shape
from cluster.stage_runs import Attempt, StageFailed, run_task, work
from cluster.vital_signs import Process
from trainables.stage import TRAINED

AGREEMENT_SECONDS = 10.0  # after one worker's mistake, for the others to make it too


class Gang:
    """A gang as the `Stages` actor sees it, on whose event loop it lives.

    `over` ends with the Train run: with an error, or without one after `end`.
    """

    def __init__(self, shape: Shape, over: asyncio.Future[None]) -> None:
        self.shape, self.over = shape, over
        self.workers: dict[int, Process] = {}  # by rank, as they have said; they never move
        self._number = 0
        self._prepare_order()

    @property
    def nodes(self) -> set[str]:
        return {process.node for process in self.workers.values()}

    def _prepare_order(self) -> None:
        loop = asyncio.get_running_loop()
        self._number += 1
        self._order: asyncio.Future[Attempt | None] = loop.create_future()
        self._said: dict[int, str | None] = {}  # rank -> its user's mistake, if any
        self._all_said: asyncio.Future[None] = loop.create_future()

    async def run(self, attempt: Attempt) -> None:
        """Returns when every worker has ended the stage.

        Raises StageFailed for a user's mistake, else what ended the gang; see `explain`.
        """
        said, all_said = self._said, self._all_said
        self._order.set_result(attempt)
        await _first_of(all_said, self.over)
        for mistake in said.values():
            if mistake is not None:
                raise StageFailed(mistake)
        if not all_said.done():
            self.over.result()
            raise AssertionError("the workers of a gang left before they were told to")

    def end(self) -> None:
        """No more orders: the workers return. Not while a stage runs."""
        self._order.set_result(None)

    async def next_order(
        self, rank: int, number: int, mistake: str | None
    ) -> tuple[int, Attempt] | None:
        """What worker `rank` asks: the order after `number`, which ended with a `mistake` or not.

        A worker that asks after 0 is new. None: there are no more.

        Raises:
            StageFailed: no other worker made that mistake, and they may wait for this one for
                ever. Raised in the worker, it ends the Train run.
        """
        if number == self._number:
            said, all_said = self._said, self._all_said
            said[rank] = mistake
            if len(said) == self.shape.workers:
                all_said.set_result(None)
                self._prepare_order()
            patience = None if mistake is None else AGREEMENT_SECONDS
            await _first_of(all_said, self.over, seconds=patience)
            if not all_said.done() and not self.over.done():
                raise StageFailed(mistake)
        await _first_of(self._order, self.over)
        attempt = None if self.over.done() else self._order.result()
        return None if attempt is None else (self._number, attempt)


@dataclass
class Place:
    """Room for one stage while it runs, and the gang that is there."""

    shape: Shape
    gang: Gang | None  # one that was left there, then one that is left there

    def workers(self) -> dict[int, Process]:
        """Those that are there."""
        return {} if self.gang is None or self.gang.over.done() else self.gang.workers


class Workers:
    """Runs stages for the `Stages` actor, on its event loop: in gangs, or as Ray tasks."""

    def __init__(self) -> None:
        self._gangs: dict[str, Gang] = {}
        self._threads = ThreadPoolExecutor(max_workers=1024)  # one waits on each gang and task

    async def run(self, attempt: Attempt, place: Place) -> None:
        """In the gang that is there or, if it trains, in a new one; else as a Ray task.

        Raises as `Gang.run`.
        """
        if place.gang is None or place.gang.over.done():
            in_gang = attempt.stage.kind in TRAINED
            place.gang = self._start(place.shape, attempt.stages) if in_gang else None
        if place.gang is not None:
            await place.gang.run(attempt)
        else:
            await self._in_thread(run_task, attempt, place.shape)

    async def next_order(
        self, gang: str, rank: int, number: int, mistake: str | None
    ) -> tuple[int, Attempt] | None:
        """See `Gang.next_order`. None, too, for workers of an earlier life of the actor."""
        if gang not in self._gangs:
            return None
        return await self._gangs[gang].next_order(rank, number, mistake)

    def _start(self, shape: Shape, stages: Any) -> Gang:
        name = f"gang-{secrets.token_hex(8)}"  # no lock: two runs of one name mix their files
        over = self._in_thread(_train_run, name, shape, stages)
        gang = self._gangs[name] = Gang(shape, over)
        over.add_done_callback(lambda _: self._gangs.pop(name))
        return gang

    def _in_thread(self, function: Callable[..., None], *arguments: Any) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _train_run(name: str, shape: Shape, stages: Any) -> None:
    """The Train run of a gang: blocks until there are no more orders, raises what ended it."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    # Workers would look for this folder only to keep a checkpoint there: it need not be shared.
    with tempfile.TemporaryDirectory(prefix="gang-", ignore_cleanup_errors=True) as scratch:
        trainer = _trainer_class(shape.workers)(
            _carry_out_orders,
            train_loop_config={"gang": name, "stages": stages},
            scaling_config=ScalingConfig(
                num_workers=shape.workers,
                use_gpu=shape.gpus > 0,
                resources_per_worker={key: value for key, value in shape.each().items() if value},
            ),
            run_config=RunConfig(
                name=name,
                storage_path=scratch,
                failure_config=FailureConfig(  # every failure is for `Stages`
                    max_failures=0, controller_failure_limit=0, max_preemption_failures=0
                ),
            ),
        )
        trainer.fit()


def _trainer_class(workers: int) -> Any:
    """Ray's trainer, less what a gang has no use for.

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


def _carry_out_orders(config: dict[str, Any]) -> None:
    """What every worker of a gang does."""
    from ray.train import get_context

    stages, gang = config["stages"], config["gang"]
    rank = get_context().get_world_rank()
    number, mistake = 0, None
    while order := ray.get(stages.next_order.remote(gang, rank, number, mistake)):
        number, attempt = order
        mistake = work(attempt, rank)
        # What the stage held is free before the next one comes, or others on the device want it.
        gc.collect()
        if number == 1:  # what is left was imported, and need not be looked through each time
            gc.freeze()
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()


def give_back_earlier_groups() -> None:
    """Remove the placement groups that an earlier life of this actor has left.

    Ray gives back those of gangs whose workers had started. One that was about to start would hold
    its CPUs and GPUs for as long as the job lasts.
    """
    from ray.util.placement_group import PlacementGroup, remove_placement_group
    from ray.util.state import list_placement_groups

    job = ray.get_runtime_context().get_job_id()
    for group in list_placement_groups(limit=10_000, detail=True):
        held = [bundle["unit_resources"] for bundle in group.bundles]
        trains = any(each.get("CPU") or each.get("GPU") for each in held)
        if group.creator_job_id == job and group.state != "REMOVED" and trains:
            remove_placement_group(
                PlacementGroup(ray.PlacementGroupID.from_hex(group.placement_group_id))
            )


async def _first_of(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until one of them is done, for so long at most; cancels none."""
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
