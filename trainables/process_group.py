"""The processes that train one stage together: Ray Train's, torchrun's, or this one alone."""

from __future__ import annotations

import atexit
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def join_process_group(device: torch.device) -> None:
    """Make the processes that torchrun started know each other; no-op if they do, or alone.

    They stay joined until the process ends: torchrun's rendezvous serves one group only.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """`values` summed over all processes."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def joined(own: Tensor, first: int, total: int) -> Tensor:
    """[total, ...]: each process's `own` [B, ...] at its place, `first`; gradients go back to it.

    What each process makes of the whole adds to the gradient of all parts. The same in each process
    to the bit, for a sum of one number and zeros is exact.
    """
    every: Tensor = _Joined.apply(own, first, total)
    return every


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, first: int, total: int) -> Tensor:
        ctx.here = slice(first, first + len(own))
        every = own.new_zeros(total, *own.shape[1:])
        every[ctx.here] = own
        return summed(every)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        return summed(grad[0].clone())[ctx.here], None, None


def gathered(value: Any) -> list[Any]:
    """`value` of every process, by rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """The `value` of rank 0."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]
