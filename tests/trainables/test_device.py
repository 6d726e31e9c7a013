"""What is asked of CUDA, by a stand-in for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainables.device import Arrivals, lock_pages, unlock_pages


class Cuda:
    """Stands in for CUDA's page-locking; an error that nobody has met fails the next kernel."""

    def __init__(self, error: int) -> None:
        self.error, self.waiting, self.copying = error, 0, True
        self.locked: dict[int, int] = {}  # place -> bytes

    def register(self, place: int, size: int, _flags: int) -> int:
        self.waiting = self.error
        if not self.error:
            self.locked[place] = size
        return self.error

    def unregister(self, place: int) -> int:
        assert not self.copying
        del self.locked[place]
        return 0

    def kernel(self, *_arguments: object, **_options: object) -> None:
        error, self.waiting = self.waiting, 0
        if error:
            raise RuntimeError(f"CUDA error {error}")

    def synchronize(self) -> None:
        self.copying = False


def stand_in(monkeypatch: pytest.MonkeyPatch, error: int = 0) -> Cuda:
    cuda = Cuda(error)
    functions = SimpleNamespace(cudaHostRegister=cuda.register, cudaHostUnregister=cuda.unregister)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: functions)
    monkeypatch.setattr(torch.cuda, "synchronize", cuda.synchronize)
    monkeypatch.setattr(torch, "ones", cuda.kernel)
    return cuda


def test_memory_is_locked_whole_and_unlocked_after_the_copies_by_a_stand_in_for_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, numbers = stand_in(monkeypatch), torch.arange(6)
    assert lock_pages(numbers)
    assert cuda.locked == {numbers.data_ptr(): 48}
    unlock_pages([numbers])
    assert cuda.locked == {}


def test_where_nothing_was_locked_no_gpu_is_asked_for() -> None:
    unlock_pages([])


def test_a_refusal_is_told_and_fails_no_kernel_afterwards_by_a_stand_in_for_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = stand_in(monkeypatch, error=712)
    with pytest.warns(UserWarning, match="CUDA cannot pin .*error 712"):
        assert not lock_pages(torch.arange(6))
    cuda.kernel()


def test_what_a_gpu_sends_has_come_when_the_next_is_sent_by_a_stand_in_for_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited_for: list[Event] = []

    class Event:
        def record(self) -> None: ...

        def synchronize(self) -> None:
            waited_for.append(self)

    class OnTheGpu:
        is_cuda = True

        def to(self, device: str, non_blocking: bool) -> str:
            assert (device, non_blocking) == ("cpu", True)
            return f"copy {len(waited_for)}"

    monkeypatch.setattr(torch.cuda, "Event", Event)
    arrivals = Arrivals()
    sent: list[Any] = [OnTheGpu() for _ in range(3)]
    assert arrivals.send(sent[0]) == []
    assert waited_for == []
    assert arrivals.send(sent[1]) == ["copy 0"]
    assert len(waited_for) == 1
    assert arrivals.send(sent[2]) == ["copy 0"]
    assert len(waited_for) == 2
    assert arrivals.last() == ["copy 1"]
    assert len(set(map(id, waited_for))) == 3
