from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.space import load_space
from sweeps.checks import (
    check_comparable,
    check_execution,
    check_models,
    check_sources,
    check_space,
    check_storage,
    sources_of,
    within_limits,
)
from sweeps.place import storage_url
from sweeps.searching.given import given_trials
from sweeps.sweep import Sweep, parse_assignments
from tests.toy import MIXTURE, MIXUP, SPACE, STOPPING, toy_data, toy_dataset, write_toy_sweep
from trainables.storage.folder import Folder


def check(folder: Path, data=None, space: dict[str, Any] = SPACE, **overrides: Any) -> None:
    sweep = Sweep(write_toy_sweep(folder, space, **overrides), {})
    loaded = load_space(sweep.space_file)
    check_space(sweep, loaded)
    check_sources(sweep, sources_of(sweep, loaded), data or toy_data())


def real(name: str) -> dict[str, Any]:
    return toy_data() | {name: toy_dataset(name, 8, heldout=4, humans="real")}


def test_a_sound_sweep_passes(tmp_path: Path) -> None:
    check(tmp_path)


def test_real_humans_are_refused_for_pre_training_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'scenes' is declared 'humans: real'.*allow_real_humans"):
        check(tmp_path, real("scenes"))
    check(tmp_path, real("scenes"), allow_real_humans=True)


def test_a_real_source_that_only_a_point_or_the_space_names_is_refused_too(tmp_path: Path) -> None:
    point = {"name": "k", "set": {"align.mixture": {**MIXTURE, "shares": {"kinetics": 1}}}}
    with pytest.raises(ValueError, match="search.points 'k'.*'kinetics' is declared"):
        check(tmp_path, real("kinetics"), search__points=[point])
    space = {
        "parameters": {"mae.mixture.shares": {"type": "simplex", "over": ["scenes", "kinetics"]}}
    }
    with pytest.raises(ValueError, match=r"space\.yaml.*'kinetics' is declared"):
        check(tmp_path, real("kinetics"), space)
    endpoints = [{"mixture.shares": {"scenes": 1}}, {"mixture.shares": {"kinetics": 1}}]
    with pytest.raises(ValueError, match="'kinetics' is declared"):
        check(tmp_path, real("kinetics"), trial__average__endpoints=endpoints)


