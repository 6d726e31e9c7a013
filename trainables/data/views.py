"""One clip as the model sees it, by its index; and what is done when it cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from trainables.config import TestSettings
from trainables.data.augment import augment, erased_box, resample, scale_of, square_crops
from trainables.data.catalog import Clip, Dataset
from trainables.data.clips import ClipReader
from trainables.data.mixture import Draw, Mixture
from trainables.data.video_files import ClipUnreadable
from trainables.training_settings import AugmentSettings, ClipSettings

SHOWN = 10  # paths in a message


@dataclass(frozen=True)
class View:
    frames: np.ndarray  # uint8 [T, H, W, 3]
    scale: np.ndarray  # float32 [2, 3]: see `normalised`
    label: int
    source: int
    clip: int
    seed: int
    unreadable: list[tuple[str, str]]
    erased: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, height, width; no height: nothing
    left_out: bool = False


@dataclass
class TrainingViews(torch.utils.data.Dataset[View]):
    """The view at each global index of the run.

    The window that was decoded last is kept, so that views of a clip that are read one after the
    other cost one decode.
    """

    datasets: Mapping[str, Dataset]
    mixture: Mixture
    settings: ClipSettings
    augmentation: AugmentSettings
    reader: ClipReader
    max_unreadable: float
    resample: Mapping[str, tuple[int, int]]  # sources whose frames pass through width x height
    second_views: Mapping[str, float]  # source -> scale of what other views than the first show
    _last: tuple[tuple[str, int, int], list[np.ndarray]] | None = field(
        default=None, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.clips = {name: self.datasets[name].split("train") for name in self.mixture.sources}
        self.sizes = {name: len(clips) for name, clips in self.clips.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[View]:
        """The views of a batch in the order of `indices`, decoded in that of the run."""
        views = {index: self._at(index) for index in sorted(indices)}
        return [views[index] for index in indices]

    def _at(self, index: int) -> View:
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
        rng = np.random.default_rng(draw.seed)
        rng.random()  # the first view's window in time: what is seen in it is drawn after that
        view = augment(self._frames(draw), self.augmentation, self.settings.resolution, rng)
        return View(
            frames=view,
            scale=scale_of(view, self.settings.normalize),
            label=self.clips[draw.source][draw.clip].label,
            source=self.mixture.sources.index(draw.source),
            clip=draw.clip,
            seed=draw.seed,
            unreadable=failed,
            erased=erased_box(view.shape[1], view.shape[2], self.augmentation.erasing, rng),
        )

    def _frames(self, draw: Draw) -> np.ndarray:
        """uint8 [T, H, W, 3]: the window that all views of this use of the clip share.

        Where others than the first show another file, all are read together: if one cannot be
        read, another clip stands in for all.
        """
        use, is_first = (draw.source, draw.clip, draw.clip_seed), draw.seed == draw.clip_seed
        if self._last is None or self._last[0] != use:
            self._last = use, self._read(draw)
        return self._last[1][0 if is_first else -1]

    def _read(self, draw: Draw) -> list[np.ndarray]:
        dataset, clip = self.datasets[draw.source], self.clips[draw.source][draw.clip]
        position = np.random.default_rng(draw.clip_seed).random()
        scales = [0.0]
        if draw.source in self.second_views:
            scales.append(self.second_views[draw.source])
        read = [frames_of(dataset, clip, scale, self.reader, position) for scale in scales]
        if draw.source in self.resample:
            read = [resample(frames, *self.resample[draw.source]) for frames in read]
        return read


@dataclass
class EvaluationViews(torch.utils.data.Dataset[View]):
    """The views of each clip, by its index: windows in time, each with its crops.

    Windows spread evenly over the clip from its start to its end; one window, or one crop, is the
    middle. A clip of which one window cannot be read is left out wholly.
    """

    dataset: Dataset
    clips: Sequence[Clip]
    settings: ClipSettings
    views: TestSettings
    reader: ClipReader

    def __getitems__(self, indices: Sequence[int]) -> list[View]:
        """All views of the clips of a batch, those of a clip next to each other."""
        return [view for index in indices for view in self._of(index)]

    def _of(self, index: int) -> list[View]:
        clip, windows = self.clips[index], self.views.clips
        side = self.settings.resolution
        positions = np.linspace(0, 1, windows) if windows > 1 else [0.5]
        try:
            read = [frames_of(self.dataset, clip, 0.0, self.reader, each) for each in positions]
        except ClipUnreadable:
            nothing = np.zeros((self.settings.frames, side, side, 3), np.uint8)
            failed = [(self.dataset.name, clip.path)]
            return [replace(self._view(nothing, clip, index, failed), left_out=True)]
        return [
            self._view(crop, clip, index, [])
            for frames in read
            for crop in square_crops(frames, side, self.views.crops)
        ]

    def _view(
        self, frames: np.ndarray, clip: Clip, index: int, failed: list[tuple[str, str]]
    ) -> View:
        scale = scale_of(frames, self.settings.normalize)
        return View(frames, scale, clip.label, 0, index, index, failed)


def frames_of(
    dataset: Dataset, clip: Clip, scale: float, reader: ClipReader, position: float
) -> np.ndarray:
    """uint8 [T, H, W, 3]: a window of the clip, or of its view of `scale`, as `read_clip`.

    Raises:
        ClipUnreadable: it cannot be read.
        ValueError: the program that draws it gave what is no clip.
    """
    if dataset.program is None:
        root = dataset.views[scale] if scale else dataset.root
        return reader.read(root / clip.path, position, dataset.frame_rate)
    drawn = dataset.program.draw(dataset.sample(clip), scale)
    places, _ = reader.window(len(drawn), dataset.program.frames_per_second, position)
    return np.stack([reader.shrunk(drawn[place]) for place in places])


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
