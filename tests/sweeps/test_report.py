from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from search_spaces.space import Space, load_space
from sweeps.planning.costs import duration
from sweeps.reporting import live_report
from sweeps.reporting.curves import curve_stages
from sweeps.reporting.report import method_table, write_report, write_weights
from sweeps.reporting.sharing import MOST_CHILDREN, alone_seconds, sharing_lines
from sweeps.reporting.summary import _score_interval, make_summary, report_stages
from sweeps.searching.given import given_trials
from sweeps.searching.sampler_view import device_seconds
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from tests.sweeps.test_plan import HORIZON_FREE
from tests.toy import AUGMENT, OPTIMIZER, STOPPING, at_rung, toy_data, toy_trial, write_toy_sweep
from trainables.stage import TRUNKS, Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

STOPPED = -1.0  # in place of a score


class Finished:
    """A sweep whose stages are records without training: enough for what is told of them."""

    def __init__(self, folder: Path, scores: dict[int, float], **overrides: Any) -> None:
        self.sweep = Sweep(write_toy_sweep(folder, **overrides), {})
        file = self.sweep.space_file
        space = load_space(file) if file else Space({})
        given = given_trials(self.sweep, space, {"synthetic": 16, "scenes": 8})
        self.data, self.store = toy_data(), StageStore(self.sweep.storage / "stages")
        self.data["scenes"] = replace(self.data["scenes"], licence="CC BY 4.0")
        self.search = Search(self.sweep, space, given, self.data)
        while (assignment := self.search.ask()) is not None:
            number = assignment.number
            if scores.get(number) == STOPPED:
                assert not self.search.reached(number, at_rung(0.5, 0.1))
                continue
            if number in scores and self.sweep.settings.search.early_stopping:
                assert self.search.reached(number, at_rung(0.5, 0.9))
            if number not in scores:
                self.search.failed(number, "the loss is nan")
                continue
            stages = trial_stages(self.search.config(self.search.records[number]), self.data)
            self.publish(*stages.all(), accuracy=scores[number])
            named = {stage.identity: stage.identity for stage in stages.searched()}
            self.search.complete(number, {"low": scores[number]}, named)
        self.publish(*report_stages(self.search, self.data), accuracy=0.25)

    def publish(self, *stages: Stage, accuracy: float) -> None:
        for stage in stages:
            trained = stage.kind in ("init", "mae", "align", "average", "learned_average")
            self.store.publish(
                stage,
                write={"weights.safetensors": save_weights} if trained else {},
                metrics={
                    "accuracy": accuracy,
                    "interval_low": accuracy - 0.1,
                    "interval_high": accuracy + 0.1,
                },
                cost={"device_seconds": 2.0, "clips": 24.0 if stage.kind in TRUNKS else 10.0},
                mixture=drawn(stage),
                trained_on={"scenes": {"content_hash": "ab", "humans": "removed"}},
            )

    def summary(self) -> dict[str, Any]:
        return make_summary(self.sweep, self.search, self.data, self.store)


def drawn(stage: Stage) -> dict[str, Any]:
    """What a training stage would record of its mixture, had each share been kept exactly."""
    if stage.kind not in ("mae", "align"):
        return {}
    shares = stage.settings[stage.kind]["mixture"]["shares"]
    realised = {name: round(100 * float(share)) for name, share in shares.items()}
    times = dict.fromkeys(shares, 1.5)
    replaced = {name: {"broken.mp4": 2} for name in ("scenes",) if name in shares}
    return {"requested": shares, "realised": realised, "repetition": times, "replaced": replaced}


def save_weights(file: IO[bytes]) -> None:
    file.write(save({"w": np.arange(3.0)}))


SCORES = {0: 0.1, 1: 0.5, 2: 0.4, 3: 0.6, 5: 0.7}  # 4 fails; 0 to 4 are baselines


def test_the_best_trial_on_the_selection_split_is_recommended(tmp_path: Path) -> None:
    summary = Finished(tmp_path, SCORES).summary()
    assert summary["recommended"]["trial"] == 5
    assert [trial["number"] for trial in summary["trials"]] == [5, 3, 1, 2, 0, 4]
    assert summary["counts"]["failed"] == 1
    assert summary["trials"][-1]["reason"] == "the loss is nan"
    named = {identity for trial in summary["trials"] for identity in trial["stages"]}
    assert summary["counts"]["stages"] == len(named)
    assert summary["licences"] == {"scenes": "CC BY 4.0"}


