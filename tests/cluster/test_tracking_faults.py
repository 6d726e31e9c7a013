"""Real MLflow servers that are slow, hang, are killed and come back; what a sweep keeps of it."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from cluster import sender
from tests.cluster.conftest import until
from tests.cluster.mlflow_server import MlflowServer, Postgres, SlowLine
from tests.cluster.tracked import begin, runs, started, tell_a_small_sweep
from tests.faults.aftermath import Steps, check_aftermath, finished_stages
from tests.faults.ray_nodes import TOKEN, RayNodes
from tests.sweeps.commands import command, environment, run_to_end, write_world_sweep
from tests.toy import CPU
from trainables.stage_store import StageStore

NOTHING: Mapping[str, str] = {}
STAGE = "ab12cd34ab12cd34"
SECRETS = {
    "MLFLOW_TRACKING_TOKEN": "planted-1",
    "MLFLOW_TRACKING_USERNAME": "ann",
    "MLFLOW_TRACKING_PASSWORD": "planted-2",
    "AWS_SECRET_ACCESS_KEY": "planted-3",
    "RAY_AUTH_TOKEN": "planted-4",
}


@pytest.fixture(scope="module")
def server(made_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(made_database, folder / "server.db")
    server = MlflowServer(folder, f"sqlite:///{folder}/server.db")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def line(server: MlflowServer) -> Iterator[SlowLine]:
    line = SlowLine(server.port)
    yield line
    line.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "RETRY_SECONDS_MOST", 1.0)


def curve(address: str, run: Run, metric: str = "loss") -> list[tuple[int, float]]:
    history = MlflowClient(address).get_metric_history(run.info.run_id, metric)
    return [(each.step, each.value) for each in history]


def test_a_server_that_hangs_costs_one_warning_and_nothing_is_lost_or_doubled(
    server: MlflowServer,
    weights: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tracker = started(server.address.replace("//", "//ann:s3cr3t@"))
    begin(tracker, 0, "synthetic 0.5")
    runs(server.address, tracker)

    server.signal(signal.SIGSTOP)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with caplog.at_level(logging.WARNING):
        # The server will create this run when it goes on, though it could not say so.
        tracker.stage_progress(STAGE, "align", [{"epoch": 1, "loss": 1.0, "time": 1e9}])
        tell_a_small_sweep(tracker, weights)
        until(lambda: tracker.away)
        assert tracker.unsent == 3  # all news of a run is one update
    assert [each.name for each in caplog.records].count("cluster.sender") == 1

    server.signal(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    found = runs(server.address, tracker)
    assert sorted(found) == [f"stage {STAGE}", "sweep demo", "trial 0"]
    assert [step for step, _ in curve(server.address, found[f"stage {STAGE}"])] == [1, 2, 3, 3]
    files = MlflowClient(server.address).list_artifacts(found["sweep demo"].info.run_id)
    assert [file.path for file in files] == ["recommended.safetensors"]
    out, err = capfd.readouterr()
    assert "s3cr3t" not in out + err + caplog.text


def test_what_arrives_after_its_sender_gave_up_is_there_once(
    server: MlflowServer, line: SlowLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = started(line.address, sweep="late")
    runs(line.address, tracker, sweep="late")
    points = [{"epoch": epoch, "loss": 1 / epoch, "time": 1e9 + epoch} for epoch in range(1, 5)]

    def tell_unheard(points: list[dict[str, float]]) -> None:
        line.delay = 4.0
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        tracker.stage_progress(STAGE, "align", points)
        until(lambda: tracker.away)
        line.delay = 0.0
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        until(lambda: not tracker.unsent)
        until(lambda: not line.late)  # what was given up has arrived, after it was sent again

    tell_unheard(points[:2])  # makes the run twice
    tell_unheard(points[2:])  # sends points twice
    found = runs(server.address, tracker, sweep="late")
    assert sorted(found) == [f"stage {STAGE}", "sweep late"]
    assert curve(server.address, found[f"stage {STAGE}"]) == [(e, 1 / e) for e in range(1, 5)]


# The whole command


def toy_sweep(folder: Path, uri: str | None, **overrides: Any) -> Path:
    """Two trials, one after the other; the second trains, long enough for MLflow to be killed."""
    settings: dict[str, Any] = {
        "search__trials": 2,
        "trial__mae__epochs": 40,
        "trial__align__epochs": 40,
        "trial__downstream": ["low_bias"],
        "tracking__uri": uri,
        **overrides,
    }
    return write_world_sweep(folder, **settings)


def stored(sweep: Path, name: str) -> list[dict[str, Any]]:
    paths = sorted((sweep.parent / "runs" / name / "trials").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


def points_on_disk(sweep: Path) -> int:
    files = (sweep.parent / "runs" / "stages").glob("*/progress.jsonl")
    return sum(len(path.read_text().splitlines()) for path in files)


def check_mlflow_holds_all(uri: str, sweep: Path, name: str = "toy") -> None:
    """What the files say, once: runs, parents, states, scores and curves."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    named = {(run.data.tags["kind"], run.data.tags["key"]): run for run in found}
    assert len(named) == len(found), "twins"
    assert {run.info.status for run in found} == {"FINISHED"}
    parent = named["sweep", name]
    parents = {run.data.tags.get("mlflow.parentRunId") for run in found if run is not parent}
    assert parents == {parent.info.run_id}

    store = StageStore(sweep.parent / "runs" / "stages")
    finished = {record.identity for record in store.records()}
    assert finished == {key for kind, key in named if kind == "stage"}
    for identity in finished:
        told = {point["epoch"]: point["loss"] for point in store.progress(identity)}
        if told:
            history = client.get_metric_history(named["stage", identity].info.run_id, "loss")
            assert [(each.step, each.value) for each in history] == sorted(told.items())
    records = stored(sweep, name)
    assert {f"{each['number']}" for each in records} == {k for kind, k in named if kind == "trial"}
    for each in records:
        run = named["trial", str(each["number"])]
        assert run.data.metrics["score"] == each["score"]
        assert each["mlflow_run_id"] == run.info.run_id
        assert "](#/experiments/" in run.data.tags["mlflow.note.content"]
    summary = json.loads((sweep.parent / "runs" / name / "summary.json").read_text())
    assert parent.data.metrics["best/score"] == summary["recommended"]["score"]
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"summary.json", "recommended.safetensors", "report.html"} <= files


