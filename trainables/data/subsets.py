"""Some classes of a dataset as a dataset of its own, for mixes by class (SynAPT's)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from trainables.settings import Settings
from trainables.training_settings import NonNegative, Positive

if TYPE_CHECKING:
    from trainables.data.catalog import Clip


class ClassesSettings(Settings):
    """The first or the last so many classes, in the order that the dataset's classes have."""

    first: Positive | None = None
    last: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.first is None) == (self.last is None):
            raise ValueError("give exactly one of 'first' and 'last', a number of classes")
        return self


class SubsetSettings(Settings):
    """An entry `{subset_of: synapt, classes: {first: 40}, clips_per_class: 1000}`."""

    subset_of: str
    classes: ClassesSettings
    clips_per_class: Positive | None  # at most, of the training clips; null: all
    seed: NonNegative = 0  # of the choice of clips
    licence: str | None = None


def take_subset(
    name: str, settings: SubsetSettings, classes: Sequence[str], clips: Sequence[Clip]
) -> tuple[tuple[str, ...], tuple[Clip, ...]]:
    """The classes that are kept, and their clips in the order they had, labelled anew from 0.

    Of each class the `clips_per_class` training clips whose hash of (seed, path) is smallest: the
    same for every subset of the dataset with that seed, and fewer are a part of more. Selection
    and report clips of the kept classes stay.

    Raises:
        ValueError: more classes asked for than there are.
    """
    asked = settings.classes.first or settings.classes.last
    assert asked is not None
    if asked > len(classes):
        raise ValueError(
            f"dataset {name!r}: asks for {asked} classes of {settings.subset_of!r}, which has "
            f"{len(classes)}; ask for fewer"
        )
    begin = 0 if settings.classes.first else len(classes) - asked
    kept = [
        replace(clip, label=clip.label - begin)
        for clip in clips
        if begin <= clip.label < begin + asked
    ]
    if settings.clips_per_class is not None:
        chosen = _chosen(kept, settings.clips_per_class, settings.seed)
        kept = [clip for clip in kept if clip.split != "train" or clip.path in chosen]
    return tuple(classes[begin : begin + asked]), tuple(kept)


def _chosen(clips: Sequence[Clip], limit: int, seed: int) -> set[str]:
    by_class = defaultdict(list)
    for clip in clips:
        if clip.split == "train":
            drawn = hashlib.sha256(f"{seed}\0{clip.path}".encode()).hexdigest()
            by_class[clip.label].append((drawn, clip.path))
    return {path for drawn in by_class.values() for _, path in sorted(drawn)[:limit]}
