"""Files on a disk or a shared file system, as `Folder` asks for them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from trainables.storage.files import Data, StoredFile

UNFINISHED = ".tmp"  # ends the name of a file that is being written


class LocalFiles:
    """A file is written under another name, flushed, and put in its place by one system call."""

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def write(self, path: str, data: Data) -> None:
        with _unfinished(path, data) as written:
            os.replace(written, path)

    def create(self, path: str, data: Data) -> bool:
        with _unfinished(path, data) as written:
            try:
                os.link(written, path)
            except FileExistsError:
                return False
        return True

    def copy(self, path: str, from_: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.link(from_, path)

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            Path(path).unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def listed(self, path: str) -> list[StoredFile]:
        found, inside = [], [""]
        for prefix in inside:  # which grows as folders are found
            for entry in _entries(f"{path}/{prefix}"):
                if entry.is_dir(follow_symlinks=False):
                    inside.append(f"{prefix}{entry.name}/")
                    continue
                with suppress(FileNotFoundError):  # deleted meanwhile
                    stat, name = entry.stat(), f"{prefix}{entry.name}"
                    found.append(StoredFile(name=name, size=stat.st_size, written=stat.st_mtime))
        return found

    def folders(self, path: str) -> list[str]:
        return [entry.name for entry in _entries(path) if entry.is_dir()]

    def local(self, path: str, cache_bytes: int) -> Path:
        return Path(path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


@contextmanager
def _unfinished(path: str, data: Data) -> Iterator[Path]:
    """A flushed file with `data` beside `path`, gone afterwards; then the folder is flushed too."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    written = Path(folder, f".{name}-{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with written.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield written
    finally:
        written.unlink(missing_ok=True)
    directory = os.open(folder, os.O_RDONLY)  # the new name itself must survive a power cut
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
