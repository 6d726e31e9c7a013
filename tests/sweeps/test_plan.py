from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.costs import StageCosts
from sweeps.planning.forecast import tasks_of
from sweeps.planning.plan import make_plan
from sweeps.planning.plan_lines import plan_lines, state_bytes
from sweeps.planning.stage_facts import repetition
from sweeps.sweep import ExecutionSettings
from tests.toy import AUGMENT, OPTIMIZER, toy_data, toy_sweep_data, toy_trial
from trainables.models.flops import parameters
from trainables.settings import parse
from trainables.stage import TRUNKS
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

FINETUNE = {
    "epochs": 1,
    "drop_path": 0.0,
    "label_smoothing": 0.0,
    "max_unreadable": 0.01,
    "augment": AUGMENT,
    "mixup": None,
    "optimizer": OPTIMIZER,
}


def plan_of(tmp_path: Path, to_suggest: int = 0, **trials: dict[str, Any]):
    known = {i: (name, toy_trial(**o)) for i, (name, o) in enumerate(trials.items())}
    return make_plan(known, to_suggest, toy_data(), costs_at(tmp_path))


def costs_at(folder: Path, **changes: Any) -> StageCosts:
    """Of the stages in `folder`; keyword `device_teraflops=1` changes the sweep's execution."""
    settings = {**toy_sweep_data()["execution"], **changes}
    return StageCosts(toy_data(), StageStore(folder), parse(ExecutionSettings, settings, ""))


def finish(stage, store: StageStore, seconds: float = 2.0, clips: float = 16) -> None:
    cost = {"device_seconds": seconds, "clips": clips}
    write = {"state.pt": lambda file: file.write(b"state")} if stage.kind in TRUNKS else {}
    store.publish(stage, write=write, metrics={}, cost=cost)


def kinds_with_trials(plan) -> list[tuple[str, list[int]]]:
    return [(p.stage.kind, p.trials) for p in plan.stages if p.stage.kind in ("mae", "align")]


def test_a_stage_that_two_trials_need_is_planned_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, first={}, second={"align__epochs": 3})
    assert kinds_with_trials(plan) == [("mae", [0, 1]), ("align", [0]), ("align", [1])]
    assert "2 trials are known and stand on 10 stages (without sharing: 12)" in plan_lines(plan)[0]


def test_of_a_trial_that_is_not_reported_only_its_score_is_planned(tmp_path: Path) -> None:
    # PPMA's fine-tuning is for the baselines, the points and the best, and not for each trial.
    trials = {n: (str(n), toy_trial(seed=n, finetune=FINETUNE)) for n in range(2)}
    plan = make_plan(trials, 0, toy_data(), costs_at(tmp_path), reported={0})
    assert [p.trials for p in plan.stages if p.stage.kind == "finetune"] == [[0]]
    assert [p.trials for p in plan.stages if p.stage.kind == "probe"] == [[0], [1]]
    assert len([p for p in plan.missing if p.stage.kind == "finetune"]) == 1
    everything = make_plan(trials, 0, toy_data(), costs_at(tmp_path))
    assert len([p for p in everything.missing if p.stage.kind == "finetune"]) == 2


def test_what_is_made_from_weights_that_no_known_trial_trains_is_not_planned(
    tmp_path: Path,
) -> None:
    plans = []
    for seed in (0, 1):
        stages = trial_stages(toy_trial(seed=seed, probe__neighbours=1), toy_data()).scored["low"]
        beside = [*stages.inputs.values(), stages]
        known = {0: ("known", toy_trial())}
        plans.append(make_plan(known, 0, toy_data(), costs_at(tmp_path), None, beside))
    ours, anothers = ({p.stage.kind for p in plan.stages if not p.trials} for plan in plans)
    assert ours == {"probe"} and anothers == set()


