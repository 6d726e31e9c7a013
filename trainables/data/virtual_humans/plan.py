"""Which clips there are: label, motions, people, camera and surroundings of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainables.data.virtual_humans.settings import RenderSettings, Split
from trainables.data.virtual_humans.surroundings import Kind
from trainables.data.virtual_humans.takes import Take, split_takes

HELDOUT_PART = 4  # a quarter as many people, cameras and backgrounds are for held-out clips alone
FOOTAGE_SHARE = 0.5  # of the clips, where there is footage


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    index: int
    split: Split
    label: str
    takes: tuple[Take, ...]  # one a person, all of the label
    cast: tuple[int, ...]  # who the people are
    rig: int  # the camera's set-up
    kind: Kind
    place: tuple[int, int] | None  # the class and which of its places; None: nobody else's
    footage: int | None  # which clip of it

    @property
    def path(self) -> str:
        return f"{self.split}/{self.index:06d}.mp4"


def plan_clips(
    settings: RenderSettings, takes: Sequence[Take], footage_clips: int
) -> list[ClipPlan]:
    """Every clip, a function of the arguments alone, and not of the order of `takes`.

    Labels are balanced over the classes that a split has motions of; no motion's group, person,
    camera set-up or background is in both splits, but for a single clip of footage.
    """
    takes = sorted(takes)  # as `motions_hash` has them, for clips draw by place
    splits = split_takes(takes, settings.heldout_share, settings.seed)
    classes = sorted({take.label for take in takes})
    plans: list[ClipPlan] = []
    sizes: dict[Split, int] = {"train": settings.clips, "selection": settings.heldout_clips}
    for split, size in sizes.items():
        of_class: dict[str, list[Take]] = {}
        for take, side in zip(takes, splits, strict=True):
            if side == split:
                of_class.setdefault(take.label, []).append(take)
        labels = sorted(of_class)
        for number in range(size):
            label = labels[number % len(labels)]
            plan = _plan(settings, len(plans), split, label, of_class[label], footage_clips)
            plans.append(plan if settings.places is None else _placed(plan, settings, classes))
    return plans


def _plan(
    settings: RenderSettings,
    index: int,
    split: Split,
    label: str,
    takes: Sequence[Take],
    footage_clips: int,
) -> ClipPlan:
    rng = np.random.default_rng([settings.seed, 0, index])
    people = int(rng.choice(3, p=(0.6, 0.25, 0.15))) + 1
    people = min(people, settings.most_people)
    pool = _pool(settings.cast, split)
    cast = rng.choice(pool, people, replace=people > len(pool))  # twins only where it must be
    has_footage = footage_clips > 0 and rng.random() < FOOTAGE_SHARE
    return ClipPlan(
        index=index,
        split=split,
        label=label,
        takes=tuple(takes[int(i)] for i in rng.integers(0, len(takes), people)),
        cast=tuple(int(person) for person in cast),
        rig=int(rng.choice(_pool(settings.cameras, split))),
        kind="footage" if has_footage else random_kind(rng),
        place=None,
        footage=int(rng.choice(_footage(footage_clips, split))) if has_footage else None,
    )


def without_footage(plan: ClipPlan, settings: RenderSettings) -> ClipPlan:
    """The same before a drawn background, where its footage cannot be read."""
    rng = np.random.default_rng([settings.seed, 0, plan.index, 3])
    return replace(plan, kind=random_kind(rng), footage=None)


def _placed(plan: ClipPlan, settings: RenderSettings, classes: Sequence[str]) -> ClipPlan:
    """The clip in one of its class's places, unless footage is behind it."""
    assert settings.places is not None
    if plan.footage is not None:
        return plan
    label = classes.index(plan.label)
    rng = np.random.default_rng([settings.seed, 0, plan.index, 1])
    number = int(rng.choice(_pool(settings.places, plan.split)))
    kind = random_kind(np.random.default_rng([settings.seed, 0, label, 2]))
    return replace(plan, kind=kind, place=(label, number))


def random_kind(rng: np.random.Generator) -> Kind:
    kinds: list[Kind] = ["plain", "room", "outdoors"]
    kind: Kind = rng.choice(kinds, p=(0.2, 0.4, 0.4))
    return kind


def _pool(size: int, split: Split) -> np.ndarray:
    """Numbers of the people (or cameras, or places) of a split."""
    if split == "train":
        return np.arange(size)
    return np.arange(size, size + max(1, size // HELDOUT_PART))


def _footage(clips: int, split: Split) -> np.ndarray:
    if clips == 1:  # behind both
        return np.arange(clips)
    heldout = max(1, clips // HELDOUT_PART)
    return np.arange(heldout, clips) if split == "train" else np.arange(heldout)