def start(sweep: Path, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The command; what it says goes to run.log."""
    with (sweep.parent / "run.log").open("a") as log:
        return subprocess.Popen(
            command(sweep),
            cwd=sweep.parent,
            env=environment(more),
            stdout=log,
            stderr=log,
        )


def said_by(sweep: Path) -> str:
    return (sweep.parent / "run.log").read_text()


def kill(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started, with SIGKILL."""
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def run_with(act: Callable[[], bool], sweep: Path, more: Mapping[str, str] = NOTHING) -> str:
    """Run to the end, calling `act` until it has done its part. Returns what was said."""
    process, deadline, acted = start(sweep, more), time.monotonic() + 400, False
    try:
        while process.poll() is None:
            acted = acted or act()
            assert time.monotonic() < deadline, said_by(sweep)[-3000:]
            time.sleep(0.05)
    finally:
        kill(process)
    assert process.returncode == 0 and acted, said_by(sweep)[-3000:]
    return said_by(sweep)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    """A head and two nodes."""
    cluster = RayNodes(tmp_path / "ray")
    try:
        for _ in range(2):
            cluster.add_node()
        yield cluster
    finally:
        cluster.shut_down()


LONG = {"trial__align__epochs": 120}  # still aligns when the server is back, which takes its time


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = toy_sweep(tmp_path_factory.mktemp("undisturbed"), None, **LONG)
    run_to_end(sweep)
    return sweep


@pytest.mark.slow
@pytest.mark.parametrize("ray", ["own", "nodes"])
def test_server_and_sweep_are_killed_and_nothing_is_lost_or_doubled_nor_any_secret_told(
    ray: str, server: MlflowServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, secrets = f"killed-{ray}", SECRETS
    if ray == "nodes":
        cluster: RayNodes = request.getfixturevalue("nodes")
        secrets = {**cluster.submit_environment, **SECRETS, "RAY_AUTH_TOKEN": TOKEN}
    sweep = toy_sweep(tmp_path / "sweep", None, name=name, **LONG)
    address = server.address.replace("//", "//ann:planted-0@")
    more = {**secrets, "MLFLOW_TRACKING_URI": address}
    (sweep.parent / ".env").write_text(SECRETS["AWS_SECRET_ACCESS_KEY"])
    told = MlflowClient(server.address)

    def a_curve_is_told() -> bool:
        experiment = told.get_experiment_by_name(name)
        found = told.search_runs([experiment.experiment_id]) if experiment else []
        return any("epoch" in run.data.metrics for run in found)

    process = start(sweep, more)
    try:
        until(lambda: process.poll() is not None or a_curve_is_told(), seconds=300)
        server.kill()
        then = points_on_disk(sweep)
        until(lambda: process.poll() is not None or points_on_disk(sweep) > then + 2, seconds=300)
        assert process.poll() is None, said_by(sweep)[-3000:]
    finally:
        kill(process)  # with points that nobody has been told of
    finished_before = finished_stages(sweep)

    def back() -> bool:
        if points_on_disk(sweep) < 45:  # a stage has ended and another begun without a server
            return False
        server.start()
        return True

    said = run_with(back, sweep, more)
    assert "it is sent later" in said and "has all that it lacked" in said
    assert "MLflow lacks" not in said
    check_mlflow_holds_all(server.address, sweep, name)
    if ray == "nodes":
        check_aftermath(
            sweep,
            request.getfixturevalue("undisturbed"),
            finished_before=finished_before,
            steps=Steps.read(cluster.trace),
            most_repeated=CPU["checkpoint_every_steps"],
            name=name,
            mlflow=server.address,
        )
        until(lambda: not cluster.left_behind(), seconds=60)
    summary = (sweep.parent / "runs" / name / "summary.json").read_bytes()
    said = run_with(lambda: True, sweep, more)
    check_mlflow_holds_all(server.address, sweep, name)
    assert (sweep.parent / "runs" / name / "summary.json").read_bytes() == summary
    (sweep.parent / ".env").unlink()
    left = [path for folder in (sweep.parent, server.folder) for path in folder.rglob("*")]
    assert {"server.db", "run.log", "sweep.json"} <= {path.name for path in left}
    assert any(path.name == "report.html" and server.folder in path.parents for path in left)
    for planted in ("planted-", TOKEN):
        told_in = [p for p in left if p.is_file() and planted.encode() in p.read_bytes()]
        assert told_in == []


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # where its user may go
    postgres = Postgres(folder)
    postgres.control("start")
    yield postgres
    if postgres.runs():
        postgres.control("stop", "-m", "immediate")
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
    reason="PostgreSQL is not installed (apt-get install postgresql)",
)
def test_a_postgresql_that_crashes_and_restarts_under_a_sweep_costs_nothing(
    undisturbed: Path, postgres: Postgres, nodes: RayNodes, tmp_path: Path
) -> None:
    server = MlflowServer(tmp_path, postgres.uri)
    server.start()
    try:
        sweep = toy_sweep(tmp_path / "sweep", server.address, **LONG)
        crashes, finished_before = 0, {}

        def crash() -> bool:
            """At three moments; the last time it is away for a while."""
            nonlocal crashes
            finished_before.update(finished_stages(sweep))
            if points_on_disk(sweep) > (5, 20, 50)[crashes]:
                postgres.control("stop", "-m", "immediate")
                if crashes == 2:
                    gone = points_on_disk(sweep)
                    until(lambda: points_on_disk(sweep) > gone + 5, seconds=60)
                postgres.control("start")
                crashes += 1
            return crashes == 3

        run_with(crash, sweep, nodes.submit_environment)
        check_mlflow_holds_all(server.address, sweep)
        check_aftermath(
            sweep,
            undisturbed,
            finished_before=finished_before,
            steps=Steps.read(nodes.trace),
            mlflow=server.address,
        )
        until(lambda: not nodes.left_behind(), seconds=60)
    finally:
        server.kill()


@pytest.mark.slow
def test_a_sweep_without_its_server_says_what_is_missing_and_the_same_command_sends_it(
    server: MlflowServer, tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path / "sweep", server.address, name="alone")
    run_to_end(sweep)
    undisturbed = json.loads((sweep.parent / "runs" / "alone" / "summary.json").read_text())

    sweep = toy_sweep(tmp_path / "again", server.address, name="away")

    def gone() -> bool:
        if not points_on_disk(sweep):
            return False
        server.kill()
        return True

    said = run_with(gone, sweep)
    assert "updates wait for MLflow, which does not answer" in said
    assert "MLflow lacks" in said and "run the same command again" in said
    server.start()
    said = run_to_end(sweep)
    assert "nothing is trained" in said and "MLflow lacks" not in said
    check_mlflow_holds_all(server.address, sweep, "away")
    summary = json.loads((sweep.parent / "runs" / "away" / "summary.json").read_text())
    kept = ("number", "values", "state", "score", "scores", "intervals", "report")
    assert [{key: each[key] for key in kept} for each in summary["trials"]] == [
        {key: each[key] for key in kept} for each in undisturbed["trials"]
    ]


@pytest.mark.slow
def test_a_slow_server_holds_no_trial_up(
    server: MlflowServer, line: SlowLine, tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path / "sweep", line.address, name="slow")

    def slow() -> bool:
        line.delay = 2.0 if points_on_disk(sweep) else 0.0
        return line.delay > 0

    run_with(slow, sweep)
    check_mlflow_holds_all(server.address, sweep, "slow")
