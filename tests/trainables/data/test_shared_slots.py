"""With real loader processes, and a stand-in for the page-locking that only CUDA can do."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainables.data.test_loader import batches, dataset, mixture, same
from trainables.data import loader, shared_slots
from trainables.data.batch import Batch
from trainables.data.catalog import Dataset

IN_PROC = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc to look into")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    root = tmp_path_factory.mktemp("clips")
    return {"real": dataset(root, "real", 3, 0), "virtual": dataset(root, "virtual", 6, 50)}


@pytest.fixture(autouse=True)
def locked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the memory lies that the stand-in for CUDA has locked; empty again in the end."""
    places: list[int] = []

    def lock(tensor: Tensor) -> bool:
        places.append(tensor.data_ptr())
        return True

    def unlock(tensors: list[Tensor]) -> None:
        for tensor in tensors:
            places.remove(tensor.data_ptr())

    monkeypatch.setattr(shared_slots, "lock_pages", lock)
    monkeypatch.setattr(shared_slots, "unlock_pages", unlock)
    return places


def mapped() -> set[str]:
    """Pieces of torch's shared memory that this process can see, by their inodes."""
    gc.collect()
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "/torch_" in line}


def freed_down_to(those: set[str]) -> bool:
    """Whether no others are `mapped`, now or in some seconds: processes end on a busy machine."""
    deadline = time.monotonic() + 10
    while mapped() - those and time.monotonic() < deadline:
        time.sleep(0.1)
    return not mapped() - those


def slotted(datasets: dict[str, Dataset], workers: int = 1, **changes: object) -> Iterator[Batch]:
    return batches(datasets, workers=workers, pin_memory=True, **changes)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_this_process(datasets: dict[str, Dataset], workers: int) -> None:
    there = slotted(datasets, workers)
    assert all(same(one, other) for one, other in zip(batches(datasets), there, strict=True))


def test_each_rank_has_its_part_of_a_batch_that_does_not_divide(
    datasets: dict[str, Dataset],
) -> None:
    for rank, size in enumerate([1, 1, 2]):
        part = {"rank": rank, "world_size": 3, "start_step": 5, "stop_step": 7}
        for one, other in zip(batches(datasets, **part), slotted(datasets, **part), strict=True):
            assert same(one, other)
            assert len(other.frames) == size


def test_a_replaced_clip_is_told_of_and_too_many_stop_it(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    mended = {**datasets, "real": dataset(tmp_path, "real", 3, 0)}
    (tmp_path / "real" / "1.mp4").write_bytes(b"")
    here, there = batches(mended, max_unreadable=0.34), slotted(mended, 2, max_unreadable=0.34)
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    with pytest.raises(ValueError, match="1 of 3 clips cannot be read"):
        list(slotted(mended))


def test_a_batch_holds_until_the_next_but_one_is_asked_for_and_its_memory_is_used_again(
    datasets: dict[str, Dataset],
) -> None:
    here, there = list(batches(datasets)), slotted(datasets)
    places = set[int]()
    held = next(there)
    for expected, batch in zip(here[:-1], there, strict=True):  # `batch` is the one after that
        time.sleep(0.2)  # till the process has done all that it was asked for by then
        assert torch.equal(held.frames, expected.frames)
        places.add(held.frames.data_ptr())
        held = batch
    assert len(places) == 4  # two that one process is ahead, and two that hold


def test_memory_is_locked_where_a_batch_lies_and_once_and_unlocked_in_the_end(
    datasets: dict[str, Dataset], locked: list[int]
) -> None:
    there = slotted(datasets)
    for number, batch in enumerate(there, start=1):
        assert len(locked) == len(set(locked)) == min(number, 4)
        assert batch.frames.data_ptr() in locked
    assert locked == []
    there = slotted(datasets)
    next(there)
    del there
    assert locked == []


def test_memory_that_cannot_be_locked_is_used_and_not_unlocked(
    datasets: dict[str, Dataset], locked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_slots, "lock_pages", lambda _tensor: False)
    there = slotted(datasets)
    assert all(same(one, other) for one, other in zip(batches(datasets), there, strict=True))


@IN_PROC
def test_no_shared_memory_is_left_after_the_last_batch_nor_after_one_that_was_the_last_wanted(
    datasets: dict[str, Dataset],
) -> None:
    before = mapped()
    there = slotted(datasets, 2)
    next(there)
    assert len(mapped() - before) >= 6
    assert sum(1 for _ in there) == 9
    assert freed_down_to(before)
    there = slotted(datasets, 2)
    next(there)
    del there
    assert freed_down_to(before)
    assert not [name for name in os.listdir("/dev/shm") if f"torch_{os.getpid()}_" in name]


@IN_PROC
def test_a_loader_process_that_is_killed_stops_it_and_leaves_no_shared_memory(
    datasets: dict[str, Dataset], locked: list[int]
) -> None:
    before, others = mapped(), multiprocessing.active_children()
    there = slotted(datasets, mixture=mixture(datasets, total=4000), stop_step=1000)
    next(there)
    (process,) = set(multiprocessing.active_children()) - set(others)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="exited unexpectedly|is killed by signal"):
        list(there)
    del there
    assert locked == []
    assert freed_down_to(before)


def test_shared_memory_that_is_too_small_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"4 batches of 16777216 MiB .*lower .*loader_workers"):
        shared_slots.shared_slots(4, (2**44,))


def test_a_short_run_takes_no_more_slots_than_it_has_batches_and_none_takes_none(
    datasets: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counted(count: int, shape: Sequence[int]) -> list[Tensor]:
        taken.append(count)
        return shared_slots.shared_slots(count, shape)

    monkeypatch.setattr(loader, "shared_slots", counted)
    assert len(list(slotted(datasets, stop_step=3))) == 3
    assert len(list(slotted(datasets))) == 10
    assert list(slotted(datasets, start_step=10)) == []
    assert taken == [3, 4]