def test_of_equal_scores_the_earlier_trial_is_recommended_and_no_score_comes_after_0(
    tmp_path: Path,
) -> None:
    scores = {0: 0.1, 1: 0.6, 3: 0.6, 5: 0.0, 6: STOPPED}
    summary = Finished(
        tmp_path, scores, search__trials=7, search__early_stopping=STOPPING
    ).summary()
    assert summary["recommended"]["trial"] == 1
    assert [trial["number"] for trial in summary["trials"]] == [1, 3, 0, 5, 2, 4, 6]
    assert [summary["counts"][state] for state in ("complete", "failed", "pruned")] == [4, 2, 1]


def test_a_trial_whose_report_split_could_not_be_scored_is_reported_without(
    tmp_path: Path,
) -> None:
    finished = Finished(tmp_path, SCORES)
    best = trial_stages(finished.search.config(finished.search.records[5]), finished.data, "report")
    finished.store.folder(best.scored["low"].identity).remove()
    finished.store = StageStore(finished.store.root)
    summary = finished.summary()
    assert summary["recommended"]["trial"] == 5 and summary["recommended"]["report"] is None
    report = write_report(summary, [], tmp_path)[0].read_text()
    assert "with a score of 70.0% (60.0 to 80.0) on the selection split. Trained alone" in report


def test_only_the_recommended_trial_and_the_baselines_are_read_on_the_report_split(
    tmp_path: Path,
) -> None:
    summary = Finished(tmp_path, {**SCORES, 6: 0.2, 7: 0.3}, search__trials=8).summary()
    read = {trial["number"] for trial in summary["trials"] if trial["report"]}
    assert read == {5, 0, 1, 2, 3}
    assert summary["recommended"]["report"]["score"] == 0.25


def test_a_stage_is_paid_by_its_first_trial_and_reused_by_the_others(tmp_path: Path) -> None:
    summary = Finished(tmp_path, SCORES).summary()
    trials = {trial["number"]: trial for trial in summary["trials"]}
    mae = {
        number: [s["reused"] for s in trials[number]["stages"].values() if s["kind"] == "mae"]
        for number in (1, 2, 3)
    }
    assert mae == {1: [False], 2: [True], 3: [True]}
    paid = sum(trial["cost"]["device_seconds"] for trial in summary["trials"])
    assert paid == pytest.approx(summary["cost"]["device_seconds"])


def test_the_summary_is_a_function_of_the_files(tmp_path: Path) -> None:
    finished = Finished(tmp_path, SCORES)
    space = load_space(finished.sweep.space_file)
    again = Search(finished.sweep, space, [], finished.data)
    assert make_summary(finished.sweep, again, finished.data, finished.store) == finished.summary()


def test_the_weights_say_what_they_were_trained_on(tmp_path: Path) -> None:
    finished = Finished(tmp_path, SCORES)
    summary = finished.summary()
    (path,) = write_weights(summary, finished.store, tmp_path)
    assert path == tmp_path / "recommended.safetensors"
    assert list(tmp_path.glob("*.safetensors*")) == [path], "a half-written file is left"
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        assert file.get_tensor("w").tolist() == [0, 1, 2]
    assert json.loads(metadata["trained_on"]) == {
        "scenes": {"content_hash": "ab", "humans": "removed"}
    }
    assert metadata["allow_real_humans"] == "false"
    best = summary["recommended"]
    assert metadata["stage"] == best["weights"]["stage"]
    assert (metadata["sweep"], metadata["trial"]) == ("toy", "5")
    assert json.loads(metadata["config"]) == best["config"]


def test_where_the_average_is_learned_for_each_dataset_each_has_weights_of_its_own(
    tmp_path: Path,
) -> None:
    learned = {"average.method": "learned", "augmented_probe": FINETUNE}
    finished = Finished(
        tmp_path,
        {0: 0.5},
        search__space=None,
        search__trials=None,
        search__baselines=False,
        search__points=[{"name": "learned", "set": learned}],
    )
    summary = finished.summary()
    files = write_weights(summary, finished.store, tmp_path)
    assert [file.name for file in files] == [
        "recommended.safetensors",
        "recommended-low.safetensors",
    ]
    stages = []
    for file in files:
        with safe_open(file, "numpy") as opened:
            stages.append(opened.metadata()["stage"])
    best = summary["recommended"]
    assert stages == [best["weights"]["stage"], best["adapted"]["low"]["stage"]]
    assert stages[0] != stages[1]


