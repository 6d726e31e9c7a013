from __future__ import annotations

import pytest

from tests.toy import toy_data, toy_trial
from trainables.trial import trial_score, trial_stages


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
