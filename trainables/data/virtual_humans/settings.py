"""What decides the pixels of rendered clips, and the hash that is their version."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field

from trainables.settings import Settings

RENDERER_VERSION = 3  # raise it with every change that moves a pixel or a manifest row
FOOTAGE_VERSION = 2  # the same for what moves only where footage stands behind people

Count = Annotated[int, Field(ge=1)]


class RenderSettings(Settings):
    """A pure function takes these and a clip's number to its pixels; workers are none of them."""

    seed: Annotated[int, Field(ge=0)]
    clips: Count  # training clips
    heldout_clips: Annotated[int, Field(ge=0)]  # of held-out motions, people and cameras
    heldout_share: Annotated[float, Field(gt=0, lt=1)]  # of the motions, by group
    seconds: Annotated[float, Field(gt=0, le=60)]
    frames_per_second: Annotated[int, Field(ge=1, le=120)]
    width: Annotated[int, Field(ge=32, le=4096, multiple_of=2)]  # pixels
    height: Annotated[int, Field(ge=32, le=4096, multiple_of=2)]
    most_people: Annotated[int, Field(ge=1, le=3)]  # in a clip
    cast: Count  # people in the training clips; a quarter as many, others, in the held-out ones
    cameras: Count  # set-ups in the training clips; as for the cast
    crf: Annotated[int, Field(ge=0, le=51)]  # x264's quality: larger is coarser
    motions: str  # hash of the motions and their labels
    footage: str | None  # content hash of the human-free dataset behind the people
    places: Count | None = None  # of each class; None: each clip is somewhere else

    @property
    def frames(self) -> int:
        return max(2, round(self.seconds * self.frames_per_second))

    def told(self) -> dict[str, Any]:
        """As JSON values: what clips are known by. Without places as before there were any."""
        told = self.model_dump(mode="json")
        return told if self.places is not None else {k: v for k, v in told.items() if k != "places"}


Split = Literal["train", "selection"]


def version(settings: RenderSettings) -> str:
    """16 hex digits over every setting and the renderer's version."""
    content = {"renderer": RENDERER_VERSION, **settings.told()}
    if settings.footage is not None:
        content["footage_version"] = FOOTAGE_VERSION
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
