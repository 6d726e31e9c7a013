"""What a learnt program says of itself, in its own file: whom its clips show follows from that."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from trainables.data.manifests import Humans
from trainables.settings import Settings

FILE = "learnt.json"  # among the extra files of a .pt2


class About(Settings):
    classes: tuple[str, ...]  # by the number that the program takes
    frames_per_second: int
    humans: Humans  # of the clips that it learnt from
    licence: str | None  # of those, likewise
    learnt_from: dict[str, Any]  # the dataset's name, and the settings


def read_about(content: str, where: str) -> About | None:
    """None where the program says nothing of itself. Raises ValueError where it is malformed."""
    if not content:
        return None
    try:
        return About.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{where}: its {FILE} is not what `train` writes: {error}") from None
