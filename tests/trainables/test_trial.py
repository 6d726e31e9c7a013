from __future__ import annotations

import pytest

from tests.toy import toy_data, toy_trial
from trainables.trial import TrialStages, trial_score, trial_stages


def kinds(trial) -> list[str]:
    return [stage.kind for stage in trial_stages(trial, toy_data()).all()]


def identity(kind: str, **overrides) -> str:
    stages = trial_stages(toy_trial(**overrides), toy_data()).all()
    (found,) = [stage.identity for stage in stages if stage.kind == kind]
    return found


def test_a_trial_is_mae_then_align_then_features_then_probe() -> None:
    assert kinds(toy_trial()) == ["init", "mae", "align", "features", "features", "probe"]


def test_zero_epochs_skip_a_stage_and_leave_random_weights() -> None:
    assert "mae" not in kinds(toy_trial(mae__epochs=0))
    assert kinds(toy_trial(mae__epochs=0, align__epochs=0))[0] == "init"
    assert "align" not in kinds(toy_trial(align__epochs=0))


def test_the_endpoints_of_an_average_are_the_stages_of_the_unmixed_trials() -> None:
    averaged = trial_stages(toy_trial(average__method="interpolate"), toy_data())
    endpoints = {s.identity for s in averaged.weights.inputs.values()}
    alone = {
        identity("align", align__mixture__shares={"synthetic": 1, "scenes": 0}),
        identity("align", align__mixture__shares={"scenes": 1.0}),
    }
    assert endpoints == alone


def test_shares_written_differently_are_the_same_stage() -> None:
    written = [
        {"synthetic": 0.5, "scenes": 0.5},
        {"scenes": "0.50", "synthetic": 0.5},
    ]
    found = {identity("align", align__mixture__shares=shares) for shares in written}
    assert len(found) == 1


def test_what_only_a_mix_can_tell_apart_is_one_stage_where_there_is_one_source() -> None:
    kinds = [
        {"align__head": head, "align__mixture__granularity": granularity}
        for head in ("union", "per_source", "by_index")
        for granularity in ("clip", "batch")
    ]
    alone, mixed = {"scenes": 1, "synthetic": 0}, {"scenes": 0.5, "synthetic": 0.5}
    for shares, stages in ((alone, 1), (mixed, len(kinds))):
        found = {identity("align", align__mixture__shares=shares, **kind) for kind in kinds}
        assert len(found) == stages
    mae = {identity("mae", mae__mixture__granularity=kind) for kind in ("clip", "batch")}
    assert len(mae) == 1


def test_the_mix_changes_neither_clips_nor_steps() -> None:
    def budget(shares):
        stages = trial_stages(toy_trial(align__mixture__shares=shares), toy_data())
        settings = stages.weights.settings["align"]
        return settings["epochs"], settings["clips_per_epoch"], settings["optimizer"]["batch_size"]

    assert len({budget({"synthetic": s, "scenes": 1 - s}) for s in (0.0, 0.25, 1.0)}) == 1


def test_sum_of_sources_makes_the_mix_change_the_length_as_released() -> None:
    def clips(shares):
        trial = toy_trial(align__clips_per_epoch="sum_of_sources", align__mixture__shares=shares)
        return trial_stages(trial, toy_data()).weights.settings["align"]["clips_per_epoch"]

    assert clips({"synthetic": 1}) == 16
    assert clips({"synthetic": 0.5, "scenes": 0.5}) == 24


def test_searching_reads_no_report_split() -> None:
    stages = trial_stages(toy_trial(), toy_data()).all()
    assert "report" not in {stage.settings.get("split") for stage in stages}


def test_the_report_split_reuses_the_features_that_the_search_extracted() -> None:
    search = {s.identity for s in trial_stages(toy_trial(), toy_data()).all()}
    report = list(trial_stages(toy_trial(), toy_data(), split="report").all())
    new = [(s.kind, s.settings["split"]) for s in report if s.identity not in search]
    assert new == [("features", "report"), ("probe", "report")]


def test_execution_is_no_part_of_a_trial() -> None:
    with pytest.raises(ValueError, match="unknown key"):
        toy_trial(execution={"workers": 2})


@pytest.mark.parametrize(("combine", "score"), [("mean", 0.5), ("min", 0.25)])
def test_the_score_combines_the_downstream_datasets(combine: str, score: float) -> None:
    trial = toy_trial(score__combine=combine, downstream=["a", "b"])
    assert trial_score(trial, {"a": 0.25, "b": 0.75}) == score


def test_matched_repetition_depends_on_every_source_so_all_are_part_of_the_stage() -> None:
    def align(shares):
        trial = toy_trial(
            align__mixture__match_repetition=True, align__mixture__shares=shares, mae__epochs=0
        )
        return trial_stages(trial, toy_data()).weights

    alone = align({"scenes": 1, "synthetic": 0})
    assert set(alone.data) == {"scenes", "synthetic"}
    averaged = toy_trial(
        align__mixture__match_repetition=True, mae__epochs=0, average__method="interpolate"
    )
    endpoints = trial_stages(averaged, toy_data()).weights.inputs.values()
    assert alone.identity in {stage.identity for stage in endpoints}