def test_the_report_has_both_splits_the_failures_and_a_plot(tmp_path: Path) -> None:
    files = write_report(Finished(tmp_path, SCORES).summary(), ["The plan."], tmp_path)
    text = files[0].read_text()
    assert "Recommended: trial 5" in text and "The plan." in text
    assert "| baseline: equal | 60.0 (50.0 to 70.0) | 60.0 (50.0 to 70.0) |" in text
    assert "| baseline: equal | 25.0 (15.0 to 35.0) | 25.0 (15.0 to 35.0) |" in text
    assert "trial 4" in text and "the loss is nan" in text
    assert (
        "a score of 70.0% (60.0 to 80.0) on the selection split and 25.0% (15.0 to 35.0) on the "
        "report split" in text
    )
    assert "## Methods" not in text  # one way of scoring: the tables above say all
    assert [file.name for file in files[1:]] == ["report.html", "share_of_synthetic.png"]
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_a_trial_that_was_stopped_early_is_not_told_as_failed(tmp_path: Path) -> None:
    stopping = {"search__trials": 7, "search__early_stopping": STOPPING}
    summary = Finished(tmp_path, {**SCORES, 6: STOPPED}, **stopping).summary()
    failures = write_report(summary, [], tmp_path)[0].read_text().split("## Failed")[1]
    failures, stopped = failures.split("## Stopped early")
    assert "trial 4" in failures and "trial 6" not in failures
    assert "5 of 6 trials stood better by their score when 50% of the alignment" in stopped


def test_the_table_of_methods_is_ordered_by_dataset_then_way_and_ends_with_the_means() -> None:
    def row(name: str, **results: dict[str, float]) -> dict[str, Any]:
        scored = {
            kind: {dataset: {"accuracy": accuracy} for dataset, accuracy in by_dataset.items()}
            for kind, by_dataset in results.items()
        }
        return {"name": name, "score": 0.5 if results else None, "results": scored}

    lines = method_table(
        [
            row("whole", probe={"a": 0.1, "b": 0.3}, finetune={"a": 0.5, "b": 0.9}),
            row("in part", probe={"a": 0.2, "b": 0.4}, finetune={"a": 0.6}),
            row("failed"),
        ],
        ["a", "b"],
    )
    assert [line for line in lines if line.startswith("| ")] == [
        "| method | a probe | a FT | b probe | b FT | mean probe | mean FT |",
        "| whole | 10.0 | 50.0 | 30.0 | 90.0 | 20.0 | 70.0 |",
        "| in part | 20.0 | 60.0 | 40.0 |  | 30.0 |  |",
    ]


def test_without_a_complete_trial_nothing_is_recommended_and_it_says_so(tmp_path: Path) -> None:
    finished = Finished(tmp_path, {})
    summary = finished.summary()
    assert summary["recommended"] is None
    assert write_weights(summary, finished.store, tmp_path) == []
    assert "nothing is recommended" in write_report(summary, [], tmp_path)[0].read_text()


FINETUNE = {
    "epochs": 1,
    "drop_path": 0.0,
    "label_smoothing": 0.0,
    "max_unreadable": 0.0,
    "augment": AUGMENT,
    "mixup": None,
    "optimizer": OPTIMIZER,
}


