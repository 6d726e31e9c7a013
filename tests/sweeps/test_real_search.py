"""The real command: weak trials stopped, several objectives, a wider space, a warm start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sweeps.commands import run_to_end, write_world_sweep
from trainables.stage_store import StageStore

pytestmark = pytest.mark.slow
SHARES = {"type": "simplex", "over": ["synthetic", "scenes"], "step": 0.25}
STOPPING = {
    "by": "score",
    "rungs": [0.25, 0.5],
    "reduction_factor": 3,
    "train_clips": 12,
    "selection_clips": 12,
}


def summary_of(sweep: Path, name: str) -> dict[str, Any]:
    return json.loads((sweep.parent / "runs" / name / "summary.json").read_text())


def edit(sweep: Path, **changes: Any) -> None:
    settings = yaml.safe_load(sweep.read_text())
    settings["name"] = changes.pop("name", settings["name"])
    settings["search"] |= changes
    sweep.write_text(yaml.safe_dump(settings, sort_keys=False))


def test_weak_trials_stop_and_the_sweep_goes_on_wider_and_warm_starts_another(
    tmp_path: Path,
) -> None:
    sweep = write_world_sweep(
        tmp_path,
        space={"parameters": {"align.mixture.shares": SHARES}},
        trial__mae__epochs=0,
        trial__align__epochs=40,
        search__baselines=False,
        search__trials=4,
        search__objectives=["score", "gpu_hours", {"name": "people", "mean_of": ["low_bias"]}],
        search__early_stopping=STOPPING,
    )
    run_to_end(sweep)
    first = summary_of(sweep, "toy")
    trials = {trial["number"]: trial for trial in first["trials"]}
    stopped = [number for number, trial in trials.items() if trial["state"] == "pruned"]
    assert stopped and trials[0]["state"] == "complete"
    records = sweep.parent / "runs" / "toy" / "trials"
    for number in trials:
        record = json.loads((records / f"{number:04d}.json").read_text())
        assert record["rungs"][0]["rung"] == 0.25
        assert set(record["rungs"][0]["accuracies"]) == {"low_bias", "high_bias"}
    for number in stopped:
        assert trials[number]["score"] is None
        assert "of the alignment was done" in trials[number]["reason"]
    assert set(first["pareto"]["points"]) == {str(n) for n in trials if n not in stopped}
    report = (sweep.parent / "runs" / "toy" / "report.md").read_text()
    assert "## Pareto front" in report and "## Stopped early" in report

    # A wider space, another sampler, more trials: what there is stays as it is.
    wider = {"align.mixture.shares": SHARES, "align.epochs": {"type": "choice", "values": [20, 40]}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"parameters": wider}, sort_keys=False))
    edit(sweep, sampler="tpe", seed=3, trials=6)
    run_to_end(sweep)
    longer = {trial["number"]: trial for trial in summary_of(sweep, "toy")["trials"]}
    assert sorted(longer) == list(range(6))
    keys = ("values", "config", "state", "reason", "score", "scores", "device_seconds")
    for number, trial in trials.items():
        assert [longer[number][key] for key in keys] == [trial[key] for key in keys]
    assert all("align.epochs" in longer[number]["values"] for number in (4, 5))

    # Another sweep begins with both, by name and from MLflow.
    best = summary_of(sweep, "toy")["recommended"]
    for name, source in (("by_name", "toy"), ("by_mlflow", {"experiment": "toy", "uri": None})):
        edit(sweep, name=name, trials=1, warm_start=[source])
        store = StageStore(sweep.parent / "runs" / "stages")
        before = {record.identity for record in store.records()}
        printed = run_to_end(sweep)
        assert (
            "Warm start from 'toy" in printed and "6 of its 6 trials lie in this space" in printed
        )
        (again,) = summary_of(sweep, name)["trials"]
        assert (again["origin"], again["score"]) == ("earlier", best["score"])
        assert again["config"] == best["config"]
        after = {record.identity for record in store.records()}
        new = {store.record(identity).stage["kind"] for identity in after - before}
        assert new <= {"features", "probe"}, "for the report split only"

    # A sweep that is scored otherwise may not begin with it.
    settings = yaml.safe_load(sweep.read_text())
    settings["trial"]["score"]["combine"] = "min"
    settings["name"] = "worst"
    sweep.write_text(yaml.safe_dump(settings, sort_keys=False))
    with pytest.raises(AssertionError, match="trial.score.combine: mean there, min here"):
        run_to_end(sweep)
