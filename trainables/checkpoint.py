"""The last checkpoint of a running stage: one file, whole or not there at all."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"last-{os.getpid()}.tmp"
    torch.save(state, written)
    os.replace(written, folder / "last.pt")


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state on the CPU, or None; a file that cannot be read is dropped with a warning."""
    path = folder / "last.pt"
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        warnings.warn(f"{path} cannot be read ({error}); the stage starts over", stacklevel=2)
        path.unlink(missing_ok=True)
        return None
    return state
