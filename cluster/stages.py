"""The `Stages` actor: every stage once, however many trials want it and whoever of them dies.

What is finished is read from the stage store; nothing here need survive the process.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ray

from cluster.attempts import Attempts, asked, attend, tidy_up
from cluster.gangs import Place, Workers, give_back_earlier_groups
from cluster.resources import Nodes, Resources, is_gone, nodes_going, shapes_of, what_is_short
from cluster.room import Room
from cluster.stage_events import StageEvents
from cluster.stage_runs import (
    Attempt,
    StageFailed,
    Stuck,
    explain,
    lost_its_node,
    never_placed,
    refused_by_storage,
)
from cluster.trunk_lines import TrunkLines
from cluster.vital_signs import HangLimits, Process, Watch
from trainables.config import Execution
from trainables.intermediate_probes import IntermediateProbes
from trainables.stage import Stage, executed_as
from trainables.stage_store import Record, StageStore
from trainables.storage.lease import Lease


class StageDropped(Exception):
    """Nobody wants the stage any more; its checkpoint is kept."""


class Stages:
    """Starts every stage of a sweep. An actor on one event loop: between awaits nothing changes."""

    def __init__(
        self,
        store: StageStore,
        executions: dict[str, Execution],
        attempts: int,
        probes: IntermediateProbes | None,
        limits: HangLimits,
        may_start: Sequence[Resources],
    ) -> None:
        self._store = store
        self._datasets: ray.ObjectRef = None  # comes with each call, as it must outlive a restart
        self._executions = executions  # by `executed_as`
        self._attempts = attempts
        self._probes = probes
        self._watch = Watch(limits, nodes_going)
        self._watching: asyncio.Task[None] | None = None
        self._wanted_by: defaultdict[str, set[int]] = defaultdict(set)
        self._trunks = TrunkLines()
        self._runs: dict[str, asyncio.Task[Record]] = {}  # identity -> the one that brings it
        self._waiting_for: defaultdict[str, set[str]] = defaultdict(set)  # with all behind these
        self._nodes = Nodes(may_start)
        self._room = Room(self._nodes, lambda identity: len(self._waiting_for[identity]))
        self._workers = Workers()
        self._events = StageEvents()
        if ray.get_runtime_context().was_current_actor_reconstructed:
            give_back_earlier_groups()

    async def want(self, stage: Stage, trial: int, datasets: list[ray.ObjectRef]) -> dict[str, Any]:
        """The record of `stage`, once it is finished.

        `datasets`: one reference, always the same; in a list, so that Ray does not fetch it.

        Raises:
            StageFailed: it, or a stage that it needs, failed for good; now or earlier.
            StageDropped: the trial was dropped while it waited.
            OSError: the storage refuses for longer than its patience; it may be wanted again.
        """
        self._datasets = datasets[0]
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch.nodes(self._room.vacate))
        for part in {part.identity: part for part in stage.chain()}.values():
            self._wanted_by[part.identity].add(trial)
            self._trunks.add(part)
            for earlier in part.chain():
                self._waiting_for[earlier.identity].add(part.identity)
        while True:
            try:
                return asdict(await self._once(stage))
            except StageDropped:  # for want of this trial, or just before it came
                if trial not in self._wanted_by[stage.identity]:
                    raise

    async def drop(self, trial: int) -> None:
        """The trial wants nothing any more. What nobody else wants is forgotten, or stops."""
        for trials in self._wanted_by.values():
            trials.discard(trial)

    async def unwanted(self, identity: str) -> bool:
        return not self._wanted_by[identity]

    async def at_work(self, identity: str, rank: int, process: Process) -> None:
        """A worker says where it runs the stage."""
        self._watch.at_work(identity, rank, process)

    async def beat(self, identity: str, rank: int) -> bool:
        """A worker says that it has taken a step. Whether it must leave that place."""
        return self._watch.beat(identity, rank)

    async def waits(self, identity: str) -> None:
        """A worker says that the storage refuses, and that it waits for it."""
        self._watch.waits(identity)

    async def next_order(
        self, gang: str, rank: int, number: int, mistake: str | None
    ) -> tuple[int, Attempt] | None:
        """See `Workers.next_order`."""
        return await self._workers.next_order(gang, rank, number, mistake)

    async def events(self, since: int) -> tuple[list[dict[str, Any]], int]:
        """See `StageEvents.since`."""
        return self._events.since(since)

    async def status(self) -> list[dict[str, Any]]:
        """The last event of each stage that runs or waits.

        One that has a place has `attempt`, `since` when that runs, how many `workers`, and their
        `hosts`. `why` says what it waits for, or for what its workers wait that have not begun.
        """
        running = [each | self._where(each["identity"]) for each in self._events.running()]
        queued = [
            each | {"why": self._room.why(each["identity"])} for each in self._events.queued()
        ]
        return running + queued

    def _where(self, identity: str) -> dict[str, Any]:
        hosts = self._watch.of(identity).hosts()
        return {"hosts": hosts} | ({} if hosts else {"why": self._room.why_not_begun(identity)})

    async def usage(self) -> dict[str, dict[str, float]]:
        """See `Room.usage`."""
        return self._room.usage(self._watch.begun())

    async def _once(self, stage: Stage) -> Record:
        if stage.identity not in self._runs:
            self._runs[stage.identity] = asyncio.create_task(self._bring(stage))
        return await asyncio.shield(self._runs[stage.identity])

    async def _bring(self, stage: Stage) -> Record:
        """Find the stage finished, or its inputs first and then the stage itself."""
        try:
            record = await self._record(stage)
            if record is not None:
                await tidy_up(stage, self._store)
                self._tell(stage, "reused")
                return record
            execution = self._executions[executed_as(stage.kind)]
            if what_is_short(stage, execution, self._room.lately()):  # a node may just have come
                if short := what_is_short(stage, execution, self._nodes.now()):
                    raise self._failure(stage, short)
            await asyncio.gather(*(self._once(each) for each in stage.inputs.values()))
            await self._shorter(stage)
            try:
                return await self._alone(stage, execution)
            except OSError as error:
                self._tell(stage, "stopped", reason=f"the storage: {error}")
                raise
        except (StageDropped, OSError):
            del self._runs[stage.identity]  # may be wanted again
            raise

    async def _shorter(self, trunk: Stage) -> None:
        """Wait for the trunks of the run that end earlier, so that no step is trained twice."""
        while last := self._trunks.before(trunk, self._wanted_by):
            try:
                await self._once(last)
                return
            except StageDropped:
                self._check_wanted(trunk)

    async def _alone(self, stage: Stage, execution: Execution) -> Record:
        """Run the stage when the cluster has room and no other sweep on this storage runs it."""
        shapes, at_once = shapes_of(stage, execution), False
        lease, attempts = self._store.lease(stage.identity), Attempts(self._attempts)
        self._tell(stage, "queued")
        while True:
            while not at_once and (await asked(lease.holder)) is not None:
                self._check_wanted(stage)
                await asyncio.sleep(self._store.poll_seconds)
            async with self._room.place(
                stage.identity, shapes, lambda: self._check_wanted(stage), at_once=at_once
            ) as place:
                if not await asked(lease.take):
                    at_once = False  # another sweep goes on with it
                    continue
                try:
                    record = await self._record(stage)  # another sweep may have finished it
                    if record is not None:
                        self._tell(stage, "reused")
                        return record
                    record = await self._attempts_at(stage, execution, place, lease, attempts)
                finally:
                    await asked(lease.give_back)
            if record is not None:
                return record
            # With fewer workers, if it may, rather than wait for other nodes; back in the queue at
            # once, before what it has left is another's.
            at_once = True
            self._tell(stage, "queued")

    async def _attempts_at(
        self, stage: Stage, execution: Execution, place: Place, lease: Lease, attempts: Attempts
    ) -> Record | None:
        """Attempts until one finishes, none is left, or another would end the same way.

        None: a node of that place goes, is gone or never came. That costs no attempt, but of nodes
        that are lost unwarned see `Attempts.lose_node`.
        """
        while True:
            number = attempts.failed + 1
            await asked(self._store.begin_attempt, stage.identity)
            signs = self._watch.begin(stage.identity, place.workers())
            self._tell(stage, "started", attempt=number, workers=place.shape.workers)
            error = await self._attempt(stage, execution, place, lease)
            record = await self._record(stage)
            if record is not None:
                if error is not None:  # its worker died before it had
                    await tidy_up(stage, self._store)
                self._tell(stage, "finished", record=asdict(record))
                return record
            if error is None and not signs.told_to_leave:
                self._tell(stage, "stopped", reason="no trial wants it; its checkpoint is kept")
                raise StageDropped(stage.identity)
            reason, again = ("its node is going away", True) if error is None else explain(error)
            if not again:
                raise self._failure(stage, reason)
            nodes = signs.nodes() if place.gang is None else place.gang.nodes
            elsewhere = bool(nodes & self._watch.going) or never_placed(error)
            if not elsewhere and (lost_its_node(error) or await is_gone(nodes)):
                elsewhere = True
                if attempts.lose_node(await asked(self._store.checkpoint(stage.identity).listed)):
                    lost = f"its node was lost {attempts.lost} times at the same checkpoint"
                    raise self._failure(stage, f"{lost}; {reason}")
            if elsewhere:
                self._tell(stage, "retry", reason=f"{reason}; its place is lost", attempt=number)
                return None
            if attempts.fail():
                if refusal := refused_by_storage(error):
                    raise refusal
                raise self._failure(stage, f"{reason}; {number} attempts")
            self._tell(stage, "retry", reason=reason, attempt=number)
            self._check_wanted(stage)

    async def _attempt(
        self, stage: Stage, execution: Execution, place: Place, lease: Lease
    ) -> BaseException | None:
        """One attempt; returns its error. See `attend`."""
        attempt = Attempt(
            stage=stage,
            store=self._store,
            datasets=self._datasets,
            execution=execution,
            stages=ray.get_runtime_context().current_actor,
            probes=self._probes,
        )
        signs = self._watch.of(stage.identity)
        running = asyncio.create_task(self._workers.run(attempt, place))
        stuck = await attend(
            running,
            signs,
            self._store,
            stage.identity,
            lease,
            lambda point: self._tell(stage, "progress", point=point),
        )
        if place.gang is not None:
            place.gang.workers |= signs.workers
        return running.exception() if stuck is None else Stuck(f"{stuck}: killed")

    async def _record(self, stage: Stage) -> Record | None:
        try:
            return await asked(self._store.finished, stage.identity)
        except ValueError as error:
            raise self._failure(stage, str(error)) from None

    def _failure(self, stage: Stage, reason: str) -> StageFailed:
        self._tell(stage, "failed", reason=reason)
        return StageFailed(f"{stage.kind} {stage.identity}: {reason}")

    def _check_wanted(self, stage: Stage) -> None:
        if not self._wanted_by[stage.identity]:
            self._tell(stage, "stopped", reason="no trial wants it")
            raise StageDropped(stage.identity)

    def _tell(self, stage: Stage, state: str, **details: Any) -> None:
        self._events.tell(stage, state, self._wanted_by[stage.identity], **details)
