from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.costs import StageCosts
from sweeps.planning.plan import Plan, make_plan
from sweeps.storage_use import StorageUse, added_lines, check_fits, size, storage_use, use_lines
from sweeps.sweep import ExecutionSettings
from tests.toy import toy_data, toy_sweep_data, toy_trial
from trainables.settings import parse
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


def finish(store: StageStore, stage: Stage, weights: int = 1000) -> None:
    cost = {"device_seconds": 1.0, "clips": 1.0}
    write: dict[str, Any] = {"weights.bin": lambda file: file.write(b"w" * weights)}
    store.publish(stage, write=write, metrics={}, cost=cost)


def planned(store: StageStore, **overrides: Any) -> Plan:
    settings = parse(ExecutionSettings, toy_sweep_data()["execution"], "")
    costs = StageCosts(toy_data(), store, settings)
    return make_plan({0: ("a", toy_trial(**overrides))}, 0, toy_data(), costs)


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    """A finished alignment and its features; one that runs; what a killed process left."""
    store = StageStore(tmp_path)
    weights = trial_stages(toy_trial(), toy_data()).weights
    finish(store, weights, 5000)
    finish(store, Stage(kind="features", settings={"dataset": "low"}), 700)
    store.checkpoint("running").write("last.pt", b"c" * 300)
    store.snapshots("running").write("epoch_1-ab.safetensors", b"s" * 200)
    store.folder(weights.identity).write("weights-dead.bin", b"d" * 100)
    return store


def test_what_stages_take_is_told_by_what_it_is(store: StageStore) -> None:
    use = storage_use(store, 0.5)
    assert (use.checkpoints, use.snapshots, use.leftovers) == (300, 200, 100)
    assert 5000 < use.weights < 8000 and 700 < use.features < 1700  # with their records
    assert use.total == sum(file.size for file in store.root.listed())
    lines = "\n".join(use_lines(use))
    assert "of a budget of 500 MB" in lines and "checkpoints 300 B" in lines
    assert "leftovers (100 B)" in lines and "computed again" in lines


def test_a_plan_adds_what_stages_like_its_own_take(store: StageStore) -> None:
    use, plan = storage_use(store, None), planned(store, seed=1)
    added, unknown = use.added_by(plan)
    assert 5000 < added < 8000  # its alignment, with another seed
    assert unknown == len(plan.missing) - 1
    assert "stages of sizes not seen here yet" in added_lines(use, plan)[0]


def test_a_plan_past_the_budget_or_the_disk_is_refused_and_says_what_to_do(
    store: StageStore,
) -> None:
    use, plan = storage_use(store, None), planned(store, seed=1)
    check_fits(use, plan, begun=False)
    tight: StorageUse = replace(use, budget=use.total + 1000)
    with pytest.raises(ValueError, match="execution.storage.budget_gb: .* more than the budget"):
        check_fits(tight, plan, begun=False)
    check_fits(replace(tight, budget=use.total + 10_000), plan, begun=False)
    check_fits(tight, plan, begun=True)  # the search itself ends in time
    with pytest.raises(ValueError, match="its disk has 10 B free; delete what may go"):
        check_fits(replace(use, free=10), plan, begun=True)


def test_sizes_are_told_in_three_digits() -> None:
    assert [size(n) for n in (12, 1234, 5.6e6, 7.89e9)] == ["12 B", "1.23 kB", "5.6 MB", "7.9 GB"]
