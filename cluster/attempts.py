"""How many attempts a stage has, and what is done for one while its workers run it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.vital_signs import VitalSigns
from trainables.checkpoint import LAST
from trainables.stage import TRAINED, Stage
from trainables.stage_store import LEASE_SECONDS, StageStore
from trainables.storage.files import StoredFile
from trainables.storage.lease import Lease

LATE_SECONDS = 1.0  # more than so long after a look at an attempt was due is our own silence

T = TypeVar("T")


@dataclass
class Attempts:
    """At one stage: those that failed, and the nodes that were lost in a row at one checkpoint."""

    most: int
    failed: int = 0
    lost: int = 0
    _checkpoint: StoredFile | None = None  # as it was at the last loss

    def fail(self) -> bool:
        """One more has failed. Whether it was the last."""
        self.failed += 1
        return self.failed == self.most

    def lose_node(self, files: Iterable[StoredFile]) -> bool:
        """One node more was lost, which costs no attempt. Whether it was one too many.

        As many as there are attempts may be lost in a row before the checkpoint moves on; then the
        stage itself may be what takes them down. `files`: its checkpoint, and what was cut short.
        """
        checkpoint = next((file for file in files if file.name == LAST), None)
        self.lost = self.lost + 1 if checkpoint == self._checkpoint else 1
        self._checkpoint = checkpoint
        return self.lost > self.most


async def attend(
    running: asyncio.Task[None],
    signs: VitalSigns,
    store: StageStore,
    identity: str,
    lease: Lease,
    tell: Callable[[dict[str, Any]], None],
) -> str | None:
    """Until the attempt is over: `tell` its progress, hold its lease, end it if it is stuck.

    Returns why it was stuck; None if it was not. Where the storage refuses, the workers wait for
    it themselves, which is no sign of a hang.
    """
    last_epoch, renewed, stuck, refused = 0.0, time.monotonic(), None, False
    looked, store = time.monotonic(), store.impatient()
    while not running.done():
        await asyncio.wait({running}, timeout=store.poll_seconds)
        passed, looked = time.monotonic() - looked, time.monotonic()
        passed = 0.0 if refused else min(passed, store.poll_seconds + LATE_SECONDS)
        if why := signs.tick(passed):
            stuck = why
            signs.kill()
        try:
            for point in await asked(store.progress, identity):
                if point["epoch"] > last_epoch:
                    last_epoch = point["epoch"]
                    tell(point)
            if refused or time.monotonic() - renewed > LEASE_SECONDS / 3:
                await asked(lease.renew)  # if it is lost, a stage trained twice is harmless
                renewed = time.monotonic()
            refused = False
        except OSError:
            refused = True
    return stuck


async def tidy_up(stage: Stage, store: StageStore) -> None:
    """Of a finished stage: whoever made it may have died before it had done so."""
    if stage.kind in TRAINED:
        await asked(store.clean, stage.identity)


async def asked(question: Callable[..., T], *arguments: Any) -> T:
    """What the storage answers; other stages go on meanwhile, for it may take its time."""
    return await asyncio.to_thread(question, *arguments)
