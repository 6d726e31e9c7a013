"""Which clips a world holds: the classes of each dataset; label, scene and group of each clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.data.demo_world.humans import DOWNSTREAM_ACTIONS, SOURCE_ACTIONS
from trainables.data.demo_world.settings import WorldSettings

DatasetName = Literal["synthetic", "scenes", "low_bias", "high_bias"]
HUMANS: dict[DatasetName, str] = {
    "synthetic": "virtual",
    "scenes": "removed",  # a class's scene without its people, as in No-Human Kinetics
    "low_bias": "real",  # they stand in for films of real people
    "high_bias": "real",
}
GROUP_SIZE = 12  # clips that show one person, or one recording session of a scene
SCENE_TIE = 0.9  # chance that a high-bias clip is set in its label's own scene family


@dataclass(frozen=True)
class ClipPlan:
    """`scene` is an index into the dataset's families, None where the backdrop is plain."""

    dataset: DatasetName
    index: int
    split: str
    label: int
    scene: int | None
    group: int

    @property
    def path(self) -> str:
        return f"{self.split}/{self.index:05d}.mp4"


def classes(dataset: DatasetName) -> tuple[str, ...]:
    """A scene's class is the action that went on in it, so the sources' classes share names."""
    return tuple(SOURCE_ACTIONS if dataset in ("synthetic", "scenes") else DOWNSTREAM_ACTIONS)


def plan_dataset(dataset: DatasetName, settings: WorldSettings) -> list[ClipPlan]:
    """Every clip of a dataset. Labels are balanced; a group lies in one split."""
    if dataset in ("synthetic", "scenes"):
        sizes = {"train": settings.clips_per_source, "selection": settings.heldout_per_source}
    else:
        sizes = {
            "train": settings.downstream_train,
            "selection": settings.downstream_selection,
            "report": settings.downstream_report,
        }
    rng = np.random.default_rng([settings.seed, list(HUMANS).index(dataset)])
    plans: list[ClipPlan] = []
    first_group = 0
    for split, size in sizes.items():
        for i in range(size):
            label = i % len(classes(dataset))
            scene = _scene(dataset, i, label, rng)
            group = first_group + i // GROUP_SIZE
            plans.append(ClipPlan(dataset, len(plans), split, label, scene, group))
        first_group = plans[-1].group + 1
    return plans


def _scene(dataset: DatasetName, position: int, label: int, rng: np.random.Generator) -> int | None:
    count = len(classes(dataset))
    if dataset == "synthetic":
        return None
    if dataset == "scenes" or (dataset == "high_bias" and rng.random() < SCENE_TIE):
        return label
    if dataset == "high_bias":
        return int(rng.integers(count))
    # Each label meets each scene equally often: labels cycle, scenes shift by one a cycle.
    return (label + position // count) % count