ENDPOINTS = [{"mixture.shares": {"scenes": 1}}, {"mixture.shares": {"synthetic": 1}}, {"epochs": 1}]
METHODS = {  # method -> kinds of the stages that its weights are made of, and their number
    "uniform": ["align"] * 3,
    "model_stock": ["mae", *["align"] * 3],
    "greedy_soup": ["align"] * 3,
    "wise_ft": ["mae", "align"],
    "last_k": ["align"],
    "ema": ["align"],
    "posthoc_ema": ["align"],
}


@pytest.mark.parametrize("method", METHODS)
def test_an_average_stands_on_its_endpoints(method: str) -> None:
    keep = {"last": 1, "ema_decay": 0.9, "posthoc_ema": True}
    trial = toy_trial(average__method=method, average__endpoints=ENDPOINTS, align__keep=keep)
    weights = trial_stages(trial, toy_data()).weights
    assert [stage.kind for stage in weights.inputs.values()] == METHODS[method]


def test_a_learned_average_has_weights_of_its_own_for_each_dataset() -> None:
    finetune = toy_trial().align
    settings = {
        "epochs": 1,
        "drop_path": 0.0,
        "label_smoothing": 0.0,
        "max_unreadable": 0.0,
        "augment": finetune.augment.model_dump(),
        "mixup": None,
        "optimizer": finetune.optimizer.model_dump(),
    }
    data = toy_data()
    data["high"] = data["low"]
    trial = toy_trial(
        average__method="learned", augmented_probe=settings, downstream=["low", "high"]
    )
    stages = trial_stages(trial, data)
    assert stages.weights.settings["method"] == "uniform"
    assert [stage.kind for stage in stages.adapted.values()] == ["learned_average"] * 2
    learned = stages.adapted["low"]
    assert learned.inputs == stages.weights.inputs
    assert stages.results["probe"]["low"].inputs["train"].inputs["weights"] is learned


def test_coefficients_that_are_scored_together_share_their_features() -> None:
    def features(coefficient: float) -> set[str]:
        trial = toy_trial(
            average__method="interpolate",
            average__coefficient=coefficient,
            average__scored_together=[0.0, 0.5, 0.75, 1.0],
        )
        stages = trial_stages(trial, toy_data()).all()
        return {stage.identity for stage in stages if stage.kind == "features"}

    assert features(0.5) == features(0.75)
    assert features(0.25).isdisjoint(features(0.5))  # not on the list: a pass of its own


def test_a_coefficient_that_leaves_an_endpoint_out_does_not_train_it() -> None:
    def stages(method: str, coefficient: float) -> TrialStages:
        average = {"average__method": method, "average__coefficient": coefficient}
        together = {"average__scored_together": [0.0, 0.5, 1.0]}
        return trial_stages(toy_trial(**average, **together), toy_data())

    def alone(source: str) -> TrialStages:
        return trial_stages(toy_trial(align__mixture__shares={source: 1}), toy_data())

    for coefficient, source in ((0.0, "scenes"), (1.0, "synthetic")):
        ends = stages("interpolate", coefficient), alone(source)
        assert ends[0].scored == ends[1].scored
        assert list(ends[0].all()) == list(ends[1].all())
    assert stages("wise_ft", 0.0).weights.kind == "mae"
    assert stages("wise_ft", 1.0).scored == stages("none", 0.5).scored
    assert stages("wise_ft", 0.5).weights.kind == "average"
    one = trial_stages(
        toy_trial(average__method="interpolate", average__endpoints=[{}, {}]), toy_data()
    )
    assert one.scored == stages("none", 0.5).scored


def test_proportional_shares_follow_from_the_sizes() -> None:
    shares = {"synthetic": "proportional", "scenes": "proportional"}
    stage = trial_stages(toy_trial(align__mixture__shares=shares), toy_data()).weights
    found = stage.settings["align"]["mixture"]["shares"]
    assert found == {"scenes": "0.3333", "synthetic": "0.6667"}
    with pytest.raises(ValueError, match="either all are 'proportional' or none"):
        trial_stages(
            toy_trial(align__mixture__shares={"synthetic": "proportional", "scenes": 0.5}),
            toy_data(),
        )


def test_imported_weights_are_known_by_what_they_hold_and_not_by_their_path(tmp_path) -> None:
    def start(name: str, content: bytes):
        (tmp_path / name).write_bytes(content)
        trial = toy_trial(start={"weights": "huggingface", "path": str(tmp_path / name)})
        (stage,) = [s for s in trial_stages(trial, toy_data()).all() if s.kind == "import"]
        return stage

    first, same, other = start("a", b"1"), start("b", b"1"), start("c", b"2")
    assert first.identity == same.identity != other.identity
    assert first.where != same.where


def test_a_source_to_resample_that_is_no_dataset_is_refused_and_an_unused_one_is_not() -> None:
    for kind in ("mae", "align"):
        message = f"{kind}.mixture.resample: 'sintetic' is no dataset.*'synthetic'"
        with pytest.raises(ValueError, match=message):
            trial_stages(
                toy_trial(**{f"{kind}__mixture__resample": {"sintetic": [4, 4]}}), toy_data()
            )
    unused = toy_trial(align__mixture__resample={"low": [4, 4]})
    stages = [trial_stages(trial, toy_data()) for trial in (toy_trial(), unused)]
    assert stages[0].weights.identity == stages[1].weights.identity
