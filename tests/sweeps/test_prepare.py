from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sweeps import run
from sweeps.prepare import Prepared, prepare
from sweeps.records import read_sweep, write_sweep
from sweeps.sweep import Sweep
from sweeps.watching import sweep_run
from tests.toy import STOPPING, toy_data, write_toy_sweep

UNUSED = "  unused: {clips: $UNSET_VARIABLE/train.csv, root: nowhere, humans: none}\n"


def prepared(folder: Path, catalog: str, **overrides: Any) -> tuple[Prepared, str]:
    """The toy sweep prepared with its clips on disk, and what was said meanwhile."""
    lines = []
    for name, dataset in toy_data().items():
        rows = "".join(f"{c.path},{c.label},{c.group},{c.split}\n" for c in dataset.clips)
        (folder / f"{name}.csv").write_text(f"path,label,group,split\n{rows}")
        lines.append(f"  {name}: {{clips: {name}.csv, root: {name}, humans: {dataset.humans}}}\n")
        (folder / name).mkdir(exist_ok=True)
        for clip in dataset.clips:
            (folder / name / clip.path).touch()
    (folder / "catalog.yaml").write_text(f"datasets:\n{''.join(lines)}{catalog}")
    said = io.StringIO()
    sweep = Sweep(write_toy_sweep(folder, **overrides), {})
    return prepare(sweep, Console(file=said, width=400), dry_run=True), said.getvalue()


def ikea(folder: Path) -> None:
    """A downstream dataset of the suite without clips of class 11."""
    root = folder / "ikea"
    (root / "frames").mkdir(parents=True)
    paths = [f"GOPR{group:04}_{i}_0_1" for group in range(5) for i in range(11)]
    for path in paths:
        (root / "frames" / path).mkdir()
    text = "".join(f"ikea_furniture/videos/{path}.MP4;{path.split('_')[1]}\n" for path in paths)
    (root / "train.csv").write_text(text)
    (root / "val.csv").write_text("ikea_furniture/videos/GOPR9999_0_0_1.MP4;0\n")
    (root / "frames" / "GOPR9999_0_0_1").mkdir()


def test_only_the_datasets_that_the_sweep_names_are_read(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, UNUSED)
    assert set(ready.data) == {"synthetic", "scenes", "low"}
    assert set(ready.resolved["data"]) == {"synthetic", "scenes", "low"}


def test_a_sweep_has_an_id_from_its_start_and_one_begun_anew_another(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, UNUSED)
    write_sweep(ready.sweep.folder, ready.resolved)
    again, _ = prepared(tmp_path, UNUSED)
    assert ready.resolved["id"] and again.resolved["id"] == ready.resolved["id"]
    ready.sweep.folder.remove()
    anew, _ = prepared(tmp_path, UNUSED)
    assert anew.resolved["id"] not in (None, ready.resolved["id"])
    before = {key: value for key, value in anew.resolved.items() if key != "id"}
    write_sweep(anew.sweep.folder, before)  # by a version that gave none
    old, _ = prepared(tmp_path, UNUSED)
    assert old.resolved["id"] is None


def test_a_sweep_whose_mlflow_refuses_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, _ = prepared(tmp_path, UNUSED)

    def refuse(_: Prepared) -> None:
        assert read_sweep(ready.sweep.folder) == ready.resolved  # killed now, its id is known
        raise ValueError("MLflow cannot be used")

    monkeypatch.setattr(run, "prepare", lambda *_, **__: ready)
    monkeypatch.setattr(run, "_print_prepared", lambda *_: None)
    monkeypatch.setattr(run, "start_tracker", refuse)
    with pytest.raises(ValueError, match="MLflow cannot be used"):
        run.run_sweep(ready.sweep, Console(file=io.StringIO()))
    assert read_sweep(ready.sweep.folder) is None


def test_mlflow_says_from_the_start_where_the_report_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, _ = prepared(tmp_path, UNUSED)
    told: list[str] = []
    start = SimpleNamespace(start=lambda _, description, *__, **___: told.append(description))
    monkeypatch.setattr(sweep_run, "Tracker", lambda *_: start)
    sweep_run.start_tracker(ready)
    (description,) = told
    assert f"{ready.sweep.folder}/report.html" in description


