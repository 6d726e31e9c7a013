"""The real command: weak trials stopped, several objectives, a wider space, a warm start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sweeps.commands import run_to_end, write_world_sweep
from tests.sweeps.test_command import run

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


def stages_of(sweep: Path) -> dict[str, str]:
    """Identity -> kind of all that are finished."""
    records = (sweep.parent / "runs" / "stages").glob("*/record.json")
    return {path.parent.name: json.loads(path.read_text())["stage"]["kind"] for path in records}


def edit(sweep: Path, **changes: Any) -> None:
    settings = yaml.safe_load(sweep.read_text())
    settings["name"] = changes.pop("name", settings["name"])
    settings["search"] |= changes
    sweep.write_text(yaml.safe_dump(settings, sort_keys=False))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A sweep of four trials, and its summary."""
    sweep = write_world_sweep(
        tmp_path_factory.mktemp("first"),
        space={"parameters": {"align.mixture.shares": SHARES}},
        trial__mae__epochs=0,
        trial__align__epochs=40,
        search__baselines=False,
        search__trials=4,
        search__objectives=["score", "gpu_hours", {"name": "people", "mean_of": ["low_bias"]}],
        search__early_stopping=STOPPING,
    )
    run_to_end(sweep)
    return sweep, summary_of(sweep, "toy")


@pytest.fixture(scope="module")
def longer(first: tuple[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The same sweep in a wider space, with another sampler and more trials."""
    sweep, _ = first
    wider = {"align.mixture.shares": SHARES, "align.epochs": {"type": "choice", "values": [20, 40]}}
    space = yaml.safe_dump({"parameters": wider}, sort_keys=False)
    (sweep.parent / "space.yaml").write_text(space)
    edit(sweep, sampler="tpe", seed=3, trials=6)
    run_to_end(sweep)
    return sweep, summary_of(sweep, "toy")


def test_weak_trials_stop_and_the_front_holds_complete_ones(
    first: tuple[Path, dict[str, Any]],
) -> None:
    sweep, summary = first
    trials = {trial["number"]: trial for trial in summary["trials"]}
    stopped = [number for number, trial in trials.items() if trial["state"] == "pruned"]
    assert stopped and trials[0]["state"] == "complete"
    folder = sweep.parent / "runs" / "toy"
    for number in trials:
        record = json.loads((folder / "trials" / f"{number:04d}.json").read_text())
        assert record["rungs"][0]["rung"] == 0.25
        assert set(record["rungs"][0]["accuracies"]) == {"low_bias", "high_bias"}
    for number in stopped:
        assert trials[number]["score"] is None
        assert "of the alignment was done" in trials[number]["reason"]
    assert set(summary["pareto"]["points"]) == {str(n) for n in trials if n not in stopped}
    report = (folder / "report.md").read_text()
    assert "## Pareto front" in report and "## Stopped early" in report


def test_a_wider_space_and_another_sampler_leave_what_there_is(
    first: tuple[Path, dict[str, Any]], longer: tuple[Path, dict[str, Any]]
) -> None:
    before = {trial["number"]: trial for trial in first[1]["trials"]}
    after = {trial["number"]: trial for trial in longer[1]["trials"]}
    assert sorted(after) == list(range(6))
    keys = ("values", "config", "state", "reason", "score", "scores", "device_seconds")
    for number, trial in before.items():
        assert [after[number][key] for key in keys] == [trial[key] for key in keys]
    assert all("align.epochs" in after[number]["values"] for number in (4, 5))


@pytest.mark.parametrize(
    ("name", "source"), [("by_name", "toy"), ("by_mlflow", {"experiment": "toy", "uri": None})]
)
def test_another_sweep_begins_with_it_and_its_best_trial_costs_nothing(
    longer: tuple[Path, dict[str, Any]], name: str, source: Any
) -> None:
    sweep, summary = longer
    edit(sweep, name=name, trials=1, warm_start=[source])
    before = stages_of(sweep)
    printed = run_to_end(sweep)
    assert "Warm start from 'toy" in printed
    assert "6 of its 6 trials lie in this space" in printed
    (again,) = summary_of(sweep, name)["trials"]
    assert (again["origin"], again["score"]) == ("earlier", summary["recommended"]["score"])
    assert again["config"] == summary["recommended"]["config"]
    new = {kind for identity, kind in stages_of(sweep).items() if identity not in before}
    assert new <= {"features", "probe"}, "for the report split only"


def test_a_sweep_that_is_scored_otherwise_may_not_begin_with_it(
    longer: tuple[Path, dict[str, Any]],
) -> None:
    sweep, _ = longer
    edit(sweep, name="worst", trials=1, warm_start=["toy"])
    done = run(sweep, "--set", "trial.score.combine=min")
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert "trial.score.combine: mean there, min here" in done.stdout
