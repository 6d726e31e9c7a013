"""Tracking on real SQLite databases, and once over HTTP."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from cluster import mlflow_runs
from cluster.tracking import Tracker

LINK = "#/experiments/1/runs/"


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(made_database: Path, tmp_path: Path) -> str:
    shutil.copy(made_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def started(uri: str, artifacts: Path | None = None, **parameters: Any) -> Tracker:
    tracker = Tracker(uri, "demo", str(artifacts) if artifacts else None)
    tracker.start(parameters, "The plan", {}, datasets=["low"], varied=["align.epochs"])
    return tracker


def runs(uri: str) -> dict[str, Run]:
    """All runs by `kind key`; each name stands for one run."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    named = {f"{run.data.tags['kind']} {run.data.tags['key']}": run for run in found}
    assert len(named) == len(found), "twins"
    return named


def record(identity: str = "ab12cd34ab12cd34", **changes: Any) -> dict[str, Any]:
    return {
        "identity": identity,
        "stage": {
            "kind": "align",
            "code_version": 1,
            "settings": {"seed": 0, "align": {"mixture": {"shares": {"syn": "0.5", "bg": "0.5"}}}},
            "data": {"syn": "h1", "bg": "h2"},
            "inputs": {},
        },
        "metrics": {"loss": 0.5, "left_out": ["a.mp4"]},
        "cost": {"device_seconds": 12.0, "clips": 100},
        "files": {},
        "mixture": {
            "requested": {"syn": "0.5", "bg": "0.5"},
            "realised": {"syn": 49, "bg": 51},
            "repetition": {"syn": 1.5, "bg": 2.0},
            "replaced": {"syn": {"bad.mp4": 2}},
        },
        "trained_on": {"syn": {"content_hash": "h1", "humans": "virtual"}},
        "attempts": 1,
        "finished_at": 1_700_000_000.0,
        **changes,
    }


def tell_a_small_sweep(tracker: Tracker, weights: Path) -> None:
    points = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    tracker.trial_started(0, "synthetic 0.5", {"align": {"epochs": 3}}, {})
    tracker.stage_progress("ab12cd34ab12cd34", "align", points[:2])
    tracker.stage_progress("ab12cd34ab12cd34", "align", points)
    tracker.stage_finished(record())
    tracker.trial_finished(
        0,
        "complete",
        {"score": 0.6, "accuracy": {"low": 0.6}},
        {"align": "ab12cd34ab12cd34"},
        None,
    )
    tracker.finish("The answer", {"score": 0.6}, [weights])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "recommended.safetensors"
    path.write_bytes(b"weights")
    return path


def test_trials_and_stages_are_children_of_the_sweep_and_trials_link_their_stages(
    uri: str, tmp_path: Path, weights: Path
) -> None:
    tracker = started(uri, tmp_path / "artifacts", seed=1, mae={"epochs": 0})
    tell_a_small_sweep(tracker, weights)

    found = runs(uri)
    sweep, trial, stage = (
        found[key] for key in ("sweep demo", "trial 0", "stage ab12cd34ab12cd34")
    )
    assert trial.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert stage.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert sweep.data.params == {"seed": "1", "mae.epochs": "0"}
    assert "The answer" in sweep.data.tags["mlflow.note.content"]

    assert trial.info.run_name == "trial 0000 · synthetic 0.5"
    assert trial.data.metrics == {"score": 0.6, "accuracy/low": 0.6}
    assert trial.data.tags["stage.align"] == "ab12cd34ab12cd34"
    assert LINK + stage.info.run_id in trial.data.tags["mlflow.note.content"]

    assert stage.info.run_name == "align syn 0.5 + bg 0.5 · ab12cd"
    assert stage.data.params["requested.syn"] == "0.5"
    assert stage.data.metrics["realised_share/syn"] == 0.49
    assert stage.data.metrics["cost/device_seconds"] == 12
    assert stage.data.tags["data.syn"] == "h1"
    assert stage.data.tags["trained_on.syn"] == "h1 (humans: virtual)"
    assert "bad.mp4" in stage.data.tags["replaced.syn"]
    assert tracker.unsent == 0


