"""Says that one process is at work in a folder, to processes that share nothing but the storage."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from trainables.storage.folder import Folder

NAME = re.compile(r"(\d+)\.json")


@dataclass(frozen=True, kw_only=True)
class Holder:
    host: str
    pid: int
    process: str  # tells it from every other process of all machines
    token: str  # of this taking of the lease

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_here(self) -> bool:
        """Whether it runs, or ran, where this process sees all processes."""
        return self.process.rpartition(":")[0] == _system()

    def is_dead(self) -> bool:
        """Whether it is known to have ended."""
        return self.is_here() and self.process != _process(self.pid)


class Lease:
    """A lease: `folder` is its own, and of the files `<n>.json` in it the last says who holds it.

    A number is taken by creating its file, which one process alone can do, on any storage. The
    holder writes its file again by `renew`, three times in `seconds` or more often. One that stays
    the same for `seconds` has lapsed; whoever waits goes by its own clock, so that no two are
    compared. That of a dead process of this machine is void at once.

    A process that was stopped for longer than that finds out by `renew`: what it does until then
    must be harmless.
    """

    def __init__(self, folder: Folder, seconds: float) -> None:
        self.heard = False  # whether another renewed it while this one looked
        self._seconds = seconds
        self._folder = folder
        self._number = 0  # ours
        self._beats = 0
        self._seen: tuple[str, bytes] | None = None  # another's file, and since when it is so
        self._seen_since = 0.0
        self._me = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            process=_process(os.getpid()) or "",
            token=secrets.token_hex(8),
        )

    def holder(self) -> Holder | None:
        """Another process that holds it; None if it is free, has lapsed, or is ours."""
        name = _latest(self._folder)
        if name is None:
            return None
        try:
            content = self._folder.read(name)
            found = json.loads(content)
            holder = Holder(**found["holder"])
        except FileNotFoundError:  # given back meanwhile
            return None
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{self._folder}/{name}: is no lease; delete it") from None
        if holder == self._me or holder.is_dead():
            return None
        if self._seen != (name, content):
            self.heard = self._seen is not None
            self._seen, self._seen_since = (name, content), monotonic()
        return holder if monotonic() - self._seen_since < self._seconds else None

    def take(self) -> bool:
        """Whether this process now holds it: it is free, or was and another was not faster."""
        earlier = _names(self._folder)
        if self.holder() is not None:
            return False
        number = max(map(_number, earlier), default=0) + 1
        if not self._folder.create(f"{number}.json", self._content()):
            return False
        self._number = number
        self._folder.delete(earlier)
        return True

    def renew(self) -> bool:
        """Say that this process still lives. Returns False where another has taken the lease.

        Raises OSError at once where the storage refuses: it is soon called again.
        """
        folder = self._folder.impatient()
        if not self._is_ours(folder):
            return False
        self._beats += 1
        folder.write(self._name(), self._content())
        return True

    def is_held(self) -> bool:
        """Whether it is ours, by what the storage says now."""
        return self._is_ours(self._folder)

    def give_back(self) -> None:
        """The next process need not wait. Where the storage refuses, or it was lost, it may."""
        folder = self._folder.impatient()
        try:
            if self._is_ours(folder):
                folder.delete([self._name()])  # not the folder: another may be writing there
        except OSError:
            pass
        self._number = 0

    def _is_ours(self, folder: Folder) -> bool:
        if not self._number or _latest(folder) != self._name():
            return False
        try:
            found = json.loads(folder.read(self._name()))
        except FileNotFoundError:
            return False
        return bool(found["holder"]["token"] == self._me.token)

    def _name(self) -> str:
        return f"{self._number}.json"

    def _content(self) -> bytes:
        content: dict[str, Any] = {"holder": vars(self._me), "beat": self._beats}
        return json.dumps(content).encode()


def _names(folder: Folder) -> list[str]:
    return [file.name for file in folder.listed() if NAME.fullmatch(file.name)]


def _latest(folder: Folder) -> str | None:
    return max(_names(folder), key=_number, default=None)


def _number(name: str) -> int:
    return int(name.removesuffix(".json"))


def _process(pid: int) -> str | None:
    """A process of this machine by its number and start; None if it is gone, or not seen."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = status.rpartition(")")[2].split()
    return None if state == "Z" else f"{_system()}:{pid}-{fields[18]}"


@cache
def _system() -> str:
    """This machine since it was started, and the processes that this one can see there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux: nothing is known of other processes
        return secrets.token_hex(8)
