from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.planning.trunk_states import give_up_states
from tests.sweeps.test_plan import HORIZON_FREE, costs_at, finish
from tests.toy import toy_data, toy_trial
from trainables.config import TrialConfig
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


@dataclass
class Trials:
    """As much of a search as is asked for."""

    records: list[TrialConfig]

    def config(self, record: TrialConfig) -> TrialConfig:
        return record


def run_of(epochs: int, **changes: Any) -> tuple[TrialConfig, Stage, Stage]:
    """A trial, its alignment, and the trunk of that."""
    trial = toy_trial(**HORIZON_FREE, align__epochs=epochs, **changes)
    align = trial_stages(trial, toy_data()).weights
    return trial, align, align.inputs["trunk"]


def test_what_no_length_branches_from_any_more_is_given_up_and_the_longest_is_kept(
    tmp_path: Path,
) -> None:
    store = StageStore(tmp_path)
    runs = [run_of(epochs, align__branch_epochs=[4, 6, 8]) for epochs in (4, 8)]
    not_tried = run_of(6)[2]
    for _, align, trunk in runs:
        finish(trunk, store, seconds=2.0, clips=24)
        finish(align, store)
    finish(not_tried, store)
    said = give_up_states(Trials([trial for trial, _, _ in runs]), toy_data(), store)  # type: ignore[arg-type]
    assert said is not None and said.startswith("gave up 1 training states")
    shorter, longer = runs[0][2], runs[1][2]
    kept = [store.finished(each.identity) is not None for each in (shorter, not_tried, longer)]
    assert kept == [False, True, True]
    assert store.trunks(longer.line) == {9: not_tried.identity, 12: longer.identity}
    assert give_up_states(Trials([trial for trial, _, _ in runs]), toy_data(), store) is None  # type: ignore[arg-type]


def test_what_was_given_up_costs_nothing_until_something_needs_it_again(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    trial, align, trunk = run_of(4)
    finish(trunk, store, seconds=2.0, clips=24)
    finish(align, store)
    store.give_up(trunk.identity)
    assert align.identity not in costs_at(tmp_path).left(trial)
    assert trunk.identity not in costs_at(tmp_path).left(trial)
    decays_otherwise, _, _ = run_of(4, align__optimizer__lr_end=1e-5)
    assert trunk.identity in costs_at(tmp_path).left(decays_otherwise)
    record = store.record(trunk.identity)
    assert record is not None and record.cost == {"device_seconds": 2.0, "clips": 24}
    finish(trunk, store, seconds=3.0, clips=24)  # trained again
    found = store.finished(trunk.identity)
    assert found is not None and found.cost == {"device_seconds": 5.0, "clips": 48}
