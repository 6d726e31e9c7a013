"""The commands that make data, one after the other, and the demo's sweep on what they made."""

from __future__ import annotations

import json
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from sweeps.prepare import Prepared, prepare
from sweeps.sweep import Sweep, parse_assignments
from tests.sweeps.commands import ROOT, WORLD, run_to_end, write_world_sweep
from tests.trainables.data.mocap import write_mocap
from trainables.data.human_removal.__main__ import main as human_removal
from trainables.data.manifests import read_manifest
from trainables.data.virtual_humans.__main__ import main as virtual_humans

DATA = ROOT.parent / "shared" / "data"
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


def documented(name: str, catalogs: list[Path], folder: Path) -> Prepared:
    """The sweep as docs/data.md types it, on other catalogs and another storage, planned."""
    lines = (ROOT / "docs" / "data.md").read_text().replace("\\\n", " ").splitlines()
    (line,) = (each for each in lines if "mixing.py" in each and f"--set name={name} " in each)
    words = shlex.split(line)
    file = ROOT / words[2] if words[2].endswith(".yaml") else ROOT / "sweeps" / "demo.yaml"
    given = [word for before, word in pairwise(words) if before == "--set"]
    ours = {"storage": str(folder), "datasets.catalog": [str(path) for path in catalogs]}
    sweep = Sweep(file, {**parse_assignments(given), **ours})
    return prepare(sweep, Console(quiet=True), dry_run=True)


def aligned_on(ready: Prepared) -> set[str]:
    return {source for planned in ready.plan.stages for source in planned.repetition}


def test_the_demos_sweep_plans_on_data_that_the_commands_made(tmp_path: Path) -> None:
    catalog = make(tmp_path)
    assert "Not kept" not in (catalog.parent / "report.html").read_text()  # nobody is found after
    ready = documented("demo_made", [catalog], tmp_path / "runs")
    synthetic, scenes = ready.data["synthetic"], ready.data["scenes"]
    assert (synthetic.humans, scenes.humans) == ("virtual", "removed")
    assert synthetic.classes == scenes.classes == ("left", "right")
    assert scenes.leak_rate is not None and synthetic.leak_rate is None
    assert scenes.version is not None and "dilation 2, soft edge 1" in scenes.version
    assert {data.root.parent for data in (synthetic, scenes)} == {catalog.parent}
    assert len(scenes.split("train")) == 6 and len(scenes.split("selection")) == 2
    assert len(ready.data["high_bias"].split("report")) == 360  # the demo world's
    trials = " ".join(name for name, _ in ready.search.known().values())
    for baseline in ("random weights", "synthetic only", "scenes only", "equal"):
        assert f"baseline: {baseline}" in trials
    assert aligned_on(ready) == {"synthetic", "scenes"}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data sets at {DATA}")
def test_the_gestures_sweep_plans_on_real_files_that_the_commands_made_clips_of(
    tmp_path: Path,
) -> None:
    mocap, davis, out = tmp_path / "mocap", tmp_path / "davis", tmp_path / "made"
    mocap.mkdir()
    rows = [
        row for row in read_manifest(DATA / "mocap" / "clips.csv") if row.label in ("bow", "run")
    ]
    chosen = [*rows[:3], *rows[-3:]]
    lines = [f"{row.path},{row.label},{row.group}" for row in chosen]
    (mocap / "clips.csv").write_text("\n".join(["path,label,group", *lines]))
    for row in chosen:
        shutil.copy(DATA / "mocap" / row.path, mocap)
    options = ["--name", "mocap_humans", "--clips", "4", "--heldout", "2", *SMALL]
    assert virtual_humans([str(mocap), str(out), *options]) == 0
    lines = ["path,label,group"]
    for scene in ("bmx-trees", "parkour"):
        for kind in ("frames", "masks"):
            (davis / scene / kind).mkdir(parents=True)
            files = sorted((DATA / "davis" / "with_people" / scene / kind).iterdir())
            for file in files[:3]:
                shutil.copy(file, davis / scene / kind)
        lines.append(f"{scene}/frames,{scene},{scene}")
    (tmp_path / "davis.csv").write_text("\n".join(lines))
    removal = [
        str(davis),
        str(out),
        "--name",
        "davis_removed",
        "--frame-rate",
        "24",
        "--workers",
        "1",
    ]
    removal += [
        "--clips",
        str(tmp_path / "davis.csv"),
        "--masks",
        str(davis / "{parent}" / "masks"),
    ]
    assert human_removal([*removal, "--max-leak", "1", "--redo", "0"]) == 0
    catalogs = [ROOT / "sweeps" / "catalogs" / "gestures.yaml", out / "catalog.yaml"]
    ready = documented("gestures_made", catalogs, tmp_path / "runs")
    assert {name: data.humans for name, data in ready.data.items()} == {
        "mocap_humans": "virtual",
        "wan_t2v": "virtual",
        "davis_removed": "removed",
        "egogestar": "real",
    }
    assert ready.data["davis_removed"].classes == ("bmx-trees", "parkour")
    assert aligned_on(ready) == {"mocap_humans", "wan_t2v", "davis_removed"}


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
    of_scenes = [text for text in told if text]
    assert any("(humans: removed, leak rate " in text for text in of_scenes)
    how = "version: humans removed (files, dilation 2, soft edge 1"
    assert all(how in text for text in of_scenes)
