"""One process at a time runs a sweep, on whatever storage and from whatever machines."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainables.storage.folder import Folder
from trainables.storage.lease import Lease

LEASE_SECONDS = 60.0  # after which a process that says nothing is dead, if it ran elsewhere
BEAT_SECONDS = LEASE_SECONDS / 4
LOOK_SECONDS = 2.0

Check = Callable[[], None]


@contextmanager
def only_one(folder: Folder, say: Callable[[str], None]) -> Iterator[Check]:
    """Inside, no other process runs the sweep in `folder`.

    The next one goes on at once after a process of this machine that was killed, and after one of
    another machine when it has not been heard for LEASE_SECONDS. Yields what raises ValueError if
    another process has taken over meanwhile, as one may from a process that stood still for so
    long; then this process is also interrupted (SIGINT).

    Raises:
        ValueError: another process runs it.
    """
    lease = Lease(folder / "lease", LEASE_SECONDS)
    _take(lease, folder, say)

    def check() -> None:
        if not lease.is_held():
            raise ValueError(f"{folder}: another process has taken over this sweep; this one ends")

    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            try:
                if lease.renew():
                    continue
            except OSError:  # the storage refuses, to others as well
                continue
            say(f"{folder}: another process has taken over this sweep; this one ends")
            os.kill(os.getpid(), signal.SIGINT)
            return

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
        lease.give_back()


def _take(lease: Lease, folder: Folder, say: Callable[[str], None]) -> None:
    told = False
    while not lease.take():
        holder = lease.holder()
        if holder is None:  # free by now, or another was faster
            continue
        if holder.is_here() or lease.heard:
            raise ValueError(
                f"{folder}: {holder} runs this sweep; wait for it, look at it with --status, or "
                "give this one another name with --set name=NAME"
            )
        if not told:
            say(
                f"{folder}: {holder} ran this sweep; this process goes on unless it is heard "
                f"within {LEASE_SECONDS:.0f} s"
            )
            told = True
        time.sleep(LOOK_SECONDS)
