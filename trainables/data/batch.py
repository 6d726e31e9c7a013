"""A batch of clips: uint8 from the loader to the device, and there what the model sees."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.data.augment import erase, normalised
from trainables.data.views import View
from trainables.device import to_device


@dataclass(frozen=True)
class Batch:
    """Views of clips; in evaluation, all of a clip's views next to each other.

    Where training mixes clips, entries 2i and 2i + 1 are partners: see `batch_order`.
    """

    frames: Tensor  # uint8 [B, T, H, W, 3]
    scale: Tensor  # float32 [B, 2, 3]: see `normalised`
    erased: Tensor  # int64 [B, 4], on the host: the box of each that is noise; see `erase`
    label: Tensor  # int64 [B]: index into the classes of the clip's own dataset
    source: Tensor  # int64 [B]: index into `mixture.sources`; 0 in evaluation
    clip: Tensor  # int64 [B]: index into the source's training clips, or the clips to evaluate
    seed: Tensor  # int64 [B]: of all other randomness about this use of the clip
    unreadable: list[tuple[str, str]]  # source and path of each clip that stands replaced, left out
    step: int  # of the run; 0 in evaluation

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def video(self) -> Tensor:
        """float32 [B, 3, T, H, W], what the model sees; made where the frames are."""
        video = normalised(self.frames, self.scale)
        erase(video, self.erased, self.seed)
        return video

    def to(self, device: torch.device) -> Batch:
        """With what a model looks at on `device`; masks are drawn from `seed` on the host."""
        moved: dict[str, Any] = {
            name: to_device(getattr(self, name), device)
            for name in ("frames", "scale", "label", "source")
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """In memory that a GPU can copy from by itself; torch's DataLoader asks for it."""
        return replace(self, **{name: t.pin_memory() for name, t in self._tensors().items()})

    def split(self, size: int) -> list[Batch]:
        """In parts of at most `size` clips; the first keeps `unreadable`."""
        return [
            replace(
                self,
                **{name: t[start : start + size] for name, t in self._tensors().items()},
                unreadable=self.unreadable if start == 0 else [],
            )
            for start in range(0, len(self), size)
        ]

    def _tensors(self) -> dict[str, Any]:  # of Tensor; Any for the sake of `replace`
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def stacked(views: list[View], into: np.ndarray | None = None) -> Batch:
    """The batch of those that are not left out; its frames are `into`, where that is given."""
    there = [view for view in views if not view.left_out]
    # With what is left out, for there may be nothing else; by NumPy, for torch's copy wakes all its
    # threads, which costs more where cores are shared.
    frames = torch.from_numpy(np.stack([view.frames for view in views], out=into))
    scale = torch.from_numpy(np.stack([view.scale for view in views]))
    is_there = torch.tensor([not view.left_out for view in views])
    return Batch(
        frames=frames if is_there.all() else frames[is_there],
        scale=scale[is_there],
        erased=torch.tensor([view.erased for view in there], dtype=torch.int64).reshape(-1, 4),
        label=torch.tensor([view.label for view in there], dtype=torch.int64),
        source=torch.tensor([view.source for view in there], dtype=torch.int64),
        clip=torch.tensor([view.clip for view in there], dtype=torch.int64),
        seed=torch.tensor([view.seed for view in there], dtype=torch.int64),
        unreadable=[pair for view in views for pair in view.unreadable],
        step=0,
    )
