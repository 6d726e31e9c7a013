from __future__ import annotations

from typing import Any

import pytest

from tests.toy import toy_execution, toy_trial
from tests.trainables.stages.test_run import FINETUNE
from tests.trainables.toy_videos import weights_of
from trainables.data.catalog import Dataset
from trainables.stage_store import StageStore
from trainables.stages.run import run_stage
from trainables.trial import trial_stages

ENDPOINTS = [
    {"mixture.shares": {"scenes": 1}},
    {"mixture.shares": {"synthetic": 1}},
    {"optimizer.lr_peak": 2e-3},
]


@pytest.mark.parametrize("method", ["uniform", "model_stock", "greedy_soup", "learned"])
def test_a_trial_with_three_endpoints_runs_from_video_files_to_a_score(
    method: str, datasets: dict[str, Dataset], store: StageStore
) -> None:
    overrides: dict[str, Any] = {
        "align__epochs": 1,
        "average__method": method,
        "average__endpoints": ENDPOINTS,
        "augmented_probe": FINETUNE if method == "learned" else None,
    }
    parts = trial_stages(toy_trial(**overrides), datasets)
    kinds = []
    for stage in parts.all():
        run_stage(stage, store, datasets, toy_execution(), lambda: False)
        kinds.append(stage.kind)
    assert kinds.count("mae") == 1
    assert kinds.count("align") == 3
    adapted = parts.adapted["low"]
    averaged = weights_of(adapted, store)
    ends = [weights_of(stage, store) for stage in adapted.inputs.values()]
    assert averaged.keys() == ends[0].keys()
    if method != "greedy_soup":  # which may keep one of them
        assert all(not averaged["norm.weight"].equal(end["norm.weight"]) for end in ends)
    record = store.record(parts.scored["low"].identity)
    assert record is not None
    assert 0 <= record.metrics["accuracy"] <= 1
    assert {"scenes", "synthetic"} <= set(record.trained_on)
