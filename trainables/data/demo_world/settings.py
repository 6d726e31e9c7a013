"""What decides the pixels of a demo world, and the hash that names it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import Field

from trainables.settings import Settings

RENDERER_VERSION = 1  # raise it with every change that moves a pixel or a manifest row

Count = Annotated[int, Field(ge=1)]


class WorldSettings(Settings):
    """One world: four datasets that are rendered from `seed`."""

    seed: Annotated[int, Field(ge=0)]
    clips_per_source: Count  # training clips of each of the two sources
    heldout_per_source: Count  # clips in each source's selection split
    downstream_train: Count  # clips in each split of each downstream dataset
    downstream_selection: Count
    downstream_report: Count
    frames: Annotated[int, Field(ge=2)]
    frames_per_second: Count
    height: Annotated[int, Field(ge=32, multiple_of=8)]  # pixels
    width: Annotated[int, Field(ge=32, multiple_of=8)]  # decord reads 56, 64, 80, 96; not 48, 72


def world_hash(settings: WorldSettings) -> str:
    """16 hex digits over every setting and the renderer's version."""
    content = {"renderer": RENDERER_VERSION, **settings.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
