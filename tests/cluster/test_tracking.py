"""Tracking on real SQLite databases; over HTTP and through faults in test_tracking_faults.py."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from cluster import tracking
from cluster.tracking import Tracker
from tests import ports
from tests.cluster.conftest import until
from tests.cluster.tracked import (
    FINISHED,
    STARTED,
    begin,
    end,
    open_parent,
    record,
    runs,
    started,
    tell_a_small_sweep,
)

LINK = "#/experiments/1/runs/"


@pytest.fixture
def uri(made_database: Path, tmp_path: Path) -> str:
    shutil.copy(made_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_trials_and_stages_are_children_of_the_sweep_and_trials_link_their_stages(
    uri: str, tmp_path: Path, weights: Path
) -> None:
    tracker = started(uri, tmp_path / "artifacts", seed=1, mae={"epochs": 0})
    tell_a_small_sweep(tracker, weights)

    found = runs(uri, tracker)
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
    ended = {kind: found[kind].info.end_time for kind in ("trial 0", "stage ab12cd34ab12cd34")}
    assert ended == {"trial 0": 1000 * FINISHED, "stage ab12cd34ab12cd34": 1000 * FINISHED}
    assert trial.info.start_time == 1000 * STARTED
    assert tracker.trial_run(0) == trial.info.run_id


def test_a_trial_is_linked_to_stages_that_were_told_here_without_reading_them_back(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = started(uri)
    tracker.stage_finished(record(), ["bg", "syn"])
    stage = runs(uri, tracker)["stage ab12cd34ab12cd34"]
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_runs", None)  # whoever calls it fails
        begin(tracker, 0)
        end(tracker, 0, stages={"align": "ab12cd34ab12cd34"})
        tracker.wait()
    assert stage.info.run_id in runs(uri, tracker)["trial 0"].data.tags["mlflow.note.content"]


def test_telling_the_same_sweep_again_makes_no_twins_and_doubles_no_point(
    uri: str, tmp_path: Path, weights: Path
) -> None:
    tracker = started(uri, tmp_path / "artifacts", seed=1)
    tell_a_small_sweep(tracker, weights)
    before = runs(uri, tracker)
    for _ in range(2):
        again = started(uri, tmp_path / "artifacts", seed=1)
        tell_a_small_sweep(again, weights)
        runs(uri, again)
        tell_a_small_sweep(again, weights)
        runs(uri, again)

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


@pytest.mark.parametrize("earlier", ["cd34", None])
def test_another_sweep_of_the_same_name_has_its_own_runs_and_each_is_found_again(
    uri: str, earlier: str | None
) -> None:
    # Its results were deleted and it began anew, or somebody else chose the same name; None: by a
    # version that gave no ids.
    for sweep_id, epochs in [(earlier, 3), ("ef56", 7)] * 2:
        tracker = started(uri, sweep_id=sweep_id, mae={"epochs": epochs})
        begin(tracker, 0, align={"epochs": epochs})
        end(tracker, 0, metrics={"score": epochs / 10})
        tracker.wait()
        assert tracker.unsent == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    parents = {r.info.run_id: r for r in found if r.data.tags["kind"] == "sweep"}
    trials = [r for r in found if r.data.tags["kind"] == "trial"]
    assert len(parents) == len(trials) == 2
    for trial in trials:
        epochs = parents[trial.data.tags["mlflow.parentRunId"]].data.params["mae.epochs"]
        assert trial.data.params["align.epochs"] == epochs
        assert trial.data.metrics["score"] == int(epochs) / 10
        assert not [tag for tag in trial.data.tags if tag.startswith("now.")]


def test_a_stage_that_resumes_after_a_restart_logs_only_points_past_the_last(uri: str) -> None:
    tracker = started(uri)
    tracker.stage_progress("s", "mae", [{"epoch": e, "loss": 1.0} for e in range(3)])
    runs(uri, tracker)
    again = started(uri)
    for epochs in (range(1, 4), range(2, 5)):
        again.stage_progress("s", "mae", [{"epoch": e, "loss": 1.0} for e in epochs])

    run = runs(uri, again)["stage s"]
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == [0, 1, 2, 3, 4]
    assert run.info.status == "RUNNING"


def test_a_thousand_points_told_one_by_one_go_in_a_few_requests(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = started(uri)
    calls = []
    log_batch = MlflowClient.log_batch
    monkeypatch.setattr(
        MlflowClient, "log_batch", lambda *a, **k: calls.append(1) or log_batch(*a, **k)
    )
    for epoch in range(1000):
        tracker.stage_progress("s", "mae", [{"epoch": epoch, "loss": 1.0, "lr": 0.1}])
    assert runs(uri, tracker)["stage s"].data.metrics["epoch"] == 999
    assert len(calls) < 10


def test_who_tells_does_not_wait_for_mlflow(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = started(uri)
    blocked, reached = threading.Event(), threading.Event()
    monkeypatch.setattr(
        MlflowClient, "log_batch", lambda *_, **__: (reached.set(), blocked.wait(60))
    )
    begin(tracker, 0)
    assert reached.wait(30)
    begin(tracker, 1)  # a call that waited would hang here
    end(tracker, 1)
    assert tracker.unsent == 2
    blocked.set()


@pytest.mark.parametrize("sent_between", [True, False])
def test_a_stage_heard_of_late_stays_finished_and_keeps_its_name(
    uri: str, sent_between: bool
) -> None:
    tracker = started(uri)
    tracker.stage_finished(record(), ["bg", "syn"])
    if sent_between:
        runs(uri, tracker)
    tracker.stage_progress("ab12cd34ab12cd34", "align", [{"epoch": 1, "loss": 0.5}])
    run = runs(uri, tracker)["stage ab12cd34ab12cd34"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["state"] == "complete"
    assert run.info.run_name == "align syn 0.5 + bg 0.5 · ab12cd"
    assert run.data.metrics["epoch"] == 1


def test_a_failed_trial_is_told_as_failed_with_its_reason_and_a_pruned_one_as_killed(
    uri: str,
) -> None:
    tracker = started(uri)
    begin(tracker, 0)
    begin(tracker, 1)
    end(tracker, 0, "failed", metrics={}, reason="align: loss nan at step 12")
    end(tracker, 1, "pruned", metrics={"score": float("nan")})
    tracker.stage_ended("s", "align", "failed", "loss nan at step 12")
    tracker.stage_ended("t", "align", "stopped", "no trial wants it")

    found = runs(uri, tracker)
    assert found["trial 0"].info.status == "FAILED"
    assert found["trial 0"].data.tags["reason"] == "align: loss nan at step 12"
    assert "step 12" in found["trial 0"].data.tags["mlflow.note.content"]
    assert (found["trial 1"].info.status, found["trial 1"].data.metrics) == ("KILLED", {})
    assert found["stage s"].info.status == "FAILED"
    assert found["stage t"].info.status == "KILLED"


def test_a_trial_that_has_ended_is_not_opened_again(uri: str) -> None:
    tracker = started(uri)
    for number, state in enumerate(("complete", "failed", "pruned")):
        begin(tracker, number)
        end(tracker, number, state)
        before = runs(uri, tracker)[f"trial {number}"]
        begin(tracker, number)
        after = runs(uri, tracker)[f"trial {number}"]
        assert after.info.end_time == before.info.end_time
        assert after.data.tags["state"] == state


def test_a_stage_that_failed_and_then_succeeds_keeps_no_reason(uri: str) -> None:
    tracker = started(uri)
    tracker.stage_ended("ab12cd34ab12cd34", "align", "failed", "out of memory")
    runs(uri, tracker)
    tracker.stage_finished(record(), ["bg", "syn"])
    run = runs(uri, tracker)["stage ab12cd34ab12cd34"]
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
    tracker.stage_finished(record("f", stage=features, mixture={}), ["low"])
    tracker.stage_finished(record("p", stage=probe, mixture={}), ["low"])
    found = runs(uri, tracker)
    assert found["stage f"].info.run_name == "features low train · f"
    assert found["stage p"].info.run_name == "probe low selection · p"
    assert LINK + found["stage f"].info.run_id in found["stage p"].data.tags["mlflow.note.content"]


def test_long_values_are_cut_visibly_and_odd_keys_are_spelt_as_mlflow_takes_them(uri: str) -> None:
    tracker = started(uri, long="x" * 7000, odd={"a[0]=b": [1, 2], "none": None, "empty": {}})
    end(tracker, 0, "failed", metrics={"accuracy": {"a+b": 0.5}}, reason="y" * 9000)
    found = runs(uri, tracker)
    params = found["sweep demo"].data.params
    assert len(params["long"]) == 6000
    assert params["long"].endswith("x…")
    assert params["odd.a_0__b"] == "[1, 2]"
    assert (params["odd.none"], params["odd.empty"]) == ("null", "{}")
    assert found["trial 0"].data.metrics == {"accuracy/a_b": 0.5}
    assert found["trial 0"].data.tags["reason"].endswith("y…")


def test_more_parameters_than_one_request_takes_are_all_there(uri: str) -> None:
    tracker = started(uri, many={f"p{i}": i for i in range(250)})
    assert len(runs(uri, tracker)["sweep demo"].data.params) == 250


def test_an_extended_sweep_keeps_the_first_value_and_tells_the_present_one(uri: str) -> None:
    runs(uri, started(uri, trials=4))
    run = runs(uri, started(uri, trials=8))["sweep demo"]
    assert (run.data.params["trials"], run.data.tags["now.trials"]) == ("4", "8")


def test_artifacts_are_sent_once_and_again_when_their_content_changes(
    uri: str, tmp_path: Path, weights: Path
) -> None:
    report = tmp_path / "report.md"
    report.write_text("first")
    tracker = started(uri, tmp_path / "artifacts")
    tracker.finish("", {}, [weights, report])
    runs(uri, tracker)
    (sent,) = (tmp_path / "artifacts").rglob("recommended.safetensors")
    os.utime(sent, (1, 1))

    report.write_text("second")
    again = started(uri, tmp_path / "artifacts")
    again.finish("", {}, [weights, report])
    parent = runs(uri, again)["sweep demo"]
    run_id = parent.info.run_id
    assert f"({LINK}{run_id}/artifacts/report.md)" in parent.data.tags["mlflow.note.content"]
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
        started(f"http://ann:s3cr3t@127.0.0.1:{free_port}")
    assert time.monotonic() - began < 20
    assert f"http://127.0.0.1:{free_port}" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_a_server_that_never_answers_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.REACH_SECONDS < 20
    monkeypatch.setattr(tracking, "REACH_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ValueError, match="no answer within 1 s"):
            started(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_sweep_that_continues_goes_on_without_its_server(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(f"http://ann:s3cr3t@127.0.0.1:{free_port}", "demo", None, None)
    open_parent(tracker, must_answer=False)
    begin(tracker, 0)
    end(tracker, 0)
    assert tracker.unsent == 2 and tracker.away
    assert "it is sent later" in caplog.text and "s3cr3t" not in caplog.text


def test_a_token_that_cannot_be_sent_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-secret\n")
    with pytest.raises(ValueError, match="cannot be used") as raised:
        started(f"http://127.0.0.1:{free_port}")
    assert "t0ken-secret" not in str(raised.value)


def test_a_database_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/mlflow\.db cannot be used"):
        started(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(uri: str) -> None:
    runs(uri, started(uri))
    experiment = MlflowClient(uri).get_experiment_by_name("demo")
    assert experiment is not None
    MlflowClient(uri).delete_experiment(experiment.experiment_id)
    with pytest.raises(ValueError, match="restore"):
        started(uri)


def test_a_run_made_twice_by_a_request_taken_for_lost_is_one_again(uri: str) -> None:
    tracker = started(uri)
    begin(tracker, 0)
    first = runs(uri, tracker)
    parent = first["sweep demo"]
    tags = {"sweep": "demo", "sweep_id": "ab12", "kind": "trial", "key": "0"}
    client = MlflowClient(uri)
    client.create_run(parent.info.experiment_id, start_time=1000, tags=tags)
    again = started(uri)
    end(again, 0)
    found = runs(uri, again)
    assert found["trial 0"].info.run_id == first["trial 0"].info.run_id


def test_what_mlflow_cannot_take_holds_nothing_else_up(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = started(uri)
    create_run = MlflowClient.create_run

    def create(*arguments: Any, tags: dict[str, str], **others: Any) -> Run:
        if tags["key"] == "bad":
            raise MlflowException("out of order")  # a 500
        return create_run(*arguments, tags=tags, **others)

    monkeypatch.setattr(MlflowClient, "create_run", create)
    tracker.stage_progress("bad", "mae", [])
    begin(tracker, 0)
    end(tracker, 0)
    until(lambda: tracker.unsent == 1)
    monkeypatch.undo()
    assert runs(uri, tracker).keys() == {"sweep demo", "trial 0", "stage bad"}


@pytest.fixture
def free_port() -> int:
    return ports.free_port()
