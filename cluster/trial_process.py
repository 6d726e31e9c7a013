"""The process of one trial: it wants its stages, waits for them and reports to Tune."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import ray
from ray import tune

from cluster.rungs import rungs_reached
from cluster.stage_runs import StageFailed, said_by
from cluster.stages_handle import StagesHandle
from cluster.study import Assignment
from trainables.config import TrialConfig
from trainables.settings import parse
from trainables.stage import Stage
from trainables.trial import TrialStages, trial_stages

POLL_SECONDS = 0.5
# Tune gives a trial up, and tells nobody, whose process has not left the last one after 2 s.
LEAVE_SECONDS = "600"


def trial_process(config: dict[str, Any], *, stages: StagesHandle) -> None:
    """One trial, in a process of its own that only waits."""
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = LEAVE_SECONDS
    assignment = Assignment(**json.loads(config["assignment"]))
    try:
        trial = parse(TrialConfig, assignment.trial, "trial")
        data = stages.datasets()
        parts = trial_stages(trial, data)
        weights = stages.want(parts.weights, assignment.number)
        if stages.probes is not None:
            _report_rungs(parts.weights, weights, stages, stages.probes.key(data))
        ray.get(weights)
        scored = _await_all(stages, parts, assignment.number)
    except (StageFailed, ValueError) as error:
        tune.report({"failure": str(said_by(error))})
        return
    except OSError as error:
        tune.report({"refusal": f"the storage: {said_by(error)}"})
        return
    identities = {f"{part.kind} {part.identity}": part.identity for part in parts.searched()}
    tune.report({"accuracies": json.dumps(scored), "stages": json.dumps(identities)})


def _await_all(stages: StagesHandle, parts: TrialStages, number: int) -> dict[str, float]:
    """Top-1 per downstream dataset, once all that the score is made of is there."""
    records = ray.get([stages.want(end, number) for end in parts.scored.values()])
    metrics = {record["identity"]: record["metrics"] for record in records}
    return {name: metrics[end.identity]["accuracy"] for name, end in parts.scored.items()}


def _report_rungs(weights: Stage, awaited: ray.ObjectRef, stages: StagesHandle, key: str) -> None:
    """Report the rungs of an alignment while and after it runs; returns when `awaited` has ended.

    They are read from the stages' files: who joins late sees them from the start.
    """
    assert stages.probes is not None
    told = 0.0
    finished: list[Any] = []
    while not finished:
        finished, _ = ray.wait([awaited], timeout=max(POLL_SECONDS, stages.store.poll_seconds))
        for point in rungs_reached(weights, stages.store, stages.probes, key):
            if point.rung > told:
                told = point.rung
                tune.report({"point": json.dumps(asdict(point))})
