"""What each kind of storage can do, for `Folder` to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

Data: TypeAlias = bytes | memoryview


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    name: str  # within the folder that was listed: "ab12/record.json"
    size: int  # bytes
    written: float  # seconds since the epoch, by the storage's clock


class Files(Protocol):
    """One kind of storage. Raises OSError alone; what the server says is in its message."""

    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: Data) -> None: ...
    def create(self, path: str, data: Data) -> bool: ...
    def copy(self, path: str, from_: str) -> None: ...  # what never changes: a link will do
    def delete(self, paths: Sequence[str]) -> None: ...
    def remove(self, path: str) -> None: ...  # a folder with all that it holds
    def listed(self, path: str) -> list[StoredFile]: ...
    def folders(self, path: str) -> list[str]: ...  # names, of those directly below
    def local(self, path: str, cache_bytes: int) -> Path: ...
