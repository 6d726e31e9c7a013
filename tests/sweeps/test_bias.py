"""Scene bias in a sweep: planned, told, and held against what synthetic clips gained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.run_contents import of_stage
from search_spaces.space import Space
from sweeps.planning.forecast import forecast
from sweeps.planning.plan import Plan, make_plan
from sweeps.planning.plan_lines import plan_lines
from sweeps.records import check_same_sweep
from sweeps.reporting.bias_report import bias_lines, claim_sentences, plot_bias, terminal_lines
from sweeps.reporting.bias_summary import bias_metrics, bias_summary
from sweeps.reporting.report import write_report
from sweeps.reporting.summary import make_summary
from sweeps.sweep import MAY_CHANGE, Sweep
from tests.sweeps.test_plan import costs_at
from tests.sweeps.test_plan_tree import _Known, line_with
from tests.sweeps.test_prepare import UNUSED, prepared
from tests.sweeps.test_report import SCORES, Finished
from tests.toy import toy_data, toy_dataset, toy_trial, write_toy_sweep
from trainables.bias import BiasSettings, Measured, bias_measures
from trainables.data.catalog import Dataset
from trainables.settings import parse
from trainables.stage import Stage
from trainables.stage_store import StageStore

BIAS: dict[str, Any] = {
    "clips": 12,
    "frames": 1,
    "resolution": 32,
    "image_model": "descriptors",
    "weights": None,
    "folds": 3,
    "l2_grid": [1.0],
    "max_unreadable": 0.01,
}
SETTINGS = parse(BiasSettings, BIAS, "bias")


def publish(store: StageStore, stage: Stage, bias: float) -> None:
    metrics = {
        "bias": bias,
        "interval_low": bias - 0.2,
        "interval_high": bias + 0.2,
        "most_bits": 1.0,
        "clips": 12,
        "groups": 12,
    }
    store.publish(stage, write={}, metrics=metrics, cost={"device_seconds": 1.0, "clips": 12})


def with_masks(data: Mapping[str, Dataset]) -> dict[str, Dataset]:
    return {name: replace(dataset, masks=Path("/masks")) for name, dataset in data.items()}


def measured_sweep(folder: Path) -> tuple[Finished, list[Measured]]:
    """A finished toy sweep whose datasets with people have both figures; scenes has one."""
    sweep = Finished(folder, SCORES, bias=BIAS)
    measured = bias_measures(SETTINGS, with_masks(sweep.data))
    for number, each in enumerate(measured):
        if each.stage is not None:
            publish(sweep.store, each.stage, 0.1 * number)
    return sweep, measured


def summarised(sweep: Finished, bias: Sequence[Measured]) -> dict[str, Any]:
    return make_summary(sweep.sweep, sweep.search, sweep.data, sweep.store, bias)


def test_the_bias_of_each_dataset_is_in_summary_report_plot_and_metrics(tmp_path: Path) -> None:
    summary = summarised(*measured_sweep(tmp_path))
    found = json.loads(json.dumps(summary, allow_nan=False))["bias"]
    assert set(found["datasets"]) == {"synthetic", "scenes", "low"}
    assert found["datasets"]["low"]["frames"]["bias"] == 0.4
    assert found["datasets"]["scenes"]["people_masked"] == {
        "reason": "there are no people to mask (humans: removed)"
    }
    metrics = bias_metrics(summary)
    assert metrics["bias/low/people_masked"] == 0.5
    assert metrics["bias/low/frames/high"] == pytest.approx(0.6)
    assert "bias/scenes/people_masked" not in metrics
    files = {file.name: file for file in write_report(summary, [], tmp_path)}
    assert files["gain_against_bias.png"].stat().st_size > 5000
    text = files["report.md"].read_text()
    row = line_with(text, "| low | downstream")
    assert "0.40 (0.20 to 0.60)" in row and "0.50 (0.30 to 0.70)" in row
    assert "scenes, people masked: there are no people to mask" in text
    assert "gain_against_bias" in files["report.html"].read_text()
    shown = line_with("\n".join(terminal_lines(summary)), "Scene bias of low")
    assert "single frames 0.40 (0.20 to 0.60), people masked 0.50" in shown


def test_the_gain_is_that_of_the_baselines_on_the_report_split(tmp_path: Path) -> None:
    sweep, measured = measured_sweep(tmp_path)
    gain = summarised(sweep, measured)["bias"]["gain"]
    names = {record.number: record.name for record in sweep.search.records}
    assert names[gain["synthetic"]] == "baseline: synthetic only"
    assert names[gain["human_free"]] == "baseline: scenes only"
    assert gain["split"] == "report"
    # Both have 0.25 there, each within 0.1.
    assert gain["datasets"]["low"]["gain"] == pytest.approx(0.0)
    assert gain["datasets"]["low"]["interval"] == pytest.approx([-(0.02**0.5), 0.02**0.5])


def test_a_sweep_that_asks_for_no_bias_says_nothing_of_it(tmp_path: Path) -> None:
    summary = Finished(tmp_path, SCORES).summary()
    assert summary["bias"] is None
    assert bias_metrics(summary) == {} and bias_lines(summary) == terminal_lines(summary) == []
    assert "cene bias" not in write_report(summary, [], tmp_path)[0].read_text()


def test_what_is_not_measured_yet_is_told_and_the_rest_stands(tmp_path: Path) -> None:
    sweep = Finished(tmp_path, SCORES, bias=BIAS)
    summary = summarised(sweep, bias_measures(SETTINGS, sweep.data))
    assert "not measured yet" in summary["bias"]["datasets"]["low"]["frames"]["reason"]
    assert plot_bias(summary, tmp_path) == []
    lines = "\n".join(bias_lines(summary))
    assert "low, single frames: it is not measured yet, or that failed." in lines
    assert "with 0 datasets measured, nothing can be said" in lines
    assert "Scene bias of low, bits: not measured" in terminal_lines(summary)


def scored_trial(
    number: int, source: str, scores: Mapping[str, float], origin: str, stage_1: str = "init"
) -> dict[str, Any]:
    """What is told of a complete trial that was aligned on one source."""
    return {
        "number": number,
        "state": "complete",
        "origin": origin,
        "shares": {source: 1.0},
        "aligned_from": {"stage": stage_1, "saw": {}, "imported": False},
        "score": sum(scores.values()),
        "scores": scores,
        "intervals": {name: [score - 0.1, score + 0.1] for name, score in scores.items()},
        "report": None,
    }


def claim(tmp_path: Path, bias: Sequence[float], gains: Sequence[float]) -> str:
    """What is said of single frames over downstream datasets with such figures."""
    names = [f"d{number}" for number in range(len(bias))]
    data = {name: toy_dataset(name, 12, humans="real") for name in names}
    data |= {"synthetic": toy_dataset("synthetic", 12)}
    data |= {"scenes": toy_dataset("scenes", 12, humans="none")}
    store = StageStore(tmp_path / "stages")
    measured = bias_measures(SETTINGS, data)
    for each in measured:
        if each.stage and each.dataset in names:
            publish(store, each.stage, bias[names.index(each.dataset)])

    def trial(number: int, source: str, scores: Sequence[float], origin: str) -> dict[str, Any]:
        known = dict(zip(names, scores, strict=True))
        return scored_trial(number, source, known, origin)

    trials = [
        trial(0, "synthetic", [0.5 + gain for gain in gains], "baseline"),
        trial(1, "scenes", [0.5] * len(gains), "baseline"),
        trial(2, "synthetic", [0.9] * len(gains), "suggested"),  # better, and no baseline
    ]
    found = {"bias": bias_summary(measured, trials, names, data, store)}
    assert found["bias"] is not None
    if gains:
        gain = found["bias"]["gain"]["datasets"]["d0"]["gain"]
        assert gain == pytest.approx(gains[0])
    return line_with("\n".join(claim_sentences(found)), "single frames:")


RISING = [0.1, 0.4, 0.5, 0.9, 1.0, 1.4]


@pytest.mark.parametrize(
    ("bias", "gains", "said"),
    [
        (RISING, [0.3, 0.2, 0.1, 0.0, -0.1, -0.2], "-1.00 over 6 datasets (90 %: -1.00 to -1.00)"),
        (RISING, [0.3, 0.2, 0.1, 0.0, -0.1, -0.2], ": it holds in this sweep"),
        (RISING, [-0.2, -0.1, 0.0, 0.1, 0.2, 0.3], ": the opposite holds in this sweep"),
        (RISING, [0.1, -0.1, 0.2, 0.0, 0.3, -0.2], ": it is neither shown nor refuted"),
        ([0.1, 1.2], [0.3, 0.1], "ordered as it says, but fewer than 4 datasets"),
        ([0.1, 1.2], [0.1, 0.3], "ordered against what it says, but fewer than 4"),
        ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], "make that a statement of nothing"),
        ([0.5], [0.1], "with 1 dataset measured, nothing can be said"),
        ([0.5, 0.5], [0.1, 0.2], "all 2 datasets have the same bias or gain"),
    ],
)
def test_whether_the_claim_holds_is_said_and_of_few_datasets_that_it_says_nothing(
    tmp_path: Path, bias: Sequence[float], gains: Sequence[float], said: str
) -> None:
    assert said in claim(tmp_path, bias, gains)


@pytest.mark.parametrize(
    ("trials", "pair"),
    [
        # Of one stage 1 before baselines of two; then baselines; then the best.
        ([("v", "b", "x", 0.5), ("n", "b", "y", 0.5), ("n", "s", "x", 0.1)], (0, 2)),
        ([("v", "b", "x", 0.5), ("n", "b", "y", 0.5)], (0, 1)),
        ([("v", "s", "x", 0.9), ("v", "b", "x", 0.5), ("n", "b", "x", 0.5)], (1, 2)),
        ([("v", "s", "x", 0.5), ("v", "s", "x", 0.9), ("n", "s", "x", 0.5)], (1, 2)),
    ],
)
def test_trials_of_the_same_stage_1_are_compared_where_there_are_such(
    tmp_path: Path, trials: list[tuple[str, str, str, float]], pair: tuple[int, int]
) -> None:
    data = toy_data()
    told = [
        scored_trial(
            number,
            {"v": "synthetic", "n": "scenes"}[source],
            {"low": score},
            {"b": "baseline", "s": "suggested"}[origin],
            stage_1,
        )
        for number, (source, origin, stage_1, score) in enumerate(trials)
    ]
    store = StageStore(tmp_path)
    found = bias_summary(bias_measures(SETTINGS, data), told, ["low"], data, store)
    assert found is not None
    assert (found["gain"]["synthetic"], found["gain"]["human_free"]) == pair


def test_what_stage_1_had_seen_is_said_beside_the_gain(tmp_path: Path) -> None:
    sweep, measured = measured_sweep(tmp_path)
    summary = summarised(sweep, measured)
    assert (
        "(aligned on human-free clips alone) on the report split, one training run each. Both "
        "were aligned from the same weights: random, then MAE on scenes (humans: removed)."
    ) in claim_sentences(summary)[0]
    other = {"stage": "other", "saw": {"contrastive": {"made": "virtual"}}, "imported": True}
    summary["bias"]["gain"]["aligned_from"]["synthetic"] = other
    assert (
        "They were aligned from different weights (imported, then contrastive on made (humans: "
        "virtual); random, then MAE on scenes (humans: removed)), so the gain is not that of "
        "alignment alone."
    ) in claim_sentences(summary)[0]


def test_a_trial_that_was_not_aligned_is_not_compared(tmp_path: Path) -> None:
    sweep, measured = measured_sweep(tmp_path)
    trials = summarised(sweep, measured)["trials"]
    started = {trial["name"]: trial["aligned_from"] for trial in trials}
    assert started["baseline: random weights"] is None
    assert started["baseline: scenes only"] is not None


def test_without_a_pair_to_compare_there_is_no_gain(tmp_path: Path) -> None:
    store, data = StageStore(tmp_path), toy_data()
    measured = bias_measures(SETTINGS, data)
    found = {"bias": bias_summary(measured, [], ["low"], data, store)}
    assert found["bias"] is not None and found["bias"]["gain"] is None
    assert claim_sentences(found) == [
        "No complete trial aligned on synthetic clips alone and one on human-free clips alone, "
        "so there is no gain to hold against the bias."
    ]


def bias_plan(folder: Path, **execution: Any) -> tuple[Plan, str]:
    """The plan of one trial and the bias of three datasets, and what a person sees of it."""
    from tests.sweeps.test_plan_tree import Console, io, print_plan

    stages = [m.stage for m in bias_measures(SETTINGS, toy_data()) if m.stage is not None]
    costs, known = costs_at(folder, **execution), {0: ("a", toy_trial())}
    plan = make_plan(known, 0, toy_data(), costs, None, stages)
    sweep = Sweep(write_toy_sweep(folder), {})
    foreseen = forecast(sweep, Space({}), _Known(known), plan, toy_data(), costs, stages)  # type: ignore[arg-type]
    screen = io.StringIO()
    print_plan(plan, foreseen, Console(file=screen, width=200))
    return plan, screen.getvalue()


def test_bias_is_in_the_plan_with_its_clips_and_price(tmp_path: Path) -> None:
    plan, shown = bias_plan(tmp_path, device_teraflops=1e-3)
    of_bias = [planned for planned in plan.stages if planned.stage.kind == "bias"]
    assert [each.what for each in of_bias] == [
        f"{name} single frames" for name in ("synthetic", "scenes", "low")
    ]
    assert [each.clips for each in of_bias] == [12, 8, 12]  # of scenes there are no more
    assert all(each.needed and each.price is not None for each in of_bias)
    line = line_with(shown, "scene bias")
    assert "3 stages" in line and "32 clips" in line and "to do" in line and "trial" not in line
    lines = "\n".join(plan_lines(plan))
    assert f"stand on {len(plan.stages)} stages (without sharing: {len(plan.stages)})" in lines
    assert plan.alone_clips == sum(each.clips for each in plan.stages)
    assert "if each trial were alone" not in lines


def test_what_was_measured_is_done_in_the_plan_and_measured_for_all_sweeps(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "stages")
    for each in bias_measures(SETTINGS, toy_data()):
        if each.stage is not None:
            publish(store, each.stage, 0.5)
    plan, shown = bias_plan(tmp_path / "stages")
    assert not any(planned.needed for planned in plan.stages if planned.stage.kind == "bias")
    assert "done" in line_with(shown, "scene bias")


def test_what_is_left_out_is_said_before_the_sweep_begins(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, UNUSED, bias=BIAS)
    assert [stage.settings["dataset"] for stage in ready.bias_stages()] == [
        "synthetic",
        "scenes",
        "low",
    ]
    notes = "\n".join(ready.notes)
    assert "The scene bias of low, people masked, is left out: there are no masks; give" in notes
    assert "scenes, people masked, is left out: there are no people to mask" in notes


def test_a_sweep_that_has_begun_may_be_asked_for_its_bias(tmp_path: Path) -> None:
    before = Sweep(write_toy_sweep(tmp_path), {}).identity()
    del before["bias"]  # as stored before there was such a setting
    after = Sweep(write_toy_sweep(tmp_path, bias=BIAS), {}).identity()
    check_same_sweep(before, after, MAY_CHANGE)


def test_the_run_of_a_bias_in_mlflow_is_named_by_dataset_and_view(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    stage = bias_measures(SETTINGS, with_masks({"low": toy_data()["low"]}))[1].stage
    assert stage is not None
    publish(store, stage, 0.5)
    record = store.record(stage.identity)
    assert record is not None
    contents = of_stage({**vars(record)}, ["low"])
    assert contents.name == f"bias low people masked · {stage.identity[:6]}"
    assert contents.metrics["bias"] == 0.5
