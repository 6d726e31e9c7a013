"""A folder for files, on a disk, a shared file system or an object store (s3://, gs://).

A file appears whole or not at all, and what has been written survives a power cut. A storage that
refuses for a while (a full disk, a server that answers 503) is asked again until patience ends.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from trainables.storage.files import Data, Files, StoredFile
from trainables.storage.local_files import LocalFiles

GIGABYTE = 10**9
SCHEMES = ("s3", "gs")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two tries
# What may pass: full disks and quotas, file servers and object stores that are away.
PASSING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE),
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.EAGAIN),
}

# Called before each pause in which a storage that refuses is waited for: who waits is not stuck.
while_waiting: ContextVar[Callable[[], object]] = ContextVar("while_waiting", default=lambda: None)

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Folder:
    """A value: it may be sent to other processes, and names the folder whether it exists or not.

    All methods raise OSError for what does not pass, or has not passed when patience ends.
    """

    url: str  # s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a path on a disk
    patience_seconds: float = 0.0  # how long a storage that refuses is asked again
    cache_gb: float = 50.0  # of remote files that each node keeps for reading

    def __truediv__(self, name: str) -> Folder:
        return replace(self, url=self._path(name))

    def __str__(self) -> str:
        return self.url

    @property
    def path(self) -> Path | None:
        """Where it is on a disk; None in an object store."""
        return None if is_remote(self.url) else Path(self.url)

    def impatient(self) -> Folder:
        """The same folder; a storage that refuses is not asked again."""
        return replace(self, patience_seconds=0.0)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is no such file."""
        return self._ask(lambda files: files.read(self._path(name)))

    def write(self, name: str, data: Data) -> None:
        """Make or replace a file, in one stroke."""
        self._ask(lambda files: files.write(self._path(name), data))

    def create(self, name: str, data: Data) -> bool:
        """Make a file, if it is not there. Returns whether it is this call's.

        `data` must be what no other process would write: an answer that was lost on its way is
        told from another's file by it.
        """
        made = self._ask(lambda files: files.create(self._path(name), data))
        return made or self.read(name) == data

    def copy(self, name: str, folder: Folder, its: str) -> None:
        """Make `name` from a file of another folder of this storage, both never to change.

        No bytes pass through this process, and on a disk they take no second place.
        """
        self._ask(lambda files: files.copy(self._path(name), folder._path(its)))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are deleted already."""
        paths = [self._path(name) for name in names]
        self._ask(lambda files: files.delete(paths))

    def remove(self) -> None:
        """Delete the folder and all that it holds."""
        self._ask(lambda files: files.remove(self.url))

    def listed(self) -> list[StoredFile]:
        """All files below, by name; none where there is no such folder."""
        found = self._ask(lambda files: files.listed(self.url))
        return sorted(found, key=lambda file: file.name)

    def folders(self) -> list[str]:
        """The names of the folders directly below, in order; none where there is no such folder."""
        return sorted(self._ask(lambda files: files.folders(self.url)))

    def local(self, name: str) -> Path:
        """A file on this node's disk with the content of `name`, which must never change.

        Of a remote one a copy is kept for the next time, as far as `cache_gb` goes.
        """
        size = int(self.cache_gb * GIGABYTE)
        return self._ask(lambda files: files.local(self._path(name), size))

    def _path(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"

    def _ask(self, ask: Callable[[Files], T]) -> T:
        files, pause = _files_of(self.url), FIRST_PAUSE
        give_up = time.monotonic() + self.patience_seconds
        while True:
            try:
                return ask(files)
            except OSError as error:
                left = give_up - time.monotonic()
                if error.errno not in PASSING or left <= 0:
                    raise
                log.warning("storage %s: %s; asked again for up to %.0f s", self, error, left)
                while_waiting.get()()
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)


def is_remote(url: str) -> bool:
    """Whether it names an object store. Raises ValueError for a scheme that is none of ours."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme not in SCHEMES:
        raise ValueError(f"storage {url}: give a folder, or {' or '.join(SCHEMES)}://BUCKET/PREFIX")
    return bool(separator)


def _files_of(url: str) -> Files:
    if not is_remote(url):
        return LocalFiles()
    scheme, _, rest = url.partition("://")
    return _remote_files(f"{scheme}://{rest.partition('/')[0]}")


@lru_cache
def _remote_files(bucket: str) -> Files:
    try:
        from trainables.storage.object_files import ObjectFiles
    except ModuleNotFoundError as error:
        raise ValueError(
            f"storage {bucket}: needs the package {error.name}; install what object stores need: "
            "pip install -c constraints.txt -e '.[cloud]'"
        ) from None
    return ObjectFiles(bucket)
