"""The `Stages` actor where a node is lost, with scripted nodes and workers: no Ray runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import gangs, room, stages
from cluster.gangs import Place
from cluster.resources import Cluster
from cluster.stage_runs import Attempt
from cluster.stages import Stages
from cluster.vital_signs import HangLimits, Process
from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import StageStore

NODE = {"CPU": 1.0, "GPU": 0.0}
FIRST, SECOND, PROBE = (
    Stage(kind=kind, settings={"number": number})
    for number, kind in enumerate(("align", "align", "probe"))
)


class TwoNodes:
    """Nodes of one CPU."""

    def __init__(self) -> None:
        self.there, self.gone = 2, 0

    def now(self) -> Cluster:
        return Cluster(there=[NODE] * self.there, to_start=[], gone=[NODE] * self.gone)


def test_scripted_a_stage_that_loses_a_node_goes_on_with_fewer_before_all_others_at_no_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes, store = TwoNodes(), StageStore(tmp_path)
    ran: list[tuple[Stage, int]] = []
    seen: list[dict[str, Any]] = []

    async def run(_: Any, attempt: Attempt, place: Place) -> None:
        ran.append((attempt.stage, place.shape.workers))
        for rank in range(place.shape.workers):
            process = Process(host=f"host{rank}", node=f"node{rank}", pid=1, started=0.0)
            await actor.at_work(attempt.stage.identity, rank, process)
        await all_wanted.wait()
        seen.append({each["identity"]: each for each in await actor.status()})
        if attempt.stage is FIRST and place.shape.workers == 2:
            nodes.there, nodes.gone = 1, 1
            raise RuntimeError("connection closed by peer")
        store.publish(attempt.stage, write={}, metrics={}, cost={"device_seconds": 1.0, "clips": 0})

    async def is_gone(_: set[str]) -> bool:
        return nodes.gone > 0

    monkeypatch.setattr(stages, "Nodes", lambda _: nodes)
    monkeypatch.setattr(stages, "is_gone", is_gone)
    monkeypatch.setattr(stages, "nodes_going", set)
    monkeypatch.setattr(room, "QUEUE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(gangs.Workers, "run", run)
    context = SimpleNamespace(current_actor=None, was_current_actor_reconstructed=False)
    monkeypatch.setattr(stages.ray, "get_runtime_context", lambda: context)
    elastic = dict.fromkeys(("align", "tasks"), toy_execution(workers=(1, 2)))
    silent_for_ever = HangLimits(seconds=None, first_step_seconds=None)

    async def scene() -> None:
        nonlocal actor, all_wanted
        all_wanted = asyncio.Event()
        actor = Stages(store, elastic, 1, None, silent_for_ever, [])
        asked = []
        for number, stage in enumerate((FIRST, SECOND, PROBE), start=1):
            asked.append(asyncio.create_task(actor.want(stage, 1, [None])))
            while len(await actor.status()) < number or not ran:  # so that they come in order
                await asyncio.sleep(0.01)
        all_wanted.set()
        await asyncio.gather(*asked)

    actor: Any = None
    all_wanted: Any = None
    asyncio.run(asyncio.wait_for(scene(), timeout=60))
    assert ran == [(FIRST, 2), (FIRST, 1), (SECOND, 1), (PROBE, 1)]
    begun = seen[0]
    assert begun[FIRST.identity]["hosts"] == ["host0", "host1"]
    assert begun[FIRST.identity]["workers"] == 2
    assert begun[SECOND.identity]["why"] == "needs 1 CPU, free 0"
    assert begun[PROBE.identity]["why"] == "1 before it"
