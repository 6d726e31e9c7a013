"""The order of the views in a global batch, and the part of it that each process takes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from trainables.config import AlignSettings, FinetuneSettings, MaeSettings
from trainables.contrastive_settings import ContrastiveSettings
from trainables.data.mixture import Mixture, hashed
from trainables.training_settings import MixupSettings

# With whom a view may be mixed; same_clip: with none, but both views of a clip stay together and
# the batch is whole, for a contrastive loss; None: nothing is mixed.
Pairing = Literal[None, "within_source", "across_sources", "same_clip"]


def batch_order(mixture: Mixture, step: int, pairing: Pairing) -> list[int]:
    """The indices of the global batch of `step`, decided from the draws alone.

    Without pairing, and for views of the same clip, as they are drawn. Else positions 2i and 2i + 1
    are partners, and views without one stand at the end, of every source one at most. Partners are
    half of their list of views apart, so views of one clip are partners only where that clip is
    alone in the list: the source's own, or all of the batch with its clips in random order.
    """
    start, views = step * mixture.batch_size, mixture.views_per_clip
    indices = list(range(start, start + mixture.batch_size))
    if pairing in (None, "same_clip"):
        return indices
    if pairing == "within_source":
        lists: dict[int, list[int]] = {}
        for index in indices:
            lists.setdefault(mixture.source_index(index), []).append(index)
    else:  # a period of the mixture as long as half a batch would pair a source with itself
        rng = np.random.default_rng(hashed(mixture.seed, "pairs", step))
        clips = start + views * rng.permutation(mixture.batch_size // views)
        lists = {0: [int(first) + view for first in clips for view in range(views)]}
    pairs: list[tuple[int, int]] = []
    alone: list[int] = []
    for listed in lists.values():
        half = len(listed) // 2
        pairs += zip(listed[:half], listed[half : 2 * half], strict=True)
        alone += listed[2 * half :]
    # By place in the batch, so that every part of it holds all sources, as without pairing.
    paired = [index for pair in sorted(pairs) for index in pair]
    return paired + alone


def shard(order: list[int], rank: int, world_size: int, pairing: Pairing) -> list[int]:
    """The part of one process; pairs are never cut."""
    unit = 1 if pairing is None else 2
    units = len(order) // unit
    first, last = (unit * (part * units // world_size) for part in (rank, rank + 1))
    return order[first : len(order) if rank + 1 == world_size else last]


def pairing_in(
    settings: MaeSettings | ContrastiveSettings | AlignSettings | FinetuneSettings,
) -> Pairing:
    """Of a training stage."""
    if isinstance(settings, ContrastiveSettings):  # the inverter compares nothing
        return None if settings.loss == "inverter" else "same_clip"
    return None if isinstance(settings, MaeSettings) else pairing_of(settings.mixup)


def pairing_of(mixup: MixupSettings | None) -> Pairing:
    if mixup is None:
        return None
    return "across_sources" if mixup.across_sources else "within_source"


def check_parts(
    batch_size: int, pairing: Pairing, per_device_batch: int | None, workers: int
) -> None:
    """Raises ValueError where a process would get nothing, or pairs, or a batch whose views are
    compared with each other, would be cut."""
    unit, what = (1, "clip") if pairing is None else (2, "pair of clips to mix")
    if pairing == "same_clip":
        what = "pair of views"
    if batch_size // unit < workers:
        raise ValueError(
            f"optimizer.batch_size {batch_size} gives {workers} workers no {what} each; "
            "lower execution.workers or raise batch_size"
        )
    largest = unit * -(-batch_size // unit // workers)  # part of a process
    if pairing == "same_clip" and per_device_batch is not None and per_device_batch < largest:
        raise ValueError(
            f"execution.per_device_batch {per_device_batch} cuts the {largest} views of a process, "
            "but in a contrastive stage each view is compared with the whole batch; set it to null "
            "(recompute_activations saves memory), raise workers, or lower batch_size"
        )
    if pairing != "same_clip" and per_device_batch is not None and per_device_batch % unit:
        raise ValueError(
            f"execution.per_device_batch {per_device_batch} is odd, which cuts a pair of clips "
            f"that mixup mixes; make it {per_device_batch + 1}, or set mixup: null"
        )
