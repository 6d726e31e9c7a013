"""One clip as the model sees it, by its index; and what is done when it cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.data.augment import augment, center, to_video
from trainables.data.catalog import Clip, Dataset
from trainables.data.clips import ClipReader, ClipUnreadable
from trainables.data.mixture import Draw, Mixture
from trainables.training_settings import AugmentSettings, ClipSettings

SHOWN = 10  # paths in a message


@dataclass(frozen=True)
class View:
    video: Tensor  # float32 [3, T, H, W]
    label: int
    source: int
    clip: int
    seed: int
    unreadable: list[tuple[str, str]]
    left_out: bool = False


@dataclass
class TrainingViews(torch.utils.data.Dataset[View]):
    """The view at each global index of the run."""

    datasets: Mapping[str, Dataset]
    mixture: Mixture
    settings: ClipSettings
    augmentation: AugmentSettings
    reader: ClipReader
    max_unreadable: float

    def __post_init__(self) -> None:
        self.clips = {name: self.datasets[name].split("train") for name in self.mixture.sources}
        self.sizes = {name: len(clips) for name, clips in self.clips.items()}

    def __getitem__(self, index: int) -> View:
        draw: Draw | None = self.mixture.draw(index)
        failed: list[tuple[str, str]] = []
        while draw is not None:
            try:
                return self._view(draw, failed)
            except ClipUnreadable:
                failed.append((draw.source, self.clips[draw.source][draw.clip].path))
            # At once, for where nothing can be read the search for a stand-in would not end.
            check_unreadable(failed, self.sizes, self.max_unreadable)
            draw = self.mixture.replacement(index, len(failed))
        raise ValueError(f"source {failed[0][0]!r}: not one of its clips can be read")

    def _view(self, draw: Draw, failed: list[tuple[str, str]]) -> View:
        dataset, clip = self.datasets[draw.source], self.clips[draw.source][draw.clip]
        rng = np.random.default_rng(draw.seed)
        frames = self.reader.read(dataset.root / clip.path, rng.random(), dataset.frame_rate)
        view = augment(frames, self.augmentation, self.settings.resolution, rng)
        video = to_video(view, self.settings.normalize)
        source = self.mixture.sources.index(draw.source)
        return View(video, clip.label, source, draw.clip, draw.seed, failed)


@dataclass
class EvaluationViews(torch.utils.data.Dataset[View]):
    """The middle view of each clip."""

    dataset: Dataset
    clips: Sequence[Clip]
    settings: ClipSettings
    reader: ClipReader

    def __getitem__(self, index: int) -> View:
        clip = self.clips[index]
        path = self.dataset.root / clip.path
        try:
            frames = self.reader.read(path, 0.5, self.dataset.frame_rate)
        except ClipUnreadable:
            side = self.settings.resolution
            nothing = torch.zeros(3, self.settings.frames, side, side)
            failed = [(self.dataset.name, clip.path)]
            return View(nothing, clip.label, 0, index, index, failed, left_out=True)
        view = center(frames, self.settings.resolution)
        video = to_video(view, self.settings.normalize)
        return View(video, clip.label, 0, index, index, [])


def check_unreadable(
    found: Iterable[tuple[str, str]], sizes: Mapping[str, int], max_unreadable: float
) -> None:
    """Raises ValueError, with the paths, when too large a share of a source's clips was found.

    `found`: source and path of clips that could not be read; those that repeat count once.
    """
    by_source: dict[str, set[str]] = {}
    for source, path in found:
        by_source.setdefault(source, set()).add(path)
    for source, paths in by_source.items():
        if len(paths) / sizes[source] > max_unreadable:  # a product would refuse 29 of 100 at 0.29
            shown = ", ".join(sorted(paths)[:SHOWN]) + (", ..." if len(paths) > SHOWN else "")
            raise ValueError(
                f"{source!r}: {len(paths)} of {sizes[source]} clips cannot be read, more than "
                f"max_unreadable {max_unreadable:g} allows: {shown}; mend or remove them, or raise "
                "max_unreadable"
            )
