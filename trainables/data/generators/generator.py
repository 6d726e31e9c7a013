"""What a generator is here: numbered samples with a latent each, clips out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from trainables.data.virtual_humans.settings import Split


class Sample(NamedTuple):
    """A latent z and the direction w of its views, both known by the number; and what z shows."""

    number: int
    split: Split
    label: str
    group: str  # what must not be on both sides of a cut

    @property
    def path(self) -> str:
        return f"{self.split}/{self.number:06d}.mp4"


class Generator(Protocol):
    """A latent, and maybe a class, in; a clip out. It goes to other processes, so it is small."""

    @property
    def frames_per_second(self) -> int: ...

    @property
    def crf(self) -> int:
        """x264's quality: larger is coarser."""
        ...

    def samples(self) -> Sequence[Sample]:
        """All that there are. Their numbers are their places."""
        ...

    def draw(self, sample: Sample, scale: float) -> np.ndarray:
        """G(z + scale w), uint8 [T, H, W, 3] of even height and width: a pure function.

        z and w are standard normal. Raises ValueError for what is no clip.
        """
        ...

    def latents(self) -> np.ndarray | None:
        """z of each sample, float [samples, D]; None where it is no such list of numbers."""
        ...

    def described(self) -> dict[str, Any]:
        """What decides its clips, a seed among it, as JSON values."""
        ...


def version_of(generator: Generator) -> str:
    """16 hex digits over all that decides its clips."""
    content = json.dumps(generator.described(), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
