"""Batches of clips: what the mixture draws, read and augmented here or by other processes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from trainables.config import TestSettings
from trainables.data.augment import TRAINING_MARGIN
from trainables.data.batch import Batch, stacked
from trainables.data.batch_order import Pairing, batch_order, shard
from trainables.data.catalog import Clip, Dataset
from trainables.data.clips import ClipReader
from trainables.data.mixture import Mixture
from trainables.data.shared_slots import HELD, IntoSlots, out_of_slots, shared_slots
from trainables.data.views import EvaluationViews, TrainingViews, check_unreadable
from trainables.training_settings import AugmentSettings, ClipSettings, VideoReader

KEPT_BYTES = 512 * 2**20  # of decoded short clips, per rank
PREFETCHED = 2  # batches that each loader process is ahead
# Of mallopt, from <malloc.h>. What is larger than 32 MiB, the most that a glibc before 2.35 lets
# one set, is given back all the same: whole batches, but no clip.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST_KEPT = -1, -3, 32 * 2**20


def training_batches(
    datasets: Mapping[str, Dataset],
    mixture: Mixture,
    clip: ClipSettings,
    augmentation: AugmentSettings,
    *,
    start_step: int,
    stop_step: int,
    rank: int,
    world_size: int,
    workers: int,
    video_reader: VideoReader,
    max_unreadable: float,
    pairing: Pairing,
    resample: Mapping[str, tuple[int, int]],
    second_views: Mapping[str, float],
    pin_memory: bool,
) -> Iterator[Batch]:
    """This rank's part of the global batches `start_step` to `stop_step` - 1.

    The parts of all ranks, one after the other, are the global batch in its `batch_order`.

    The batches follow from the mixture and the settings alone, not from `workers` or
    `start_step`. A clip that cannot be read is replaced by another of the same source. A second
    view shows the generator's view of the scale in `second_views` instead of the clip itself.

    `pin_memory`: for a GPU. Frames that `workers` read then come through `shared_slots`: they hold
    until the next batch but one is asked for.

    Raises:
        ValueError: when more than `max_unreadable` of a source's training clips (as seen by this
            rank) could not be read; or shared memory is too small.
    """
    side = math.ceil(clip.resolution * TRAINING_MARGIN)
    reader = _reader(clip, side, KEPT_BYTES // max(1, workers), video_reader)
    views = TrainingViews(
        datasets, mixture, clip, augmentation, reader, max_unreadable, resample, second_views
    )
    steps = range(start_step, stop_step)
    if not steps:
        return
    indices = (
        shard(batch_order(mixture, step, pairing), rank, world_size, pairing) for step in steps
    )
    loaded: Iterable[Batch]
    if workers and pin_memory:
        size = len(shard(list(range(mixture.batch_size)), rank, world_size, pairing))
        shape = (size, clip.frames, clip.resolution, clip.resolution, 3)
        slots = shared_slots(min(workers * PREFETCHED + HELD, len(steps)), shape)
        sent = _load(IntoSlots(views, slots), enumerate(indices), workers, False, _as_it_comes)
        loaded = out_of_slots(sent, slots)
    else:
        loaded = _load(views, indices, workers, pin_memory)
    batches = _checked(loaded, views.sizes, max_unreadable)
    for step, batch in zip(steps, batches, strict=True):
        yield replace(batch, step=step)


def eval_batches(
    dataset: Dataset,
    clips: Sequence[Clip],
    settings: ClipSettings,
    views: TestSettings,
    *,
    batch_size: int,
    workers: int,
    video_reader: VideoReader,
    max_unreadable: float,
    pin_memory: bool,
) -> Iterator[Batch]:
    """All views of every clip of `clips`, in order, `batch_size` clips a batch.

    A clip is V = views.clips x views.crops consecutive entries of one batch, all with its index
    in `clip`: [B] is [B / V, V]. See `EvaluationViews`.

    Clips that cannot be read are left out, and listed in the `unreadable` of a batch near.

    Raises:
        ValueError: when more than `max_unreadable` of `clips` could not be read, or all.
    """
    reader = _reader(settings, settings.resolution, 0, video_reader)
    clip_views = EvaluationViews(dataset, clips, settings, views, reader)
    starts = range(0, len(clips), batch_size)
    indices = (list(range(start, min(start + batch_size, len(clips)))) for start in starts)
    sizes = {dataset.name: len(clips)}
    loaded = _load(clip_views, indices, min(workers, len(starts)), pin_memory)
    yield from _without_empty(_checked(loaded, sizes, max_unreadable))


def _without_empty(batches: Iterable[Batch]) -> Iterator[Batch]:
    """`batches` that hold a clip; one that holds none leaves its list to a neighbour."""
    held: Batch | None = None
    for batch in batches:
        if held is not None and len(held) and len(batch):
            yield held
        elif held is not None:
            unreadable = held.unreadable + batch.unreadable
            batch = replace(batch if len(batch) else held, unreadable=unreadable)
        held = batch
    if held is not None and not len(held):
        raise ValueError(f"{held.unreadable[0][0]!r}: not one of its clips can be read")
    if held is not None:
        yield held


def _reader(
    settings: ClipSettings, short_side: int, keep_bytes: int, video_reader: VideoReader
) -> ClipReader:
    return ClipReader(
        frames=settings.frames,
        seconds=settings.seconds,
        short_side=short_side,
        keep_bytes=keep_bytes,
        video_reader=video_reader,
    )


def _load(
    views: torch.utils.data.Dataset[Any],
    indices: Iterable[Any],
    workers: int,
    pin_memory: bool,
    batch_of: Callable[[Any], Batch] = stacked,
) -> Iterable[Batch]:
    """One batch for each list of indices, in order, read by `workers` processes or here.

    `pin_memory`: for a GPU, to which it is then copied in the background.
    """
    return DataLoader(
        views,
        batch_sampler=indices,
        collate_fn=batch_of,
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=pin_memory,
        # A fork of a process with torch's and Ray's threads may hang.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=set_up_process,
        generator=torch.Generator(),  # else the loader draws from torch's global one
    )


def _as_it_comes(batch: Batch) -> Batch:
    return batch


def set_up_process(_worker: int) -> None:
    cv2.setNumThreads(0)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Of the frames of a clip, for those of the next: the C library gives them back else, and
    fresh memory costs a page fault every 4 KiB, several times what is then done with it."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # macOS and musl have none
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, LARGEST_KEPT)
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def _checked(
    batches: Iterable[Batch], sizes: Mapping[str, int], max_unreadable: float
) -> Iterator[Batch]:
    """`batches`, until too many different clips could not be read."""
    found: list[tuple[str, str]] = []
    for batch in batches:
        if batch.unreadable:
            found = list(dict.fromkeys([*found, *batch.unreadable]))
            check_unreadable(found, sizes, max_unreadable)
        yield batch
