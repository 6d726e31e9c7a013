"""Where the files of a sweep lie: in its storage, and what must be on a disk."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from trainables.storage.folder import Folder, is_remote

STORAGE_VARIABLE = "SWEEPS_HOME"


def storage_url(storage: str) -> str:
    """`storage` as it is for an object store, else as an absolute path.

    A relative folder lies in $SWEEPS_HOME. Without the variable it lies in the current folder,
    except in a Ray job, whose current folder is a copy that is thrown away: there it lies in the
    home folder.
    """
    storage = os.path.expandvars(storage)
    if is_remote(storage):
        return storage.rstrip("/")
    path = Path(storage).expanduser()
    if path.is_absolute():
        return str(path)
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    home = os.environ.get(STORAGE_VARIABLE) or (Path.home() if in_job else Path.cwd())
    return str(Path(home).resolve() / path)


def on_disk(storage: Folder) -> Folder:
    """For what must lie on a disk: the demo's world, MLflow's own database, the report's files.

    The storage itself, or a folder of this machine for an object store.
    """
    if storage.path is not None:
        return storage
    name = re.sub(r"\W+", "-", storage.url)
    return replace(storage, url=storage_url(f"runs/{name}"))