def test_a_table_of_given_points_has_every_way_of_scoring_on_the_report_split(
    tmp_path: Path,
) -> None:
    points = [{"name": "seed one", "set": {"seed": 1}}, {"name": "seed two", "set": {"seed": 2}}]
    finished = Finished(
        tmp_path,
        {0: 0.5, 1: 0.75},
        search__space=None,
        search__trials=None,
        search__baselines=False,
        search__points=points,
        trial__finetune=FINETUNE,
    )
    write_report(finished.summary(), [], tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "| method | low probe | low FT | mean probe | mean FT |" in report
    assert "| seed one | 25.0 | 25.0 | 25.0 | 25.0 |" in report
    assert "| seed two | 25.0 | 25.0 | 25.0 | 25.0 |" in report


def test_the_curve_of_an_average_has_every_coefficient_though_one_was_tried(
    tmp_path: Path,
) -> None:
    finished = Finished(
        tmp_path,
        {0: 0.5},
        search__space=None,
        search__trials=None,
        search__baselines=False,
        search__points=[{"name": "half", "set": {"average.method": "interpolate"}}],
        trial__average__scored_together=[0.0, 0.5, 1.0],
    )
    (curve,) = finished.summary()["curves"]
    assert [point["coefficient"] for point in curve["points"]] == [0.5]
    done = {stage.identity for stage in curve_stages(finished.search, finished.data)}
    assert len(done) == 3
    for stage in curve_stages(finished.search, finished.data):
        finished.publish(stage, accuracy=0.75)
    summary = finished.summary()
    (curve,) = summary["curves"]
    assert [point["coefficient"] for point in curve["points"]] == [0.0, 0.5, 1.0]
    assert [point["scores"]["low"] for point in curve["points"]] == [0.75, 0.5, 0.75]
    names = [path.name for path in write_report(summary, [], tmp_path)]
    assert "averaging_curve_1.png" in names


def test_a_search_runs_what_its_score_needs_and_leaves_the_rest_to_what_is_reported(
    tmp_path: Path,
) -> None:
    finished = Finished(tmp_path, SCORES, trial__finetune=FINETUNE)
    suggested = finished.search.records[5]
    assert suggested.origin == "suggested"
    stages = trial_stages(finished.search.config(suggested), finished.data)
    searched = {stage.kind for stage in stages.searched()}
    assert searched == {"init", "mae", "align", "features", "probe"}
    reported = [s for s in report_stages(finished.search, finished.data) if s.kind == "evaluate"]
    of_finetuning = {stage.inputs["model"].inputs["weights"].identity for stage in reported}
    best = max(SCORES, key=lambda number: SCORES[number])
    for record in finished.search.records:
        weights = trial_stages(finished.search.config(record), finished.data).weights
        given = record.origin == "baseline"
        if record.state == "complete" and (given or record.number == best):
            assert weights.identity in of_finetuning, record.name
    assert {stage.settings["split"] for stage in reported} == {"selection", "report"}


def test_trials_that_average_the_same_weights_share_one_curve_with_every_coefficient(
    tmp_path: Path,
) -> None:
    def point(name: str, method: str, coefficient: float, **more: Any) -> dict[str, Any]:
        settings = {"average.method": method, "average.coefficient": coefficient, **more}
        return {"name": name, "set": settings}

    finished = Finished(
        tmp_path,
        {0: 0.5, 1: 0.5, 2: 0.5},
        search__space=None,
        search__trials=None,
        search__baselines=False,
        search__points=[
            point("between those scored together", "interpolate", 0.25),
            point("the same weights", "interpolate", 0.75, **{"probe.l2_grid": [2.0]}),
            point("no average", "none", 0.5),
            point("failed", "interpolate", 0.5, seed=1),
        ],
        trial__average__scored_together=[0.0, 1.0],
    )
    finished.publish(*curve_stages(finished.search, finished.data), accuracy=0.5)
    (curve,) = finished.summary()["curves"]
    assert [point["coefficient"] for point in curve["points"]] == [0.0, 0.25, 1.0]


def test_the_report_says_what_sharing_saved_and_what_hangs_on_what(tmp_path: Path) -> None:
    scores = {**SCORES, 6: 0.2, 7: 0.3}
    summary = Finished(tmp_path, scores, search__trials=8).summary()
    uses = sum(len(trial["stages"]) for trial in summary["trials"])
    lines = sharing_lines(summary)
    assert f"{summary['counts']['stages']} stages served {uses} uses" in lines[2]
    assert (
        duration(2.0 * uses) in lines[2] and duration(2.0 * summary["counts"]["stages"]) in lines[2]
    )
    mae = next(line for line in lines if line.startswith("- mae"))
    aligned = [line for line in lines if line.startswith("  - align")]
    assert "trials**" in mae and len(aligned) > 2


def test_the_recommendation_has_the_interval_of_the_laws_and_its_price_in_money(
    tmp_path: Path,
) -> None:
    law = {"weights": None, "kl_to_natural": 0.0, "last_trials": 0}
    scores = {**SCORES, 4: 0.55, 6: 0.52, 7: 0.45}
    summary = Finished(
        tmp_path,
        scores,
        search__trials=8,
        search__law=law,
        execution__device_price_per_hour=1800.0,
    ).summary()
    best = summary["recommended"]
    trial = next(each for each in summary["trials"] if each["number"] == best["trial"])
    assert best["money"] == alone_seconds(trial) / 2
    shares = next(t["shares"] for t in summary["law"]["trials"] if t["number"] == best["trial"])
    point = next(each for each in summary["law"]["curve"] if each["shares"] == shares)
    mean, low, high = point["mean"]
    answer = next(
        line
        for line in write_report(summary, [], tmp_path)[0].read_text().splitlines()
        if line.startswith("> **Recommended")
    )
    expected = f"Of its mix the laws expect {mean:.1%} ({100 * low:.1f} to {100 * high:.1f})"
    assert f"{expected} on the selection split. Trained alone it costs" in answer
    assert f"{alone_seconds(trial):.0f} s ({best['money']:,.2f}) of device time" in answer


def test_a_recommendation_by_the_worst_dataset_has_no_interval(tmp_path: Path) -> None:
    summary = Finished(tmp_path, SCORES, trial__score__combine="min").summary()
    report = write_report(summary, [], tmp_path)[0].read_text()
    assert "with a score of 70.0% on the selection split and 25.0% on the report split." in report


def test_runs_hang_on_the_trunk_that_they_branch_off(tmp_path: Path) -> None:
    points = [{"name": f"{n}", "set": {"align.epochs": n}} for n in (4, 8)]
    points.append({"name": "8 again", "set": {"align.epochs": 8, "align.optimizer.lr_end": 1e-5}})
    shared = {f"trial__{key}": value for key, value in {**HORIZON_FREE, "mae__epochs": 1}.items()}
    whole = {"search__baselines": False, "search__points": points, "search__trials": 3, **shared}
    summary = Finished(tmp_path, {0: 0.4, 1: 0.5, 2: 0.6}, **whole).summary()
    lines = sharing_lines(summary)[4:-1]
    depths = [(len(line) - len(line.lstrip()), line.split()[1]) for line in lines]
    assert depths == [
        (0, "mae"),
        (2, "align_trunk"),  # of both runs of 8 epochs
        (4, "align"),
        (4, "align"),
        (2, "align_trunk"),
        (4, "align"),
    ]
    assert not any(", with" in line for line in lines)  # the MAE, which the trunk hangs on


def test_a_trunk_that_goes_on_from_a_shorter_one_costs_a_trial_alone_all_of_it(
    tmp_path: Path,
) -> None:
    # Runs of 8 and 16 steps decay from 6 and 12 on; 4 clips a step.
    points = [{"name": f"{n} epochs", "set": {"align.epochs": n}} for n in (4, 8)]
    shared = {f"trial__{key}": value for key, value in HORIZON_FREE.items()}
    whole = {"search__baselines": False, "search__points": points, "search__trials": 2, **shared}
    finished = Finished(tmp_path, {0: 0.4, 1: 0.5}, search__objectives=["score", "gpu_hours"],
                        **whole)  # fmt: skip
    short, long = sorted(finished.summary()["trials"], key=lambda trial: trial["number"])
    # The longer trunk went on from the shorter one: it was charged 24 clips and 2 s.
    (trunk,) = [each for each in long["stages"].values() if each["kind"] == "align_trunk"]
    assert trunk["cost"] == {"device_seconds": 2.0, "clips": 24.0}
    assert trunk["alone"] == {"device_seconds": 4.0, "clips": 48.0}
    assert long["device_seconds"] == short["device_seconds"] + 2.0
    assert alone_seconds(long) == alone_seconds(short) + 2.0
    assert finished.summary()["pareto"]["points"]["1"][1] == long["device_seconds"] / 3600


def test_trunks_that_a_run_follows_one_after_the_other_cost_it_no_more(tmp_path: Path) -> None:
    trial = toy_trial(**HORIZON_FREE, align__epochs=8, align__branch_epochs=[4])
    store, chain = StageStore(tmp_path), list(trial_stages(trial, toy_data()).weights.chain())
    for stage in chain:
        clips = 24.0 if stage.kind == "align_trunk" else 8.0
        store.publish(stage, write={}, metrics={}, cost={"device_seconds": clips, "clips": clips})
    stages = {stage.identity: stage.identity for stage in chain}
    assert sum(stage.kind == "align_trunk" for stage in chain) == 2
    assert device_seconds(store, stages) == 24 + 24 + 8 * (len(stages) - 2)


def test_many_stages_of_one_parent_are_counted_rather_than_listed(tmp_path: Path) -> None:
    trials = [
        {
            "number": number,
            "stages": {
                "a" * 16: {"kind": "mae", "what": "", "inputs": {}, "cost": {}, "alone": {}},
                f"{number:016d}": {
                    "kind": "align",
                    "what": "",
                    "inputs": {"start": "a" * 16},
                    "cost": {},
                    "alone": {},
                },
            },
        }
        for number in range(40)
    ]
    lines = sharing_lines({"trials": trials})
    assert sum(line.startswith("  - align") for line in lines) == MOST_CHILDREN
    assert f"  - and {40 - MOST_CHILDREN} more, of {40 - MOST_CHILDREN} trials" in lines


def test_the_report_has_what_each_mixture_was_asked_for_and_what_came(tmp_path: Path) -> None:
    report = write_report(Finished(tmp_path, SCORES).summary(), [], tmp_path)[0].read_text()
    rows = [line for line in report.splitlines() if line.startswith("| align")]
    assert any("| scenes | 50 % | 50 | 50.00 % | 1.50 | 2 |" in row for row in rows)
    assert any("| synthetic | 50 % | 50 | 50.00 % | 1.50 | 0 |" in row for row in rows)


def test_the_interval_of_a_mean_over_datasets_is_narrower_than_theirs() -> None:
    config = toy_trial(downstream=["low", "high"])
    spans = {"low": [0.4, 0.6], "high": [0.6, 0.8]}
    low, high = _score_interval(config, 0.6, spans) or (0.0, 0.0)
    assert low == pytest.approx(0.6 - 0.1 / 2**0.5) and high == pytest.approx(0.6 + 0.1 / 2**0.5)
    assert _score_interval(config, 0.6, {"low": [0.4, 0.6]}) is None
    worst = toy_trial(downstream=["low", "high"], score__combine="min")
    assert _score_interval(worst, 0.5, spans) is None


def test_while_a_sweep_runs_its_report_is_written_again_as_trials_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_report, "WRITE_SECONDS", 0.01)
    sweep = Sweep(write_toy_sweep(tmp_path), {})
    space = load_space(tmp_path / "space.yaml")
    search = Search(
        sweep, space, given_trials(sweep, space, {"synthetic": 1, "scenes": 1}), toy_data()
    )
    written: list[int] = []

    def write() -> None:
        written.append(sum(record.finished for record in search.records))
        if len(written) == 1:
            raise OSError("the storage refuses")

    report = live_report.LiveReport(search, write)
    report.start()
    for ended in (1, 2):  # the first is written twice: see above
        assignment = search.ask()
        assert assignment is not None
        search.failed(assignment.number, "no reason")
        deadline = time.monotonic() + 30
        while written.count(ended) < 3 - ended:  # it runs beside us
            assert time.monotonic() < deadline
            time.sleep(0.01)
    report.stop()
    assert written[:2] == [1, 1]  # what could not be written is written again
    assert written[-1] == 2 and len(written) == 3  # nothing new, nothing written


def test_a_report_of_a_sweep_that_runs_says_how_far_it_is(tmp_path: Path) -> None:
    finished = Finished(tmp_path, SCORES)
    ended = write_report(finished.summary(), [], tmp_path)[0].read_text()
    more = Sweep(tmp_path / "sweep.yaml", {"search.trials": 10})
    space = load_space(tmp_path / "space.yaml")
    given = given_trials(more, space, {"synthetic": 16, "scenes": 8})
    finished.sweep, finished.search = more, Search(more, space, given, finished.data)
    runs = write_report(finished.summary(), [], tmp_path)[0].read_text()
    assert "6 of 10 trials have ended" in runs and "have ended" not in ended
