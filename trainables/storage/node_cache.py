"""Copies of remote files on this node's disk, for all its processes; bounded in size.

Only of files that never change, so that a copy is as good as the file. It lies in the folder for
temporary files ($TMPDIR).
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

IN_USE_SECONDS = 600.0  # after it was asked for, a copy is not deleted for so long


def cached(name: str, fetch: Callable[[Path], None], most_bytes: int) -> Path:
    """The copy of `name`; `fetch` writes one to the path that it is given. Raises what it raises.

    Afterwards the copies asked for longest ago are deleted until the others take `most_bytes` at
    most, except those that may be in use.
    """
    folder = _folder()
    copy = folder / name.replace("://", "/")
    try:
        os.utime(copy)  # now it is the last that was asked for
        return copy
    except FileNotFoundError:
        pass
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = copy.with_name(f".{copy.name}-{secrets.token_hex(4)}")
    try:
        fetch(unfinished)
        os.replace(unfinished, copy)
    finally:
        unfinished.unlink(missing_ok=True)
    _keep_within(folder, most_bytes)
    return copy


def _folder() -> Path:
    """This user's alone, for others must not be able to put weights there."""
    folder = Path(tempfile.gettempdir(), f"mixing-sweeps-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder}: others can write there; delete it, or set TMPDIR")
    return folder


def _keep_within(folder: Path, most_bytes: int) -> None:
    copies = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process deletes too
            continue
        if path.is_file():
            copies.append((status.st_mtime, status.st_size, path))
    size = sum(each[1] for each in copies)
    for asked, bytes_, path in sorted(copies):
        if size <= most_bytes or asked > time.time() - IN_USE_SECONDS:
            break
        path.unlink(missing_ok=True)
        size -= bytes_