def test_a_trial_that_is_scored_otherwise_is_refused(tmp_path: Path) -> None:
    def check_points(space: dict[str, Any], *points: dict[str, Any]) -> None:
        named = [{"name": "p", "set": point} for point in points]
        sweep = Sweep(write_toy_sweep(tmp_path, space, search__points=named), {})
        check_comparable(sweep, load_space(sweep.space_file))

    check_points(SPACE, {"downstream": ["low"], "mae.epochs": 2})
    with pytest.raises(ValueError, match="search.points 'p': downstream is another"):
        check_points(SPACE, {"downstream": ["high"]})
    with pytest.raises(ValueError, match="search.points 'p': score is another"):
        check_points(SPACE, {"score.combine": "min"})
    combine = {"parameters": {"score.combine": {"type": "choice", "values": ["mean", "min"]}}}
    with pytest.raises(ValueError, match=r"space\.yaml: score is another"):
        check_points(combine)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"trial__align__mixture__shares": {"synthetic": 0.5, "scenes": 0.4}}, "sum to 0.9"),
        (
            {"trial__align__mixture__shares": {"synthetic": 1.5, "scenes": -0.5}},
            "share of 'scenes' is -0.5",
        ),
        ({"trial__align__mixture__shares": {"synthetc": 1}}, "synthetc.*did you mean 'synthetic'"),
        ({"trial__downstream": ["lw"]}, "'lw' is in no catalog; did you mean 'low'"),
        ({"search__trials": 0}, "search.trials"),
        ({"search__sampler": "tp"}, "search.sampler"),
        ({"serch": {}}, "serch: unknown key; did you mean 'search'"),
        ({"name": "a/b"}, "name"),
        (
            {"search__early_stopping": {**STOPPING, "rungs": [0.5, 0.25]}},
            r"rungs \[0.5, 0.25\] do not rise",
        ),
        ({"search__early_stopping": {**STOPPING, "rungs": [1.0]}}, "rungs.0: .*less than 1"),
        ({"search__objectives": ["scor"]}, "objectives.0: no objective; did you mean 'score'"),
        (
            {"search__objectives": [{"name": "people", "mean_off": ["low"]}]},
            "objectives.0: .*\n?mean_off: unknown key; did you mean 'mean_of'",
        ),
        (
            {"search__warm_start": [{"experiment": "x"}]},
            "warm_start.0: uri: missing; every setting",
        ),
        ({"search__objectives": ["gpu_hours"]}, "gpu_hours alone.*add score"),
        ({"search__objectives": ["score", "score"]}, "two objectives are called 'score'"),
        (
            {"search__objectives": [{"name": "people", "mean_of": ["lw"]}]},
            "'lw' is not in trial.downstream; did you mean 'low'",
        ),
    ],
)
def test_a_mistake_in_the_sweep_file_is_named(tmp_path: Path, overrides, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(tmp_path, **overrides)


def test_batches_that_cannot_be_divided_are_refused_before_stage_1_is_paid_for(
    tmp_path: Path,
) -> None:
    def check(**overrides: Any) -> None:
        sweep = Sweep(write_toy_sweep(tmp_path, **overrides), {})
        check_execution(sweep, load_space(sweep.space_file))

    check(execution__align__per_device_batch=3, execution__mae__workers=4)
    with pytest.raises(ValueError, match=r"trial, execution.mae: .*batch_size 4 gives 5 workers"):
        check(execution__mae__workers=5)
    check(execution__mae__workers=5, trial__mae__epochs=0)
    check(execution__align__workers=[1, 2, 4])
    with pytest.raises(ValueError, match=r"execution.align: workers \[2, 3\]: 3 do not divide"):
        check(execution__align__workers=[2, 3])
    with pytest.raises(ValueError, match=r"execution.align: .*per_device_batch 3 is odd"):
        check(execution__align__per_device_batch=3, trial__align__mixup=MIXUP)
    point = {"name": "p", "set": {"align.optimizer.batch_size": 2}}
    with pytest.raises(ValueError, match=r"'p', execution.align: .*gives 3 workers"):
        check(execution__align__workers=3, search__points=[point])


def test_random_weights_are_a_baseline_beside_weights_that_bring_their_positions(
    tmp_path: Path,
) -> None:
    trial = {
        "trial__start": {"weights": "timm", "path": "vit.safetensors"},
        "trial__model__vit": {"patch_size": 16, "tubelet": "linear", "positions": "imported"},
    }
    path = write_toy_sweep(tmp_path, allow_real_humans=True, **trial)
    sweep = Sweep(path, {})
    space = load_space(sweep.space_file)
    random, *others = given_trials(sweep, space, {"synthetic": 16, "scenes": 8})
    assert sweep.trial_with(random.values, "random").start.weights == "random"
    assert all(sweep.trial_with(o.values, "o").start.weights == "timm" for o in others)


def test_a_space_that_names_no_setting_or_an_impossible_value_is_refused(tmp_path: Path) -> None:
    space = {"parameters": {"align.epoch": {"type": "int", "low": 1, "high": 3}}}
    with pytest.raises(ValueError, match=r"align\.epoch.*did you mean 'align\.epochs'"):
        check(tmp_path, space=space)
    space = {"parameters": {"align.epochs": {"type": "int", "low": -1, "high": 3}}}
    with pytest.raises(ValueError, match=r"align\.epochs.*got -1"):
        check(tmp_path, space=space)


def test_a_downstream_dataset_without_a_selection_split_is_refused(tmp_path: Path) -> None:
    low = toy_data()["low"]
    clips = tuple(clip for clip in low.clips if clip.split != "selection")
    with pytest.raises(ValueError, match="'low' has no selection clips"):
        check(tmp_path, toy_data() | {"low": replace(low, clips=clips)})


def test_a_baseline_past_the_repetition_cap_is_left_out_and_a_point_is_an_error(
    tmp_path: Path,
) -> None:
    def kept(**overrides: Any):
        path = write_toy_sweep(tmp_path, trial__align__mixture__max_repetition=1.5, **overrides)
        sweep = Sweep(path, {})
        space = load_space(sweep.space_file)
        given = given_trials(sweep, space, {"synthetic": 16, "scenes": 8})
        return within_limits(sweep, space, given, toy_data())

    given, left_out = kept()
    assert "baseline: scenes only" not in [trial.name for trial in given]
    assert left_out == [
        "baseline: scenes only is left out: align would draw each clip of 'scenes' 2.0 times, "
        "max_repetition is 1.5."
    ]
    point = {"name": "scenes", "set": {"align.mixture.shares": {"scenes": 1}}}
    with pytest.raises(ValueError, match="search.points 'scenes'.*2.0 times"):
        kept(search__points=[point])


def test_a_storage_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written.*--set storage"):
        check_storage(Folder(str(tmp_path / "file" / "below")))


def test_relative_storage_lies_in_sweeps_home_else_here_and_in_a_job_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_HOME", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert storage_url("runs") == str(tmp_path / "runs")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert storage_url("runs") == str(Path(os.path.expanduser("~")) / "runs")
    monkeypatch.setenv("SWEEPS_HOME", str(tmp_path / "shared"))
    assert storage_url("runs") == str(tmp_path / "shared" / "runs")
    assert storage_url("/data/runs") == "/data/runs"


def test_set_reads_values_as_yaml_and_names_what_it_cannot_read() -> None:
    assert parse_assignments(["a.b=1e-3", "c={x: 0.5}", "d=null", "e=text"]) == {
        "a.b": 0.001,
        "c": {"x": 0.5},
        "d": None,
        "e": "text",
    }
    with pytest.raises(ValueError, match="trial.seed: is not key.path=value"):
        parse_assignments(["trial.seed"])


def test_set_to_a_key_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trial\.sed.*did you mean 'trial\.seed'"):
        Sweep(write_toy_sweep(tmp_path), {"trial.sed": 1})


def test_a_point_with_real_humans_is_left_out_unless_the_sweep_allows_them(tmp_path: Path) -> None:
    point = {
        "name": "people",
        "set": {"align.mixture.shares": {"kinetics": 1}},
        "real_humans": True,
    }
    refused = Sweep(write_toy_sweep(tmp_path, search__points=[point]), {})
    assert (refused.points, refused.not_allowed) == ([], ["people"])
    allowed = Sweep(write_toy_sweep(tmp_path, search__points=[point]), {"allow_real_humans": True})
    assert ([p.name for p in allowed.points], allowed.not_allowed) == (["people"], [])


def test_throughput_of_no_kind_of_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'aling' is none; did you mean 'align'"):
        Sweep(write_toy_sweep(tmp_path, execution__clips_per_second={"aling": 1.0}), {})


def test_an_address_of_mlflow_with_a_password_is_refused_and_not_shown(tmp_path: Path) -> None:
    uri = "https://ann:s3cr3t@mlflow.example.org/"
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as in_file:
        Sweep(write_toy_sweep(tmp_path, tracking__uri=uri), {})
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as by_set:
        Sweep(write_toy_sweep(tmp_path), {"tracking.uri": uri})
    assert "s3cr3t" not in f"{in_file.value} {by_set.value}"
    Sweep(write_toy_sweep(tmp_path, tracking__uri="https://mlflow.example.org/@x"), {})


def test_public_weights_that_may_have_seen_people_need_leave(tmp_path: Path) -> None:
    overrides = {
        "trial__start": {"weights": "timm", "path": "vit.safetensors"},
        "trial__model__vit__positions": "imported",
    }
    sweep = Sweep(write_toy_sweep(tmp_path, **overrides), {})
    with pytest.raises(ValueError, match="most likely with real people.*allow_real_humans: true"):
        check_models(sweep, load_space(sweep.space_file))
    allowed = Sweep(sweep.file, {"allow_real_humans": True})
    check_models(allowed, load_space(sweep.space_file))


def test_an_image_backbone_that_does_not_exist_is_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    overrides = {"trial__model": {"name": "tsn_resnet5", "vit": None}, "trial__mae": None}
    sweep = Sweep(write_toy_sweep(tmp_path, **overrides), {})
    with pytest.raises(ValueError, match="no image backbone 'resnet5'"):
        check_models(sweep, load_space(sweep.space_file))


def test_a_sweep_that_names_no_mlflow_server_uses_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs:5000")
    path = write_toy_sweep(tmp_path)
    assert Sweep(path, {}).tracking_uri == "http://theirs:5000"
    assert Sweep(path, {"tracking.uri": "http://own:5000"}).tracking_uri == "http://own:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert Sweep(path, {}).tracking_uri is None