def test_what_no_score_needs_is_scheduled_after_the_trials(tmp_path: Path) -> None:
    trials = {n: (str(n), toy_trial(seed=n, finetune=FINETUNE)) for n in range(2)}
    rates = dict.fromkeys(("mae", "align", "finetune", "tasks"), 1.0)
    plan = make_plan(trials, 0, toy_data(), costs_at(tmp_path, clips_per_second=rates))
    tasks = tasks_of(plan.missing)
    assert tasks is not None
    kinds = {planned.stage.identity: planned.stage.kind for planned in plan.missing}
    last = {kinds[name] for name, task in tasks.items() if list(task.trials) == [2]}
    assert last == {"finetune", "evaluate"}


def test_what_is_finished_is_cached_and_what_is_not_is_priced_by_it(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    done = trial_stages(toy_trial(), toy_data()).weights
    finish(done, store, seconds=2.0, clips=16)
    plan = plan_of(tmp_path, first={}, second={"align__epochs": 4})
    align = [planned for planned in plan.stages if planned.stage.kind == "align"]
    assert [planned.cached for planned in align] == [True, False]
    assert align[1].clips == 32 and align[1].price == pytest.approx((4.0, "timed"))


def test_the_price_says_what_it_does_not_know(tmp_path: Path) -> None:
    assert plan_lines(plan_of(tmp_path, a={}))[-1] == (
        "To do for the known trials: 36 clips; init and probe never timed, not counted; align and "
        "features and mae not timed yet."
    )
    finish(trial_stages(toy_trial(), toy_data()).weights, StageStore(tmp_path))
    assert plan_lines(plan_of(tmp_path, a={"align__epochs": 4}))[-1] == (
        "To do for the known trials: 52 clips; about 5 s of device time; features and mae by "
        "FLOPs; init and probe never timed, not counted; align timed."
    )


def test_probes_that_were_never_timed_are_said_to_be_left_out_and_then_counted(
    tmp_path: Path,
) -> None:
    given = {"clips_per_second": {"mae": 1.0, "align": 1.0, "tasks": 1.0}}
    plan = make_plan({0: ("a", toy_trial())}, 0, toy_data(), costs_at(tmp_path, **given))
    said = plan_lines(plan)[-1]
    assert "about 36 s of device time" in said
    assert "init and probe never timed, not counted" in said
    other = trial_stages(toy_trial(seed=1), toy_data()).scored["low"]
    finish(other, StageStore(tmp_path), seconds=20.0, clips=0)
    plan = make_plan({0: ("a", toy_trial())}, 0, toy_data(), costs_at(tmp_path, **given))
    said = plan_lines(plan)[-1]
    assert "about 56 s of device time" in said
    assert "init never timed, not counted; probe timed" in said


def test_a_mix_that_changes_the_length_of_training_is_marked(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, a={"align__clips_per_epoch": "sum_of_sources"})
    assert "NOT budget-neutral" in plan_lines(plan)[-1]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, {"synthetic": 0.5, "scenes": 1.0}), (1.0, {"synthetic": 1.0}), (0.0, {"scenes": 2.0})],
)
def test_repetition_is_shown_for_each_source(share: float, expected: dict[str, float]) -> None:
    trial = toy_trial(align__mixture__shares={"synthetic": share, "scenes": 1 - share})
    assert repetition(trial_stages(trial, toy_data()).weights, toy_data()) == expected


def test_matched_repetition_is_the_same_at_every_share() -> None:
    def shown(share: float) -> set[float]:
        trial = toy_trial(
            align__mixture__shares={"synthetic": share, "scenes": 1 - share},
            align__mixture__match_repetition=True,
        )
        return set(repetition(trial_stages(trial, toy_data()).weights, toy_data()).values())

    assert shown(0.0) == shown(0.25) == shown(0.5) == shown(1.0) == {2.0}


def test_given_throughput_prices_what_was_never_timed(tmp_path: Path) -> None:
    rates = {"mae": 4.0, "align": 2.0, "tasks": 10.0}
    costs = costs_at(tmp_path, clips_per_second=rates)
    plan = make_plan({0: ("a", toy_trial())}, 0, toy_data(), costs)
    seconds = {
        p.stage.kind: p.price.seconds for p in plan.stages if p.stage.kind in ("mae", "align")
    }
    assert seconds == {"mae": 8 / 4, "align": 16 / 2}
    assert "not timed" not in plan_lines(plan)[-1]


