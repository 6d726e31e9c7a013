"""Batches in shared memory that is used again, from which a GPU copies by itself.

torch's own loader maps fresh shared memory for every batch, and one thread of this process copies
it to where a GPU can read it: at 300 MB a batch, that takes longer than a training step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.data.batch import Batch, stacked
from trainables.data.views import TrainingViews
from trainables.device import lock_pages, unlock_pages

HELD = 2  # batches that hold while the loader's processes write those that come after them


def shared_slots(count: int, shape: Sequence[int]) -> list[Tensor]:
    """So many, uint8 of `shape`: one for each batch that is made ahead, and `HELD`.

    Their memory is taken at once, so where there is too little it is an error here and not the end
    of a loader process. It is given back with the last process that knows of it.

    Raises:
        ValueError: too little of it.
    """
    size = math.prod(shape)
    try:
        storages = [torch.UntypedStorage._new_shared(size) for _ in range(count)]
    except RuntimeError as error:
        raise ValueError(
            f"{count} batches of {size / 2**20:.0f} MiB do not fit into shared memory (/dev/shm; a "
            f"container's --shm-size): {error}. Make it larger, or lower execution.*.loader_workers"
        ) from None
    return [torch.empty(0, dtype=torch.uint8).set_(each).view(*shape) for each in storages]


@dataclass
class IntoSlots(torch.utils.data.Dataset[Batch]):
    """Batches by their place in the run of the loader and the indices of their views.

    Their frames are left in the slot of that place, and do not come with them.
    """

    views: TrainingViews
    slots: list[Tensor]  # each uint8 [B, T, H, W, 3]

    def __getitems__(self, numbered: tuple[int, list[int]]) -> Batch:
        place, indices = numbered
        slot = self.slots[place % len(self.slots)]
        batch = stacked(self.views.__getitems__(indices), slot.numpy())
        return replace(batch, frames=torch.empty(0))


def out_of_slots(batches: Iterable[Batch], slots: Sequence[Tensor]) -> Iterator[Batch]:
    """`batches`, as they come from `IntoSlots`, with their frames, which a GPU can copy from.

    A batch's frames hold until the next but one is asked for. Training asks for batch n + 2 when
    the losses of batch n have come from the GPU (see `Arrivals`), so after it has copied batch n.
    With batch n + 2 the loader gives out the one that is `ahead` of it, into the slot of batch n.
    """
    locked: list[Tensor] = []
    try:
        for place, batch in enumerate(batches):
            slot = slots[place % len(slots)]
            if place < len(slots) and lock_pages(slot):
                locked.append(slot)
            yield replace(batch, frames=slot)
    finally:
        unlock_pages(locked)
