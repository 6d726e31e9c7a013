"""A folder that one process at a time fills, with clips of one kind."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.data.whole_files import delete_unfinished, write_whole


@contextmanager
def claimed(
    out: Path,
    name: str,
    version: str,
    settings: Mapping[str, Any],
    source: str,
    folders: Sequence[Path],
) -> Iterator[None]:
    """OUT/NAME for this process and these settings, told in OUT/NAME.json.

    `version`: a hash of all that decides the clips; `settings`: as JSON values; `source`: where
    they are made from, which may change. What a killed process left half in `folders` is deleted.

    Raises:
        ValueError: it was made by other settings, or of nobody knows which, or another process
            is at work in it.
    """
    with locked(out / f".{name}.lock", out / name):
        told = out / f"{name}.json"
        now = {"version": version, "source": source, **settings}
        if told.exists():
            before = json.loads(told.read_text())
            changed = [
                f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
                for key in now | before
                if key not in ("version", "source") and before.get(key) != now.get(key)
            ]
            if changed or before.get("version") != version:
                why = "; ".join(changed) or "the code that makes them has changed"
                raise ValueError(
                    f"{out / name}: was made by other settings: {why}. Give another folder (or "
                    f"--name), or delete it and {told.name}"
                )
        else:
            for folder in folders:
                if folder.exists() and any(folder.iterdir()):
                    raise ValueError(
                        f"{folder}: there are files in it, and no {told.name} that says how they "
                        "were made. Give another folder (or --name), or delete it"
                    )
            write_whole(told, json.dumps(now, indent=2).encode())
        for path in (told, *folders):
            delete_unfinished(path)
        yield


@contextmanager
def locked(file: Path, what: Path) -> Iterator[None]:
    """The lock `file`, made here, for this process; a killed one gives it back.

    Raises:
        ValueError: another process has it; `what` is named.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{what}: another process is at work in it; wait, or give another folder"
            ) from None
        yield