def test_the_views_and_coefficients_of_a_pass_are_all_counted(tmp_path: Path) -> None:
    views = {"test": {"clips": 2, "crops": 3}}
    together = {"average__method": "interpolate", "average__scored_together": [0.25, 0.5, 0.75]}
    plan = plan_of(tmp_path, a={**views, **together})
    features = [p.clips for p in plan.stages if p.stage.kind == "features"]
    assert features == [8 * 3, 4 * 6 * 3]  # 8 training clips seen once, 4 for selection 6 times


HORIZON_FREE = {
    "mae__epochs": 0,
    "align__optimizer__lr_schedule": "constant_then_decay",
    "align__optimizer__warmup_fraction": None,
    "align__optimizer__warmup_clips": 0,
    "align__optimizer__decay_fraction": 0.25,
}


def test_lengths_share_a_trunk_in_the_plan_and_each_step_is_counted_once(tmp_path: Path) -> None:
    # 8 and 16 steps of 4 clips: the decays begin at 6 and 12.
    lengths = {f"{n} epochs": {**HORIZON_FREE, "align__epochs": n} for n in (4, 8)}
    plan = plan_of(tmp_path, **lengths)
    found = {p.what: p for p in plan.stages if p.stage.kind == "align_trunk"}
    shares = "0.5 synthetic + 0.5 scenes"
    shorter, longer = found[f"{shares} to step 6"], found[f"{shares} to step 12"]
    assert (shorter.clips, longer.clips) == (24, 24)
    assert longer.waits_for[-1] == shorter.stage.identity
    assert plan.alone_clips - sum(p.clips for p in plan.stages) == 24
    assert any("Trunks keep 2 training states" in line for line in plan_lines(plan))


def test_under_a_cosine_the_plan_says_that_lengths_share_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, a={"align__epochs": 2}, b={"align__epochs": 3})
    assert plan.lengths[0].startswith("align: runs of 2, 3 epochs share nothing")
    assert "constant_then_decay" in plan_lines(plan)[-1]
    assert not plan_of(tmp_path, a={}, b={}).lengths


def test_the_plan_names_the_lengths_whose_trunk_may_be_trained_again(tmp_path: Path) -> None:
    def lengths(*branch_epochs: int) -> list[str]:
        shared = {**HORIZON_FREE, "align__branch_epochs": list(branch_epochs)}
        known = {f"{n} epochs": {**shared, "align__epochs": n} for n in (4, 8)}
        return plan_of(tmp_path, **known).lengths

    assert lengths(4, 8) == lengths(4) == []
    assert lengths(8)[0].startswith("align.branch_epochs lacks 4:")


def test_the_state_of_a_trunk_is_what_it_takes_on_disk(tmp_path: Path) -> None:
    trial = toy_trial(**HORIZON_FREE, align__epochs=4, align__keep__ema_decay=0.9)
    plan = make_plan({0: ("a", trial)}, 0, toy_data(), costs_at(tmp_path))
    (trunk,) = [p for p in plan.stages if p.stage.kind == "align_trunk"]
    assert state_bytes(trunk) == parameters(trial.model.model_dump(), None) * (12 + 4)


def test_the_whole_price_is_told_with_and_without_sharing(tmp_path: Path) -> None:
    given = {"mae": 4.0, "align": 2.0, "tasks": 10.0}
    costs = costs_at(tmp_path, clips_per_second=given, device_price_per_hour=3600.0)
    trials = {0: ("a", toy_trial()), 1: ("b", toy_trial(align__epochs=4))}
    plan = make_plan(trials, 0, toy_data(), costs)
    # Stage 1 takes 2 s, alignments 8 and 16, features of 8 and 4 clips 1.2 for each.
    assert sum(p.price.seconds for p in plan.stages) == pytest.approx(2 + 8 + 16 + 2 * 1.2)
    assert plan.alone_seconds == pytest.approx(2 * 2 + 8 + 16 + 2 * 1.2)
    assert "28 s (28.40) of device time" in " ".join(plan_lines(plan))