def test_a_point_that_is_scored_elsewhere_is_refused(tmp_path: Path) -> None:
    other = "  other: {clips: low.csv, root: low, humans: real}\n"
    point = {"name": "elsewhere", "set": {"downstream": ["other"]}}
    with pytest.raises(ValueError, match="'elsewhere': downstream is another than the sweep's"):
        prepared(tmp_path, other + UNUSED, search__points=[point])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trial__downstream": ["lw"]}, "^trial.downstream: 'lw' is in no .*; did you mean 'low'"),
        (
            {"trial__mae__mixture__shares": {"unsed": 1}},
            "^trial: 'unsed' is in no catalog; did you mean 'unused'",
        ),
    ],
)
def test_a_name_in_no_catalog_is_told_with_the_nearest_before_anything_is_read(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, UNUSED, **overrides)


def test_what_is_odd_about_a_dataset_is_said(tmp_path: Path) -> None:
    ikea(tmp_path)
    suite = "  ikea: {suite: ikea_fa, root: ikea}\n"
    _, said = prepared(tmp_path, suite, trial__downstream=["low", "ikea"])
    assert "note: dataset 'ikea': 11 of the 12 classes of ikea_fa have clips" in said
    assert "without: 11" in said
    _, said = prepared(tmp_path, suite)
    assert "ikea" not in said


MISSPELT = {"align.epoch": {"type": "int", "low": 1, "high": 2}}
REAL = "  people: {clips: synthetic.csv, root: synthetic, humans: real}\n"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trial__align__mixture__shares": {"people": 1}}, "pre-training on real people"),
        ({"space": {"parameters": MISSPELT}}, "did you mean 'align.epochs'"),
        ({"trial__model": {"name": "tsn_resnt50", "vit": None}, "trial__mae": None}, "resnt50"),
        ({"execution__align__workers": 9}, "gives 9 workers no clip each"),
    ],
)
def test_each_check_stands_between_a_sweep_and_its_training(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, REAL, **overrides)


def test_a_clip_that_is_not_there_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    prepared(tmp_path, "")
    (tmp_path / "scenes" / "3.mp4").unlink()
    with pytest.raises(ValueError, match=r"'scenes': 1 of 8 clips do not exist .*: 3\.mp4"):
        prepare(Sweep(tmp_path / "sweep.yaml", {}), Console(file=io.StringIO()), dry_run=True)


def test_a_point_that_is_left_out_for_its_people_is_told(tmp_path: Path) -> None:
    shares = {"align.mixture.shares": {"people": 1}}
    point = {"name": "with people", "set": shares, "real_humans": True}
    ready, _ = prepared(tmp_path, REAL, search__points=[point])
    assert ready.notes == [
        "with people is left out: it pre-trains on real people and allow_real_humans is false."
    ]
    assert "people" not in ready.data


def test_given_trials_that_the_number_asked_for_has_no_room_for_are_told(tmp_path: Path) -> None:
    every, _ = prepared(tmp_path, "", search__trials=5)
    names = [name for name, _ in every.search.known().values()]
    assert len(names) == 5 and not every.notes  # random weights, two alone, equal, proportional
    ready, _ = prepared(tmp_path, "", search__trials=3)
    assert ready.plan.to_suggest == 0
    assert ready.notes == [f"Left out, for search.trials is 3; raise it: {names[3]}, {names[4]}."]


def test_a_soup_is_none_of_the_trials_that_were_asked_for(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, "", search__trials=5, search__greedy_soup=True)
    for number in range(5):
        assert ready.search.ask() is not None
        ready.search.complete(number, dict.fromkeys(ready.sweep.settings.trial.downstream, 0.5), {})
    ready.search.add_soup()
    assert [record.origin for record in ready.search.records][5:] == ["soup"]
    write_sweep(ready.sweep.folder, ready.resolved)
    assert (
        prepared(tmp_path, "", search__trials=5, search__greedy_soup=True)[0].plan.to_suggest == 0
    )
    more, _ = prepared(tmp_path, "", search__trials=7, search__greedy_soup=True)
    assert more.plan.to_suggest == 2


def test_what_early_stopping_costs_is_told(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, "", search__early_stopping=STOPPING)
    assert ready.notes == [
        "Early stopping: weak trials stop when 25%, 50% of their alignment is done; the probes for "
        "it pass at most 12 clips through the model in each alignment, beside those of the plan."
    ]  # twice 4 of 8 training clips and 2 of 4 selection clips


