"""What must be true of a sweep after any fault, written once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXACT = ("number", "values", "state")  # of a trial, whatever trained it


def storage_of(sweep: Path) -> Path:
    return sweep.parent / "runs"


def summary_of(sweep: Path, name: str = "toy") -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((storage_of(sweep) / name / "summary.json").read_text())
    return summary


def answers(sweep: Path, name: str = "toy") -> dict[str, Any]:
    return answers_of(summary_of(sweep, name))


def answers_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What does not depend on how often the sweep was disturbed."""
    keys = ("number", "values", "state", "score", "scores", "intervals", "report")
    trials = sorted(summary["trials"], key=lambda trial: trial["number"])
    return {
        "trials": [{key: trial[key] for key in keys} for trial in trials],
        "recommended": (summary["recommended"]["trial"], summary["recommended"]["weights"]),
    }


def finished_stages(sweep: Path) -> dict[str, int]:
    """Identity -> when its record was written, in ns."""
    records = (storage_of(sweep) / "stages").glob("*/record.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in records}


def mlflow_runs(sweep: Path) -> Counter[tuple[str, str]]:
    """Of a sweep that has its MLflow beside its results: see `runs_in`."""
    return runs_in(f"sqlite:///{storage_of(sweep) / 'mlflow.db'}", "toy")


def runs_in(uri: str, name: str) -> Counter[tuple[str, str]]:
    """(kind, key) -> how many runs below the sweep's one there are of it: all finished, none an
    orphan."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run.data.tags["kind"] == "sweep"]
    below = [run for run in runs if run is not parent]
    above = {run.data.tags.get("mlflow.parentRunId") for run in below}
    assert above == {parent.info.run_id}, "an orphan"
    return Counter((run.data.tags["kind"], run.data.tags["key"]) for run in below)


def unfinished_records(sweep: Path, name: str = "toy") -> list[str]:
    """Of these the study, which is rebuilt from the records, would have a RUNNING trial."""
    folder = storage_of(sweep) / name / "trials"
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    ended = ("complete", "failed", "pruned")
    return [f"trial {r['number']}: {r['state']}" for r in records if r["state"] not in ended]


@dataclass(frozen=True)
class Steps:
    """The steps that were really taken, as the nodes' trace has them: see trace/sitecustomize."""

    taken: Mapping[str, list[tuple[int, int, float]]]  # identity -> step, process, when

    @staticmethod
    def read(trace: Path, since: float = 0.0) -> Steps:
        taken: dict[str, list[tuple[int, int, float]]] = {}
        for line in trace.read_text().splitlines() if trace.exists() else []:
            identity, step, pid, when = line.split()
            if float(when) >= since:
                taken.setdefault(identity, []).append((int(step), int(pid), float(when)))
        return Steps(taken)

    def repeated(self) -> dict[str, int]:
        """Identity -> steps that were taken more than once, each time counted."""
        steps = {name: [step for step, *_ in taken] for name, taken in self.taken.items()}
        return {name: len(each) - len(set(each)) for name, each in steps.items()}

    def last(self) -> float:
        """When the last step was taken."""
        return max((taken[-1][2] for taken in self.taken.values()), default=0.0)

    def by_others(self, identity: str, process: int) -> list[float]:
        """When another process than that took its steps after the last one of that."""
        taken = self.taken[identity]
        last = max(place for place, (_, pid, _) in enumerate(taken) if pid == process)
        return [when for *_, when in taken[last + 1 :]]


def check_aftermath(
    sweep: Path,
    undisturbed: Path,
    *,
    finished_before: Mapping[str, int],
    steps: Steps | None = None,
    most_repeated: int = 0,
    score_tolerance: float | None = None,
    name: str = "toy",
    mlflow: str | None = None,
) -> None:
    """After the sweep has ended, as one has that was never disturbed.

    `finished_before`: `finished_stages` as it stood at each fault. `most_repeated`: steps that
    may have been taken twice, in all; one checkpoint interval for each fault. `score_tolerance`:
    for another count of workers, which sum gradients in another order; None: to the bit. `name`
    is the sweep's, `mlflow` the URI of its MLflow; None: it is beside its results.
    """
    found, expected = answers(sweep, name), answers(undisturbed)
    if score_tolerance is None:
        assert found == expected
    else:
        for one, other in zip(found["trials"], expected["trials"], strict=True):
            assert [one[k] for k in EXACT] == [other[k] for k in EXACT]
            assert one["scores"].keys() == other["scores"].keys()
            for dataset, score in one["scores"].items():
                assert abs(score - other["scores"][dataset]) <= score_tolerance, (one, other)
    assert unfinished_records(sweep, name) == []
    finished = finished_stages(sweep)
    assert finished.items() >= finished_before.items(), "a finished stage was trained again"
    assert finished.keys() == finished_stages(undisturbed).keys()
    runs = mlflow_runs(sweep) if mlflow is None else runs_in(mlflow, name)
    assert set(runs.values()) == {1}, "MLflow has a run twice"
    assert runs.keys() == mlflow_runs(undisturbed).keys()
    if steps is not None:
        assert sum(steps.repeated().values()) <= most_repeated
