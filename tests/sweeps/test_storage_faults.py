"""Real sweeps on an object store (moto's S3 server), and storages that refuse for a while.

What disturbs a sweep changes no score: each of these is compared with one sweep on a disk that was
left alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import until as wait_until
from tests.faults.aftermath import (
    Steps,
    answers,
    answers_of,
    finished_stages,
    mlflow_runs,
    runs_in,
)
from tests.faults.ray_nodes import RayNodes
from tests.s3 import S3, s3_server
from tests.sweeps.commands import (
    command,
    run_to_end,
    run_until,
    write_world_sweep,
)
from trainables.stage_store import StageStore
from trainables.storage.folder import Folder

pytestmark = pytest.mark.slow
SHORT = {"trial__mae__epochs": 0, "trial__align__epochs": 20, "search__trials": 2}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def storage(s3: S3) -> Iterator[Folder]:
    name = f"bucket-{secrets.token_hex(4)}"
    s3.make_bucket(name)
    s3.refusing, s3.refused = False, 0
    yield Folder(f"s3://{name}/runs", patience_seconds=300)
    s3.refusing = False


def sweep_on(folder: Path, storage: str, **overrides: Any) -> Path:
    return write_world_sweep(folder, storage=storage, **{**SHORT, **overrides})


def summary_in(storage: Folder, name: str = "toy") -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((storage / name).read("summary.json"))
    return summary


def epochs_of_a_stage_at_work(storage: Folder, kind: str = "train_accuracy") -> int:
    """Of an alignment that is not finished."""
    store = StageStore(storage / "stages")
    identities = {file.name.split("/")[0] for file in store.root.listed()}
    points = [store.progress(each) for each in identities if store.record(each) is None]
    return max((len(each) for each in points if each and kind in each[0]), default=0)


def finished(storage: Folder) -> dict[str, bytes]:
    store = StageStore(storage / "stages")
    return {r.identity: store.folder(r.identity).read("record.json") for r in store.records()}


def check_only_artifacts_are_left(storage: Folder) -> None:
    """No checkpoint, no lease, no file that no record names, and every artifact whole."""
    store = StageStore(storage / "stages")
    records = {record.identity: record for record in store.records()}
    for file in store.root.listed():
        identity, _, name = file.name.partition("/")
        notes = {"record.json", "progress.jsonl", "attempts"}
        assert name in notes | {*records[identity].files.values()}, file.name
    for record in records.values():
        assert record.attempts <= 1, f"{record.stage['kind']} was begun {record.attempts} times"
        for role in record.files:
            assert store.file(record.identity, role).stat().st_size > 0


@pytest.fixture(scope="module")
def nodes(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    """A head and two nodes, which know the object store."""
    cluster = RayNodes(tmp_path_factory.mktemp("ray"))
    try:
        for _ in range(2):
            cluster.add_node()
        yield cluster
    finally:
        cluster.shut_down()


@contextmanager
def running(sweep: Path, nodes: RayNodes) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The command on the nodes, and what it prints so far."""
    printed = sweep.parent / "running.log"
    with printed.open("ab") as log:
        process = subprocess.Popen(
            command(sweep),
            cwd=sweep.parent,
            env=nodes.submit_environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield process, printed
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def until(true: Callable[[], Any], process: subprocess.Popen[bytes], printed: Path) -> None:
    deadline = time.monotonic() + 500
    while not true():
        assert process.poll() is None, printed.read_text()[-3000:]
        assert time.monotonic() < deadline, printed.read_text()[-3000:]
        time.sleep(0.2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = sweep_on(folder, str(folder / "runs"))
    run_to_end(sweep)
    return sweep


def check_ended_as(
    undisturbed: Path,
    sweep: Path,
    storage: Folder,
    nodes: RayNodes,
    began: float,
    name: str = "toy",
) -> None:
    """What holds after a fault that ends no process; the sweep ran on `nodes` since `began`."""
    assert answers_of(summary_in(storage, name)) == answers(undisturbed)
    assert finished(storage).keys() == finished_stages(undisturbed).keys()
    check_only_artifacts_are_left(storage)
    (mlflow,) = sweep.parent.rglob("mlflow.db")
    assert runs_in(f"sqlite:///{mlflow}", name) == mlflow_runs(undisturbed)
    assert sum(Steps.read(nodes.trace, began).repeated().values()) == 0
    wait_until(lambda: not nodes.left_behind(), seconds=60)


def test_a_sweep_on_an_object_store_that_is_killed_and_run_again_ends_as_one_on_a_disk(
    undisturbed: Path, storage: Folder, tmp_path: Path
) -> None:
    sweep = sweep_on(tmp_path, str(storage))
    run_until(sweep, lambda: epochs_of_a_stage_at_work(storage) >= 3)
    before = finished(storage)
    store = StageStore(storage / "stages")
    kept = [file.name for file in store.root.listed() if file.name.endswith("checkpoint/last.pt")]
    assert len(kept) == 1
    shutil.rmtree(tmp_path / "runs")  # all that this machine knows, as if it were another
    printed = run_to_end(sweep)
    assert answers_of(summary_in(storage)) == answers(undisturbed)
    assert finished(storage).items() >= before.items(), "a finished stage was trained again"
    identity = kept[0].split("/")[0]
    assert store.record(identity).attempts == 2  # type: ignore[union-attr]
    assert "Storage: the stages take" in printed
    status = run_to_end(sweep, "--status")
    assert "It is finished" in status and str(storage) in status
    for name in ("report.md", "report.html", "recommended.safetensors"):
        assert len((storage / "toy").read(name)) > 100
    again = run_to_end(sweep)
    assert "nothing is trained" in again
    assert answers_of(summary_in(storage)) == answers(undisturbed)


def test_an_object_store_that_answers_503_for_a_while_is_waited_for(
    undisturbed: Path, nodes: RayNodes, s3: S3, storage: Folder, tmp_path: Path
) -> None:
    sweep = sweep_on(tmp_path, str(storage), execution__storage__patience_minutes=10)
    began = time.time()
    with running(sweep, nodes) as (process, printed):
        until(lambda: epochs_of_a_stage_at_work(storage) >= 3, process, printed)
        before = finished(storage)
        s3.refusing = True
        until(lambda: s3.refused >= 60, process, printed)
        s3.refusing = False
        assert process.wait(500) == 0, printed.read_text()[-3000:]
    assert finished(storage).items() >= before.items(), "a finished stage was trained again"
    check_ended_as(undisturbed, sweep, storage, nodes, began)


def test_a_second_copy_on_an_object_store_is_refused_and_the_first_ends_as_if_alone(
    undisturbed: Path, nodes: RayNodes, storage: Folder, tmp_path: Path
) -> None:
    sweep = sweep_on(tmp_path, str(storage))
    began = time.time()
    with running(sweep, nodes) as (process, printed):
        until(lambda: epochs_of_a_stage_at_work(storage) >= 1, process, printed)
        second = subprocess.run(
            command(sweep),
            cwd=tmp_path,
            env=nodes.submit_environment,
            capture_output=True,
            text=True,
        )
        assert second.returncode == 2 and "runs this sweep; wait for it" in second.stdout
        assert process.wait(500) == 0, printed.read_text()[-3000:]
    check_ended_as(undisturbed, sweep, storage, nodes, began)


def test_two_sweeps_that_need_the_same_stages_at_once_end_right_on_one_object_store(
    undisturbed: Path, nodes: RayNodes, storage: Folder, tmp_path: Path
) -> None:
    first = sweep_on(tmp_path / "first", str(storage))
    second = sweep_on(tmp_path / "second", str(storage), name="other")
    began = time.time()
    with (
        running(first, nodes) as (one, printed_one),
        running(second, nodes) as (two, printed_two),
    ):
        assert one.wait(900) == 0, printed_one.read_text()[-3000:]
        assert two.wait(900) == 0, printed_two.read_text()[-3000:]
    for name, sweep in (("toy", first), ("other", second)):
        check_ended_as(undisturbed, sweep, storage, nodes, began, name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that can be filled: a tmpfs, which only root may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_waited_for(
    undisturbed: Path, nodes: RayNodes, small_disk: Path, tmp_path: Path
) -> None:
    storage = Folder(str(small_disk / "runs"))
    sweep = sweep_on(tmp_path, str(storage), execution__storage__patience_minutes=10)
    filler = small_disk / "filler"
    began = time.time()
    with running(sweep, nodes) as (process, printed):
        until(lambda: epochs_of_a_stage_at_work(storage) >= 3, process, printed)
        before = finished(storage)
        with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"\0" * 2**16)
                file.flush()
        silent = (small_disk / "runs" / "toy" / "stages.json").stat().st_mtime_ns
        at_work = epochs_of_a_stage_at_work(storage)
        time.sleep(15)  # in which a stage would train several epochs
        assert process.poll() is None
        assert epochs_of_a_stage_at_work(storage) <= at_work + 1
        assert (small_disk / "runs" / "toy" / "stages.json").stat().st_mtime_ns == silent
        filler.unlink()
        assert process.wait(500) == 0, printed.read_text()[-3000:]
    assert finished(storage).items() >= before.items(), "a finished stage was trained again"
    check_ended_as(undisturbed, sweep, storage, nodes, began)
