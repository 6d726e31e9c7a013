"""The commands that make data, one after the other, and the demo's sweep on what they made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from sweeps.prepare import Prepared, prepare
from sweeps.sweep import Sweep
from tests.sweeps.commands import ROOT, WORLD, run_to_end, write_world_sweep
from tests.trainables.data.mocap import write_mocap
from trainables.data.human_removal.__main__ import main as human_removal
from trainables.data.virtual_humans.__main__ import main as virtual_humans

DEMO = ROOT / "sweeps" / "demo.yaml"
SMALL = ("--seconds", "0.4", "--fps", "10", "--size", "64x48", "--cast", "4", "--workers", "1")


def make(folder: Path, clips: int = 6) -> Path:
    """docs/data.md's commands, small, on motions of two classes. Returns the catalog."""
    mocap, out = write_mocap(folder / "mocap"), folder / "made"
    common = [str(mocap), str(out), "--clips", str(clips), "--heldout", "2", *SMALL]
    assert virtual_humans([*common, "--name", "synthetic", "--people", "1"]) == 0
    filmed = ["--name", "filmed", "--seed", "1", "--places", "2", "--masks"]
    assert virtual_humans([*common, *filmed]) == 0
    masks = str(out / "filmed.masks" / "{path}.mp4")
    removal = [str(out / "filmed"), str(out), "--clips", str(out / "filmed.csv"), "--masks", masks]
    removal += ["--name", "scenes", "--dilation", "2", "--soft-edge", "1", "--workers", "1"]
    assert human_removal(removal) == 0
    return out / "catalog.yaml"


def demo_on(catalog: Path, folder: Path) -> Prepared:
    sweep = Sweep(DEMO, {"name": "made", "storage": str(folder), "datasets.catalog": str(catalog)})
    return prepare(sweep, Console(quiet=True), dry_run=True)


def test_the_demos_sweep_plans_on_data_that_the_commands_made(tmp_path: Path) -> None:
    catalog = make(tmp_path)
    assert "Not kept" not in (catalog.parent / "report.html").read_text()  # nobody is found after
    ready = demo_on(catalog, tmp_path / "runs")
    synthetic, scenes = ready.data["synthetic"], ready.data["scenes"]
    assert (synthetic.humans, scenes.humans) == ("virtual", "removed")
    assert synthetic.classes == scenes.classes == ("left", "right")
    assert scenes.leak_rate is not None and synthetic.leak_rate is None
    assert {data.root.parent for data in (synthetic, scenes)} == {catalog.parent}
    assert len(scenes.split("train")) == 6 and len(scenes.split("selection")) == 2
    assert len(ready.data["high_bias"].split("report")) == 360  # the demo world's
    trials = " ".join(name for name, _ in ready.search.known().values())
    for baseline in ("random weights", "synthetic only", "scenes only", "equal"):
        assert f"baseline: {baseline}" in trials
    drawn = {source for planned in ready.plan.stages for source in planned.repetition}
    assert drawn == {"synthetic", "scenes"}


@pytest.mark.slow
def test_the_sweep_runs_on_data_that_the_commands_made(tmp_path: Path) -> None:
    make(tmp_path, clips=12)
    sweep = write_world_sweep(
        tmp_path / "sweep",
        datasets={"catalog": "../made/catalog.yaml", "demo_world": WORLD},
        trial__mae__epochs=1,
        trial__align__epochs=1,
        trial__align__heldout_clips=2,
    )
    said = run_to_end(sweep)
    assert "scenes is that of" in said and "not of the demo world" in said
    folder = tmp_path / "sweep" / "runs" / "toy"
    summary = json.loads((folder / "summary.json").read_text())
    assert [trial["state"] for trial in summary["trials"]] == ["complete"] * 4
    client = MlflowClient(f"sqlite:///{tmp_path / 'sweep' / 'runs' / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    told = [run.data.tags.get("trained_on.scenes") for run in client.search_runs(experiments)]
    assert any(text and "(humans: removed, leak rate " in text for text in told)
