from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pytest

from trainables.stage import Stage
from trainables.stage_store import Record, StageStore
from trainables.storage.local_files import LocalFiles

STAGE = Stage(kind="init", settings={"seed": 0})
TRUNK = Stage(kind="align_trunk", settings={"align": {}, "step": 7})


def publish(store: StageStore, text: str, loss: float = 1.0):
    return store.publish(
        STAGE,
        write={"weights.txt": lambda file: file.write(text.encode())},
        metrics={"loss": loss},
        cost={"device_seconds": 1.0, "clips": 2.0},
    )


def test_a_published_stage_is_found_with_its_files(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    assert store.record(STAGE.identity) is None
    publish(store, "w")
    assert store.file(STAGE.identity, "weights").read_text() == "w"
    assert StageStore(tmp_path).record(STAGE.identity).metrics == {"loss": 1.0}


def test_the_first_record_wins_and_the_losers_files_go(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    publish(store, "first", loss=1.0)
    standing = publish(store, "second", loss=2.0)
    assert standing.metrics == {"loss": 1.0}
    assert store.file(STAGE.identity, "weights").read_text() == "first"
    assert len(store.folder(STAGE.identity).listed()) == 2  # record and one weights file


def test_the_loser_leaves_the_snapshots_that_it_shares_with_the_winner(tmp_path: Path) -> None:
    # Both went on from one checkpoint, which names the snapshots made before it.
    store, kept = StageStore(tmp_path), {"epoch_1": "epoch_1-aa.txt"}
    store.snapshots(STAGE.identity).write("epoch_1-aa.txt", b"after one epoch")
    for text in (b"first", b"second"):
        write = {"weights.txt": lambda file, text=text: file.write(text)}
        store.publish(STAGE, write=write, kept=kept, metrics={}, cost={})
    assert store.file(STAGE.identity, "epoch_1").read_text() == "after one epoch"
    assert store.file(STAGE.identity, "weights").read_text() == "first"
    assert len(store.folder(STAGE.identity).listed()) == 3  # record, weights and snapshot


def _publish_in_process(root: Path, number: int) -> None:
    publish(StageStore(root), f"process {number}", loss=float(number))


def test_of_processes_that_publish_at_once_one_wins_whole(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_publish_in_process, args=(tmp_path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store = StageStore(tmp_path)
    winner = int(store.record(STAGE.identity).metrics["loss"])
    assert store.file(STAGE.identity, "weights").read_text() == f"process {winner}"


def test_to_list_all_stages_again_reads_what_is_new_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sweep with a budget lists them before each of its thousand trials.
    store, read, walked = StageStore(tmp_path), list[str](), list[str]()
    whole = {"read": LocalFiles.read, "listed": LocalFiles.listed}
    monkeypatch.setattr(LocalFiles, "read", lambda f, p: read.append(p) or whole["read"](f, p))
    monkeypatch.setattr(LocalFiles, "listed", lambda f, p: walked.append(p) or [])

    def write(number: int) -> None:
        record = Record(
            identity=f"{number:02}", stage={"kind": "probe"}, metrics={}, cost={}, files={}
        )
        store.folder(record.identity).write("record.json", json.dumps(asdict(record)).encode())

    for number in range(40):
        write(number)
    assert [record.identity for record in store.records()] == [f"{n:02}" for n in range(40)]
    assert len(read) == 40
    store.folder("unfinished").write("progress.jsonl", b"")
    write(40)
    assert len(store.records()) == 41
    assert sorted(path.split("/")[-2] for path in read[40:]) == ["40", "unfinished"]
    assert not walked  # which goes through the files of every stage


def test_files_without_a_record_are_no_artifact(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        store.publish(STAGE, write={"weights.txt": fail}, metrics={}, cost={})
    assert store.record(STAGE.identity) is None


def test_a_damaged_record_is_named_with_its_remedy(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    publish(store, "w")
    store.folder(STAGE.identity).write("record.json", b"{")
    with pytest.raises(ValueError, match=f"{STAGE.identity}/record.json.*delete this folder"):
        StageStore(tmp_path).record(STAGE.identity)


def test_points_after_the_last_leave_the_text_before_them_alone(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    old = b'{"epoch":1,"loss":3}\n{"epoch":2,"loss":2}\n'
    store.folder("x").write("progress.jsonl", old)
    store.add_progress("x", {"epoch": 3, "loss": 1})
    assert store.folder("x").read("progress.jsonl") == old + b'{"epoch": 3, "loss": 1}\n'


def test_progress_keeps_the_last_point_of_each_epoch(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    assert store.progress("x") == []
    for epoch, loss in [(1, 3.0), (2, 2.0), (2, 1.9)]:  # killed after epoch 2, which ran again
        store.add_progress("x", {"epoch": epoch, "loss": loss})
    assert store.progress("x") == [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 1.9}]


def test_of_a_finished_stage_nothing_is_left_but_its_artifact(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    store.checkpoint(STAGE.identity).write("last.pt", b"state")
    for name in ("epoch_1-aa.txt", "epoch_1-bb.txt"):  # of an attempt that was cut, and its next
        store.snapshots(STAGE.identity).write(name, name.encode())
    kept = {"epoch_1": "epoch_1-bb.txt"}
    store.publish(STAGE, write={}, kept=kept, metrics={}, cost={})
    names = [file.name for file in store.folder(STAGE.identity).listed()]
    assert names == ["record.json", "snapshots/epoch_1-bb.txt"]
    assert store.file(STAGE.identity, "epoch_1").read_text() == "epoch_1-bb.txt"


def publish_trunk(store: StageStore) -> None:
    write = {"state.pt": lambda file: file.write(b"state")}
    store.publish(TRUNK, write=write, metrics={}, cost={})


def test_a_trunk_that_is_being_written_down_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen, replace = StageStore(tmp_path), list[dict[int, str]](), os.replace
    publish_trunk(store)

    def look(*arguments: Any) -> None:
        seen.append(store.trunks(TRUNK.line))
        replace(*arguments)

    monkeypatch.setattr(os, "replace", look)
    publish_trunk(store)  # a double of it
    assert seen and all(each == {7: TRUNK.identity} for each in seen)


def test_a_trunk_whose_process_dies_right_after_its_record_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, create = StageStore(tmp_path), LocalFiles.create

    def die(*arguments: Any) -> bool:
        create(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFiles, "create", die)
    with pytest.raises(KeyboardInterrupt):
        publish_trunk(store)
    assert StageStore(tmp_path).trunks(TRUNK.line) == {7: TRUNK.identity}
