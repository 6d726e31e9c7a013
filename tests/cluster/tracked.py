"""A small sweep as it is told to MLflow, and what MLflow then holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from cluster.tracking import Tracker

STARTED, FINISHED = 1_700_000_000.0, 1_700_000_060.0


def started(
    uri: str,
    artifacts: Path | None = None,
    sweep: str = "demo",
    sweep_id: str | None = "ab12",
    **parameters: Any,
) -> Tracker:
    tracker = Tracker(uri, sweep, sweep_id, str(artifacts) if artifacts else None)
    open_parent(tracker, parameters)
    return tracker


def open_parent(
    tracker: Tracker, parameters: dict[str, Any] | None = None, must_answer: bool = True
) -> None:
    tracker.start(
        parameters or {},
        "The plan",
        {},
        datasets=["low"],
        varied=["align.epochs"],
        must_answer=must_answer,
    )


def begin(tracker: Tracker, number: int, name: str = "a", **parameters: Any) -> None:
    tracker.trial_started(number, name, parameters, {}, STARTED)


def end(tracker: Tracker, number: int, state: Any = "complete", **of_trial: Any) -> None:
    told = {"metrics": {"score": 0.5}, "stages": {}, "reason": None, **of_trial}
    tracker.trial_finished(number, state, at=FINISHED, **told)


def runs(uri: str, *told: Tracker, sweep: str = "demo") -> dict[str, Run]:
    """All runs by `kind key`, once the trackers have sent all; each name stands for one run."""
    for tracker in told:
        tracker.wait()
        assert tracker.unsent == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(sweep)
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
        "finished_at": FINISHED,
        **changes,
    }


def tell_a_small_sweep(tracker: Tracker, weights: Path) -> None:
    points = [{"epoch": epoch, "loss": 1 / epoch, "time": STARTED + epoch} for epoch in (1, 2, 3)]
    begin(tracker, 0, "synthetic 0.5", align={"epochs": 3})
    tracker.stage_progress("ab12cd34ab12cd34", "align", points[:2])
    tracker.stage_progress("ab12cd34ab12cd34", "align", points)
    tracker.stage_finished(record(), ["bg", "syn"])
    end(
        tracker,
        0,
        metrics={"score": 0.6, "accuracy": {"low": 0.6}},
        stages={"align": "ab12cd34ab12cd34"},
    )
    tracker.finish("The answer", {"score": 0.6}, [weights])
