"""The order in which the `Stages` actor makes what is wanted: its own code, without Ray."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import stages as stages_module
from cluster.stage_runs import refused_by_storage
from cluster.stages import Stages
from cluster.vital_signs import HangLimits, Watch
from tests.toy import toy_execution
from trainables.config import Execution
from trainables.stage import Stage
from trainables.stage_store import Record, StageStore


class WithoutWorkers(Stages):
    """Trains nothing: a stage is published once all others had a turn. Keeps the order."""

    def __init__(self, store: StageStore) -> None:
        executions = {name: toy_execution() for name in ("mae", "align", "finetune", "tasks")}
        no_limits = HangLimits(seconds=None, first_step_seconds=None)
        super().__init__(store, executions, 1, None, no_limits, may_start=[])
        self.begun: list[Stage] = []

    async def _alone(self, stage: Stage, execution: Execution) -> Record:
        self.begun.append(stage)
        for _ in range(10):
            await asyncio.sleep(0)
        write = {"state.pt": lambda file: file.write(b"state")}
        return self._store.publish(stage, write=write, metrics={}, cost={})


async def no_nodes(self: Watch, vacate: Any) -> None:
    """In place of the look for nodes that go away, which asks Ray."""


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WithoutWorkers:
    first_life = SimpleNamespace(was_current_actor_reconstructed=False)
    monkeypatch.setattr(stages_module.ray, "get_runtime_context", lambda: first_life)
    monkeypatch.setattr(stages_module, "Nodes", lambda _: SimpleNamespace(now=lambda: None))
    monkeypatch.setattr(stages_module, "what_is_short", lambda *_: None)
    monkeypatch.setattr(Watch, "nodes", no_nodes)
    return WithoutWorkers(StageStore(tmp_path))


def trunk(step: int, **settings: Any) -> Stage:
    return Stage(kind="align_trunk", settings={"align": {}, **settings, "step": step})


def branch(step: int, **settings: Any) -> Stage:
    inputs = {"trunk": trunk(step, **settings)}
    return Stage(kind="align", settings={"length": step, **settings}, inputs=inputs)


def bring(stages: Stages, *wanted: Stage) -> None:
    """Trials that want these stages at the same time."""

    async def all_of_them() -> None:
        asked = [stages.want(stage, trial, [None]) for trial, stage in enumerate(wanted)]
        await asyncio.gather(*asked)

    asyncio.run(all_of_them())


def test_of_the_trunks_of_a_run_the_shorter_are_made_first(stages: WithoutWorkers) -> None:
    bring(stages, branch(30), branch(10), branch(20), branch(5, seed=1))
    trunks = [stage.settings for stage in stages.begun if stage.kind == "align_trunk"]
    assert [s["step"] for s in trunks if "seed" not in s] == [10, 20, 30]
    steps = [s["step"] for s in trunks]
    assert steps.index(5) < steps.index(30)  # another run does not wait for this one's


def test_a_shorter_trunk_that_nobody_wants_any_more_is_not_waited_for(
    stages: WithoutWorkers,
) -> None:
    async def drop_the_shorter() -> None:
        shorter = asyncio.ensure_future(stages.want(branch(10), 0, [None]))
        await asyncio.sleep(0)
        await stages.drop(0)
        await stages.want(branch(20), 1, [None])
        shorter.cancel()

    asyncio.run(drop_the_shorter())
    assert branch(20).identity in {stage.identity for stage in stages.begun}


def test_a_trunk_that_is_followed_is_wanted_by_who_wants_the_longer_one(
    stages: WithoutWorkers,
) -> None:
    followed = Stage(kind="align_trunk", settings={"align": {}, "step": 20}, after=trunk(10))
    bring(stages, followed)
    assert [stage.settings["step"] for stage in stages.begun] == [10, 20]


def test_what_all_stand_on_unblocks_more_than_what_one_does(stages: WithoutWorkers) -> None:
    bring(stages, branch(30), branch(10))
    shared, longer, end = trunk(10), trunk(30), branch(10)
    unblocks = stages._room._unblocks
    assert unblocks(shared.identity) == 2  # itself and its branch
    assert unblocks(longer.identity) == 2
    assert unblocks(end.identity) == 1
    below = Stage(kind="mae", settings={})
    bring(stages, *(Stage(kind="align", settings={"n": n}, inputs={"start": below}) for n in "abc"))
    assert unblocks(below.identity) == 4


def test_a_stage_that_the_storage_refused_for_too_long_has_not_failed_and_is_made_when_wanted_again(
    stages: WithoutWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = Stage(kind="align", settings={}, inputs={"start": Stage(kind="mae", settings={})})
    away = True
    alone = stages._alone

    async def refused(stage: Stage, execution: Execution) -> Record:
        if away:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await alone(stage, execution)

    monkeypatch.setattr(stages, "_alone", refused)
    with pytest.raises(OSError, match="No space left"):
        bring(stages, above)
    told, _ = asyncio.run(stages.events(0))
    assert [(event["kind"], event["state"]) for event in told] == [("mae", "stopped")]
    away = False
    bring(stages, above)
    assert [stage.kind for stage in stages.begun] == ["mae", "align"]


def test_workers_that_waited_for_the_storage_in_vain_are_told_from_a_stage_that_fails() -> None:
    from ray.exceptions import RayTaskError
    from ray.train import WorkerGroupError

    full = OSError(errno.ENOSPC, "No space left on device")
    others = RuntimeError("connection closed by peer")
    assert refused_by_storage(WorkerGroupError("", {0: others, 1: full})) is full
    assert refused_by_storage(RayTaskError("work", "", full).as_instanceof_cause()) is full
    assert refused_by_storage(WorkerGroupError("", {0: others})) is None
    assert refused_by_storage(FileNotFoundError(errno.ENOENT, "no such file")) is None
