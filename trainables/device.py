"""Between the host and its device: a GPU is given work ahead, and is not waited for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; a copy to a GPU goes on while the host does."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # A view with gaps is copied by way of memory that is not pinned, one with overlaps not at all.
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)  # pinned already: as is


def lock_pages(tensor: Tensor) -> bool:
    """Pin `tensor` where it lies, in shared memory, say; False where CUDA refuses to, and warns."""
    error = int(torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0))
    if error:
        with suppress(RuntimeError):  # else it is the next kernel that fails, of this error
            torch.ones(1, device="cuda")
        warnings.warn(
            f"CUDA cannot pin {tensor.nbytes / 2**20:.0f} MiB of shared memory (error {error}), so "
            "training copies each batch once more",
            stacklevel=2,
        )
    return not error


def unlock_pages(tensors: Sequence[Tensor]) -> None:
    """Before their memory goes; copies from it end first."""
    if tensors:
        torch.cuda.synchronize()
    for tensor in tensors:
        torch.cuda.cudart().cudaHostUnregister(tensor.data_ptr())


class Arrivals:
    """Tensors that a device makes, brought to the host in their order.

    From a GPU each comes when the next one is sent, for until then the host would have to wait for
    it: so the host is one piece of work ahead, and never more.
    """

    def __init__(self) -> None:
        self._on_its_way: tuple[Tensor, torch.cuda.Event] | None = None

    def send(self, tensor: Tensor) -> list[Tensor]:
        """Those that have come by then: one at most."""
        if not tensor.is_cuda:
            return [tensor]
        copy, copied = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
        copied.record()
        come = self.last()
        self._on_its_way = copy, copied
        return come

    def last(self) -> list[Tensor]:
        """The one that is still on its way, waited for; none may be."""
        if self._on_its_way is None:
            return []
        tensor, copied = self._on_its_way
        self._on_its_way = None
        copied.synchronize()
        return [tensor]