def test_throughput_that_is_given_prices_the_plan(tmp_path: Path) -> None:
    rates = {"mae": 1.0, "align": 2.0, "finetune": 1.0, "tasks": 4.0}
    ready, _ = prepared(tmp_path, "", execution__clips_per_second=rates)
    assert all(planned.price is not None for planned in ready.plan.stages)


def test_a_warm_start_from_another_objective_stands_between_a_sweep_and_its_training(
    tmp_path: Path,
) -> None:
    ready, _ = prepared(tmp_path, "")
    stored = {**ready.resolved, "name": "old"}
    write_sweep(ready.sweep.storage / "old", stored)
    again, _ = prepared(tmp_path, "", search__warm_start=["old"])
    assert "0 of its 0 trials lie in this space" in again.notes[0]
    with pytest.raises(ValueError, match="of another objective[^$]*mean there, min here"):
        prepared(tmp_path, "", search__warm_start=["old"], trial__score__combine="min")


def test_a_sweep_with_several_objectives_is_continued(tmp_path: Path) -> None:
    """Its trials to come are foreseen beside those that have told all of their objectives."""
    both = {"search__objectives": ["score", "gpu_hours"]}
    ready, _ = prepared(tmp_path, "", **both)
    for _ in range(5):
        assignment = ready.search.ask()
        assert assignment is not None
        ready.search.complete(assignment.number, {"low": 0.5}, {})
    again, _ = prepared(tmp_path, "", search__trials=9, **both)
    assert again.plan.to_suggest == 4 and again.forecast() is not None


# -- several places that datasets come from --------------------------------------------------------

WORLD = {
    "seed": 0,
    "clips_per_source": 8,
    "heldout_per_source": 8,
    "downstream_train": 24,
    "downstream_selection": 12,
    "downstream_report": 12,
    "frames": 2,
    "frames_per_second": 8,
    "height": 32,
    "width": 64,
}


def test_a_catalogs_datasets_take_the_place_of_the_demo_worlds(tmp_path: Path) -> None:
    both = {"catalog": "catalog.yaml", "demo_world": WORLD}
    ready, said = prepared(tmp_path, UNUSED, datasets=both, trial__downstream=["low_bias"])
    assert ready.data["scenes"].root == tmp_path / "scenes"
    assert len(ready.data["synthetic"].clips) == 16  # the catalog's, not the world's
    assert len(ready.data["low_bias"].clips) == 48 and ready.data["low_bias"].humans == "real"
    assert "unused" not in ready.data and not (tmp_path / "runs").exists()
    for name in ("synthetic", "scenes"):
        assert f"{name} is that of {tmp_path / 'catalog.yaml'}, not of the demo world" in said
    assert "low_bias is" not in said


def test_of_several_catalogs_the_last_counts(tmp_path: Path) -> None:
    later = tmp_path / "later"
    later.mkdir()
    (later / "scenes.csv").write_text("path,label\n0.mp4,a\n1.mp4,b\n")
    for name in ("0.mp4", "1.mp4"):
        (later / name).touch()
    entry = "  scenes: {clips: scenes.csv, root: ., humans: removed, leak_rate: 0.25}\n"
    (later / "catalog.yaml").write_text(f"datasets:\n{entry}")
    catalogs = ["catalog.yaml", "later/catalog.yaml"]
    ready, said = prepared(tmp_path, UNUSED, datasets__catalog=catalogs)
    assert ready.data["scenes"].leak_rate == 0.25 and len(ready.data["scenes"].clips) == 2
    assert ready.data["synthetic"].root == tmp_path / "synthetic"
    assert f"scenes is that of {later / 'catalog.yaml'}, not of {tmp_path}/catalog.yaml" in said
    (tmp_path / "scenes.csv").unlink()  # what it stands in for need not be there
    again = prepare(ready.sweep, Console(file=io.StringIO()), dry_run=True)
    assert again.data["scenes"] == ready.data["scenes"]


@pytest.mark.parametrize("nothing", [{}, {"catalog": []}])
def test_a_sweep_without_datasets_is_refused(tmp_path: Path, nothing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="datasets"):
        prepared(tmp_path, "", datasets=nothing)