def test_telling_the_same_sweep_again_makes_no_twins_and_doubles_no_point(
    uri: str, tmp_path: Path, weights: Path
) -> None:
    tell_a_small_sweep(started(uri, tmp_path / "artifacts", seed=1), weights)
    before = runs(uri)
    for _ in range(2):
        again = started(uri, tmp_path / "artifacts", seed=1)
        tell_a_small_sweep(again, weights)
        assert again.unsent == 0

    found = runs(uri)
    assert {key: run.info.run_id for key, run in found.items()} == {
        key: run.info.run_id for key, run in before.items()
    }
    history = MlflowClient(uri).get_metric_history
    stage = found["stage ab12cd34ab12cd34"].info.run_id
    assert [(m.step, m.value) for m in history(stage, "loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
        (3, 0.5),
    ]
    assert len(history(found["trial 0"].info.run_id, "score")) == 1


def test_a_stage_that_resumes_after_a_restart_logs_only_points_past_the_last(uri: str) -> None:
    started(uri).stage_progress("s", "mae", [{"epoch": e, "loss": 1.0} for e in range(3)])
    again = started(uri)
    again.stage_progress("s", "mae", [{"epoch": e, "loss": 1.0} for e in range(1, 5)])

    run = runs(uri)["stage s"]
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == [0, 1, 2, 3, 4]
    assert run.info.status == "RUNNING"


def test_a_thousand_points_are_one_call(uri: str) -> None:
    tracker = started(uri)
    began = time.perf_counter()
    tracker.stage_progress("s", "mae", [{"epoch": e, "loss": 1.0, "lr": 0.1} for e in range(1000)])
    assert time.perf_counter() - began < 5
    assert runs(uri)["stage s"].data.metrics["epoch"] == 999


def test_a_stage_heard_of_late_stays_finished_and_keeps_its_name(uri: str) -> None:
    tracker = started(uri)
    tracker.stage_finished(record())
    tracker.stage_progress("ab12cd34ab12cd34", "align", [{"epoch": 1, "loss": 0.5}])
    run = runs(uri)["stage ab12cd34ab12cd34"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["state"] == "complete"
    assert run.info.run_name == "align syn 0.5 + bg 0.5 · ab12cd"
    assert run.data.metrics["epoch"] == 1


def test_a_failed_trial_is_told_as_failed_with_its_reason_and_a_pruned_one_as_killed(
    uri: str,
) -> None:
    tracker = started(uri)
    tracker.trial_started(0, "a", {}, {})
    tracker.trial_started(1, "b", {}, {})
    tracker.trial_finished(0, "failed", {}, {}, "align: loss nan at step 12")
    tracker.trial_finished(1, "pruned", {"score": float("nan")}, {}, None)
    tracker.stage_failed("s", "align", "loss nan at step 12")

    found = runs(uri)
    assert found["trial 0"].info.status == "FAILED"
    assert found["trial 0"].data.tags["reason"] == "align: loss nan at step 12"
    assert "step 12" in found["trial 0"].data.tags["mlflow.note.content"]
    assert (found["trial 1"].info.status, found["trial 1"].data.metrics) == ("KILLED", {})
    assert found["stage s"].info.status == "FAILED"


def test_a_trial_that_has_ended_is_not_opened_again(uri: str) -> None:
    tracker = started(uri)
    for number, state in enumerate(("complete", "failed", "pruned")):
        tracker.trial_started(number, "a", {}, {})
        tracker.trial_finished(number, state, {"score": 0.5}, {}, None)
        before = runs(uri)[f"trial {number}"]
        tracker.trial_started(number, "a", {}, {})
        tracker.trial_finished(number, state, {"score": 0.5}, {}, None)
        after = runs(uri)[f"trial {number}"]
        assert after.info.end_time == before.info.end_time
        assert after.data.tags["state"] == state


def test_a_stage_that_failed_and_then_succeeds_keeps_no_reason(uri: str) -> None:
    tracker = started(uri)
    tracker.stage_failed("ab12cd34ab12cd34", "align", "out of memory")
    tracker.stage_finished(record())
    run = runs(uri)["stage ab12cd34ab12cd34"]
    assert (run.info.status, run.data.tags["reason"]) == ("FINISHED", "")
    assert "out of memory" not in run.data.tags["mlflow.note.content"]


def test_a_probe_is_named_after_the_datasets_of_its_inputs(uri: str) -> None:
    tracker = started(uri)
    features = {
        "kind": "features",
        "code_version": 1,
        "settings": {"split": "train"},
        "data": {"low": "h3"},
        "inputs": {},
    }
    probe = {
        "kind": "probe",
        "code_version": 1,
        "settings": {"split": "selection"},
        "data": {},
        "inputs": {"train": "f"},
    }
    tracker.stage_finished(record("f", stage=features, mixture={}))
    tracker.stage_finished(record("p", stage=probe, mixture={}))
    found = runs(uri)
    assert found["stage f"].info.run_name == "features low train · f"
    assert found["stage p"].info.run_name == "probe low selection · p"
    assert LINK + found["stage f"].info.run_id in found["stage p"].data.tags["mlflow.note.content"]


def test_long_values_are_cut_visibly_and_odd_keys_are_spelt_as_mlflow_takes_them(uri: str) -> None:
    tracker = started(uri, long="x" * 7000, odd={"a[0]=b": [1, 2], "none": None, "empty": {}})
    tracker.trial_finished(0, "failed", {"accuracy": {"a+b": 0.5}}, {}, "y" * 9000)
    found = runs(uri)
    params = found["sweep demo"].data.params
    assert len(params["long"]) == 6000
    assert params["long"].endswith("x…")
    assert params["odd.a_0__b"] == "[1, 2]"
    assert (params["odd.none"], params["odd.empty"]) == ("null", "{}")
    assert found["trial 0"].data.metrics == {"accuracy/a_b": 0.5}
    assert found["trial 0"].data.tags["reason"].endswith("y…")
    assert tracker.unsent == 0


def test_more_parameters_than_one_request_takes_are_all_there(uri: str) -> None:
    started(uri, many={f"p{i}": i for i in range(250)})
    assert len(runs(uri)["sweep demo"].data.params) == 250


def test_an_extended_sweep_keeps_the_first_value_and_tells_the_present_one(uri: str) -> None:
    started(uri, trials=4)
    started(uri, trials=8)
    run = runs(uri)["sweep demo"]
    assert (run.data.params["trials"], run.data.tags["now.trials"]) == ("4", "8")


def test_artifacts_are_sent_once_and_again_when_their_content_changes(
    uri: str, tmp_path: Path, weights: Path
) -> None:
    report = tmp_path / "report.md"
    report.write_text("first")
    started(uri, tmp_path / "artifacts").finish("", {}, [weights, report])
    (sent,) = (tmp_path / "artifacts").rglob("recommended.safetensors")
    os.utime(sent, (1, 1))

    report.write_text("second")
    started(uri, tmp_path / "artifacts").finish("", {}, [weights, report])
    run_id = runs(uri)["sweep demo"].info.run_id
    assert {file.path for file in MlflowClient(uri).list_artifacts(run_id)} == {
        "recommended.safetensors",
        "report.md",
    }
    assert sent.stat().st_mtime == 1, "same content, sent again"
    assert (sent.parent / "report.md").read_text() == "second"


def test_the_leaderboard_shows_the_trials_by_score(uri: str) -> None:
    tracker = started(uri)
    assert tracker.page == "#/experiments/1/runs?viewStateShareKey=leaderboard"
    experiment = MlflowClient(uri).get_experiment_by_name("demo")
    assert experiment is not None
    view = experiment.tags["mlflow.sharedViewState.leaderboard"]
    for part in ("metrics.`accuracy/low`", "params.`align.epochs`", '"orderByAsc": false'):
        assert part in view


def test_a_server_that_is_away_is_an_error_within_20_seconds_without_the_password(
    free_port: int,
) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="cannot be used") as raised:
        Tracker(f"http://ann:s3cr3t@127.0.0.1:{free_port}", "demo", None)
    assert time.monotonic() - began < 20
    assert f"http://127.0.0.1:{free_port}" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_a_server_that_never_answers_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlflow_runs.REACH_SECONDS < 20
    monkeypatch.setattr(mlflow_runs, "REACH_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(ValueError, match="no answer within 1 s"):
            Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", "demo", None)
        assert time.monotonic() - began < 5


def test_a_token_that_cannot_be_sent_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-secret\n")
    with pytest.raises(ValueError, match="cannot be used") as raised:
        Tracker(f"http://127.0.0.1:{free_port}", "demo", None)
    assert "t0ken-secret" not in str(raised.value)


def test_a_database_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/mlflow\.db cannot be used"):
        Tracker(f"sqlite:///{tmp_path}/file/mlflow.db", "demo", None)


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(uri: str) -> None:
    tracker = started(uri)
    MlflowClient(uri).delete_experiment(tracker._runs.experiment_id)
    with pytest.raises(ValueError, match="restore"):
        started(uri)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def server(made_database: Path, tmp_path: Path, free_port: int) -> Iterator[tuple[str, int]]:
    """The address of a running server, and its process group."""
    shutil.copy(made_database, tmp_path / "server.db")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(free_port)),
            *("--backend-store-uri", f"sqlite:///{tmp_path}/server.db"),
            *("--artifacts-destination", str(tmp_path / "served")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    address = f"http://127.0.0.1:{free_port}"
    try:
        for _ in range(240):
            assert process.poll() is None, "mlflow server ended"
            with suppress(OSError):
                urlopen(f"{address}/health", timeout=1).close()
                break
            time.sleep(0.5)
        yield address, process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_over_http_a_server_that_hangs_costs_one_warning_and_nothing_is_lost_or_doubled(
    server: tuple[str, int],
    weights: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address, group = server
    tracker = started(address.replace("//", "//ann:s3cr3t@"))
    tracker.trial_started(0, "synthetic 0.5", {}, {})

    os.killpg(group, signal.SIGSTOP)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with caplog.at_level(logging.WARNING):
        # The server will create this run when it goes on, though it could not say so.
        tracker.stage_progress("ab12cd34ab12cd34", "align", [{"epoch": 1, "loss": 1.0}])
        tell_a_small_sweep(tracker, weights)
        tracker.sync()
    assert [record.name for record in caplog.records].count("cluster.tracking") == 1
    assert tracker.unsent == 7

    os.killpg(group, signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    time.sleep(1)
    assert tracker.sync() == 0
    assert tracker.unsent == 0
    found = runs(address)
    assert sorted(found) == ["stage ab12cd34ab12cd34", "sweep demo", "trial 0"]
    client = MlflowClient(address)
    stage = found["stage ab12cd34ab12cd34"].info.run_id
    assert [metric.step for metric in client.get_metric_history(stage, "loss")] == [1, 2, 3, 3]
    (artifact,) = client.list_artifacts(found["sweep demo"].info.run_id)
    assert artifact.path == "recommended.safetensors"
    out, err = capfd.readouterr()
    assert "s3cr3t" not in out + err + caplog.text
