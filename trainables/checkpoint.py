"""The last checkpoint of a running stage: one file, whole or not there at all."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch

from trainables.storage.folder import Folder

LAST = "last.pt"


def save_checkpoint(folder: Folder, state: dict[str, Any]) -> None:
    """Made in memory, for a storage that refuses is asked again with the same bytes."""
    content = io.BytesIO()
    torch.save(state, content)
    folder.write(LAST, content.getbuffer())


def delete_unfinished(folder: Folder) -> None:
    """What attempts that died while they wrote have left; for the one that holds the stage."""
    folder.delete(file.name for file in folder.listed() if file.name != LAST)


def load_checkpoint(folder: Folder) -> dict[str, Any] | None:
    """The state on the CPU, or None; a file that cannot be read is dropped with a warning."""
    try:
        content = folder.read(LAST)
    except FileNotFoundError:
        return None
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except Exception as error:  # torch raises many kinds for a damaged file
        warnings.warn(
            f"{folder}/{LAST} cannot be read ({error}); the stage starts over", stacklevel=2
        )
        folder.delete([LAST])
        return None
    return state
