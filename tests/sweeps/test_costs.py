from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.planning import costs as costs_module
from sweeps.planning.costs import StageCosts, rate_key
from tests.sweeps.test_plan import costs_at, finish
from tests.toy import toy_data, toy_trial
from trainables.models.flops import classification_flops
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

SHARED = {
    "mae__epochs": 0,
    "align__optimizer__lr_schedule": "constant_then_decay",
    "align__optimizer__warmup_fraction": None,
    "align__optimizer__warmup_clips": 0,
    "align__optimizer__decay_fraction": 0.25,
}


def kinds(found: dict[str, float], **trial: Any) -> list[str]:
    """Of the stages in `found`, in order."""
    stages = {s.identity: s for s in trial_stages(toy_trial(**trial), toy_data()).all()}
    return [stages[identity].kind for identity in found]


def align_of(**trial: Any) -> Stage:
    return trial_stages(toy_trial(**trial), toy_data()).weights


def test_a_trial_costs_what_is_left_after_what_is_there_and_what_others_bring(
    tmp_path: Path,
) -> None:
    all_of_it = costs_at(tmp_path).left(toy_trial())
    assert kinds(all_of_it) == ["init", "mae", "align", "features", "features", "probe"]
    align = align_of()
    finish(align.inputs["start"], StageStore(tmp_path))
    costs = costs_at(tmp_path)
    # The random start is not there, and nothing that is to be made needs it.
    assert kinds(costs.left(toy_trial())) == ["align", "features", "features", "probe"]
    left = costs.left(toy_trial(), coming={align.identity: align})
    assert kinds(left) == ["features", "features", "probe"]


def test_what_is_finished_meanwhile_is_seen_after_a_refresh(tmp_path: Path) -> None:
    costs = costs_at(tmp_path)
    finish(align_of(), StageStore(tmp_path))
    assert "align" in kinds(costs.left(toy_trial()))
    costs.refresh()
    assert kinds(costs.left(toy_trial())) == ["features", "features", "probe"]


def test_a_refresh_works_out_what_is_new_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sweep with a budget refreshes before each trial, at the last of them with all their stages.
    store, keyed = StageStore(tmp_path), list[str]()
    for seed in range(10):
        finish(align_of(seed=seed), store)
    found = costs_at(tmp_path)
    monkeypatch.setattr(costs_module, "rate_key", lambda *a: keyed.append(a[0]) or rate_key(*a))
    finish(align_of(seed=10), store, seconds=200)
    found.refresh()
    assert keyed == ["align"]
    assert found.price(align_of(seed=11)) == pytest.approx((2.0, "timed"))  # the median
    assert found.price(align_of(seed=10)) == pytest.approx((200.0, "timed"))


def test_what_was_never_timed_is_priced_by_its_flops_at_the_speed_of_what_was(
    tmp_path: Path,
) -> None:
    align = align_of()
    finish(align, StageStore(tmp_path), seconds=2.0, clips=16)
    costs = costs_at(tmp_path, device_teraflops=1e-6)  # what was timed counts for more
    settings = align.settings
    each = classification_flops(settings["model"], settings["clip"], frozen=False)
    features = next(s for s in trial_stages(toy_trial(), toy_data()).all() if s.kind == "features")
    forward = classification_flops(settings["model"], settings["clip"], frozen=True)
    assert each and forward
    assert costs.price(features) == pytest.approx((8 * forward / (each * 16 / 2.0), "by FLOPs"))


def test_before_anything_was_timed_the_stated_speed_prices_it(tmp_path: Path) -> None:
    align = align_of()
    each = classification_flops(align.settings["model"], align.settings["clip"], frozen=False)
    assert each
    costs = costs_at(tmp_path, device_teraflops=1e-6)
    assert costs.price(align) == pytest.approx((16 * each / 1e6, "by FLOPs"))
    assert costs_at(tmp_path).price(align) is None
    ratios = costs_at(tmp_path).left(toy_trial())  # still tells what costs more
    assert ratios[align.identity] == pytest.approx(16 * each / 1e12)


def test_a_longer_run_costs_its_decay_and_what_its_trunk_still_lacks(tmp_path: Path) -> None:
    # 8 and 16 steps; the decays begin at 6 and 12; 4 clips a step, 8 clips an epoch.
    def costs() -> StageCosts:
        return costs_at(tmp_path, clips_per_second={"align": 1.0, "tasks": 1e9})

    def left(epochs: int, **changes: Any) -> float:
        trial = {**SHARED, "align__epochs": epochs, **changes}
        found = costs().left(toy_trial(**trial))
        return sum(found.values())

    assert left(8) == pytest.approx(64)
    finish(align_of(**SHARED, align__epochs=4).inputs["trunk"], StageStore(tmp_path), 24, 24)
    assert left(4) == pytest.approx(8)
    assert left(8) == pytest.approx((12 - 6) * 4 + 16)
    # A trunk that is made in passing costs nothing beside the longer one.
    assert left(8, align__branch_epochs=[6]) == left(8)


def test_a_longer_trunk_goes_on_from_the_one_that_another_trial_trains(tmp_path: Path) -> None:
    costs = costs_at(tmp_path, clips_per_second={"align": 1.0, "tasks": 1e9})
    short, long = (align_of(**SHARED, align__epochs=n).inputs["trunk"] for n in (4, 8))
    trial = toy_trial(**SHARED, align__epochs=8)
    assert costs.left(trial, {short.identity: short})[long.identity] == (12 - 6) * 4
    # One that is longer is no help: it may have gone past.
    shorter = toy_trial(**SHARED, align__epochs=4)
    assert costs.left(shorter, {long.identity: long})[short.identity] == 6 * 4


def test_a_trunk_that_went_on_from_another_trials_costs_its_whole_way_alone(
    tmp_path: Path,
) -> None:
    short, long = (align_of(**SHARED, align__epochs=n).inputs["trunk"] for n in (4, 8))
    finish(short, StageStore(tmp_path), 24, 24)  # seconds, clips: steps 1 to 6
    finish(long, StageStore(tmp_path), 24, 24)  # 7 to 12
    costs = costs_at(tmp_path)
    assert costs.price(long) == pytest.approx((24, "timed"))
    assert costs.alone(short) == pytest.approx((24, "timed"))
    assert costs.alone(long) == pytest.approx((48, "timed"))
