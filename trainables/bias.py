"""Scene bias of a dataset: which stages measure it, from its settings and manifest alone.

SynAPT's definition: log2(accuracy x classes) of a model that sees single frames only, which is its
accuracy over chance, in bits. Beside it that of frames with the people masked: what is left of the
bias then is the scene's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.data.catalog import Clip, Dataset
from trainables.settings import Settings
from trainables.stage import Stage, canonical_hash, file_hash
from trainables.training_settings import AsTuple, Fraction, Positive

View = Literal["frames", "people_masked"]
IN_WORDS: dict[View, str] = {"frames": "single frames", "people_masked": "people masked"}
VIEWS = tuple(IN_WORDS)
DESCRIPTORS = "descriptors"  # gradients, textures and colours, of no weights


class BiasSettings(Settings):
    """How scene bias is measured. All of it decides the figure; none of it any trial."""

    clips: Positive  # at most, of a dataset's training and selection clips
    frames: Positive  # of a clip, each seen alone; their logits are averaged (SynAPT: 8)
    resolution: Annotated[int, Field(ge=32)]  # pixels square that a frame is brought to
    image_model: str  # descriptors, or an image backbone of timm
    weights: str | None  # its safetensors file; null for descriptors
    folds: Annotated[int, Field(ge=3)]  # by group: one is scored, one chooses l2, the rest are fit
    l2_grid: Annotated[tuple[Annotated[float, Field(gt=0)], ...], AsTuple, Field(min_length=1)]
    max_unreadable: Fraction

    @model_validator(mode="after")
    def _weights_of_a_model(self) -> Self:
        if (self.image_model == DESCRIPTORS) != (self.weights is None):
            raise ValueError(
                f"image_model is {self.image_model!r} with weights {self.weights!r}; descriptors "
                "take weights: null, a backbone of timm needs its file"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One dataset seen in one way: the stage, or why there is none."""

    dataset: str
    view: View
    stage: Stage | None
    reason: str | None


def bias_measures(settings: BiasSettings | None, data: Mapping[str, Dataset]) -> list[Measured]:
    """Both views of each dataset; nothing where bias is not asked for.

    Raises:
        ValueError: there is no such file of weights.
    """
    if settings is None:
        return []
    measured = []
    for name in data:
        clips = clips_for_bias(data[name], settings.clips)
        unfit = _not_on_disk(data[name]) or _unfit(clips, data[name].classes, settings.folds)
        for view in VIEWS:
            reason = unfit or (_without_masks(data[name]) if view == "people_masked" else None)
            stage = None if reason else _stage(settings, data[name], view)
            measured.append(Measured(dataset=name, view=view, stage=stage, reason=reason))
    return measured


def clips_for_bias(dataset: Dataset, most: int) -> list[Clip]:
    """Of the clips that are no report split's at most `most`, of each class at most its part.

    Those whose hash of the path is smallest.
    """
    by_class: dict[int, list[Clip]] = {}
    for clip in dataset.clips:
        if clip.split != "report":
            by_class.setdefault(clip.label, []).append(clip)
    each = max(1, most // max(1, len(by_class)))
    drawn = [clip for of_class in by_class.values() for clip in sorted(of_class, key=_hash)[:each]]
    return sorted(drawn, key=lambda clip: clip.path)


def _hash(clip: Clip) -> bytes:
    return hashlib.sha256(clip.path.encode()).digest()


def group_of(clip: Clip) -> str:
    """A clip whose group is unknown is a group of its own."""
    return clip.group or f"\0{clip.path}"


def _unfit(clips: list[Clip], classes: tuple[str, ...], folds: int) -> str | None:
    """Why no classifier can be held to these clips; None: one can."""
    groups: dict[int, set[str]] = {}
    for clip in clips:
        groups.setdefault(clip.label, set()).add(group_of(clip))
    if len(groups) < 2:
        return f"its clips are of {len(groups)} class, and a model needs 2 to tell apart"
    every = {group for of_class in groups.values() for group in of_class}
    if len(every) < folds:
        return (
            f"its {len(clips)} clips are {len(every)} groups, fewer than bias.folds {folds}; give "
            "its catalog entry a finer `group`, or lower bias.folds"
        )
    alone = [classes[label] for label, of_class in sorted(groups.items()) if len(of_class) == 1]
    if alone:
        shown = ", ".join(map(repr, alone[:5])) + (", ..." if len(alone) > 5 else "")
        return (
            f"each clip of {shown} is in one group, so that what was learnt cannot be held to "
            "another; give its catalog entry a finer `group`, or raise bias.clips"
        )
    return None


def _not_on_disk(dataset: Dataset) -> str | None:
    return None if dataset.program is None else "a program draws its clips; sample it to files"


def _without_masks(dataset: Dataset) -> str | None:
    if dataset.humans in ("none", "removed"):
        return f"there are no people to mask (humans: {dataset.humans})"
    if dataset.masks is None:
        return "there are no masks; give its catalog entry `masks`"
    return None


def _masks_hash(dataset: Dataset, clips: Sequence[Clip]) -> str:
    """16 hex digits over names and sizes of the clips' masks: they are not read."""
    assert dataset.masks is not None
    folder = dataset.masks

    def listed(clip: Clip) -> list[tuple[str, int]]:
        path = folder / clip.path
        try:
            files = [path]
            if path.is_dir():
                files = sorted(path.iterdir())
            return [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
        except OSError:  # none, which the stage tells
            return []

    with ThreadPoolExecutor(16) as pool:  # network file systems answer slowly, but in parallel
        return canonical_hash(list(pool.map(listed, clips)))


def _stage(settings: BiasSettings, dataset: Dataset, view: View) -> Stage:
    described = settings.model_dump(mode="json")
    model, where = {"name": settings.image_model}, {}
    if settings.weights is not None:
        path = Path(settings.weights)
        if not path.is_file():
            raise ValueError(f"bias.weights {path}: is no file; give a safetensors file")
        model |= {"weights": file_hash(path)}
        where = {"weights": str(path.resolve())}
    masks = {}
    if view == "people_masked":
        masks = {"masks": _masks_hash(dataset, clips_for_bias(dataset, settings.clips))}
    return Stage(
        kind="bias",
        settings={
            "dataset": dataset.name,
            "view": view,
            "model": model,
            "clip": {"frames": settings.frames, "resolution": settings.resolution},
            **{key: described[key] for key in ("clips", "folds", "l2_grid", "max_unreadable")},
            **masks,
        },
        data={dataset.name: dataset.content_hash},
        where=where,
    )
