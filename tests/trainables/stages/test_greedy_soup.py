from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from tests.toy import toy_execution, toy_trial
from tests.trainables.toy_videos import weights_of
from trainables.data.catalog import Dataset
from trainables.models.video_vit import VideoViT
from trainables.stage import Stage
from trainables.stage_run import StageRun
from trainables.stage_store import Record, StageStore
from trainables.stages import greedy_soup
from trainables.stages.greedy_soup import greedy
from trainables.stages.run import run_stage
from trainables.trial import trial_stages

THREE = [{"mixture.shares": {"scenes": 1}}, {"mixture.shares": {"synthetic": 1}}, {"epochs": 3}]


def test_an_endpoint_joins_unless_the_score_falls() -> None:
    scores = {"3": 0.6, "31": 0.5, "30": 0.6, "302": 0.7, "3024": 0.69, "3025": 0.7}
    asked = []

    def score(soup: Sequence[int]) -> float:
        asked.append("".join(map(str, soup)))
        return scores[asked[-1]]

    steps = greedy([3, 1, 0, 2, 4, 5], score)
    assert asked == ["3", "31", "30", "302", "3024", "3025"]  # each once, beside what was kept
    assert [step.endpoint for step in steps if step.kept] == [3, 0, 2, 5]
    assert [(step.endpoint, step.score) for step in steps if not step.kept] == [(1, 0.5), (4, 0.69)]


def soup_stage(datasets: dict[str, Dataset], **overrides: Any) -> Stage:
    trial = toy_trial(
        mae__epochs=0, average__method="greedy_soup", average__endpoints=THREE, **overrides
    )
    return trial_stages(trial, datasets).weights


def finished(store: StageStore, stage: Stage, weights: dict[str, Tensor]) -> None:
    write: dict[str, Callable[..., None]] = {
        "weights.safetensors": lambda file: file.write(save(weights))
    }
    store.publish(stage, write=write, metrics={}, cost={})


def run(stage: Stage, store: StageStore, datasets: dict[str, Dataset]) -> Record:
    run_stage(stage, store, datasets, toy_execution(), lambda: False)
    record = store.record(stage.identity)
    assert record is not None
    return record


def endpoints(count: int) -> list[dict[str, Tensor]]:
    trial = toy_trial()
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(VideoViT(trial.model, trial.clip).state_dict())
    return found


def test_the_soup_begins_with_the_best_and_is_the_mean_of_what_was_kept(
    datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, given = soup_stage(datasets), endpoints(3)
    for index, weights in enumerate(given):
        finished(store, stage.inputs[f"w{index}"], weights)
    values = {(0,): 0.3, (1,): 0.6, (2,): 0.5, (1, 2): 0.55, (0, 1): 0.6}

    def scores(_run: object, candidates: Sequence[dict[str, Tensor]]) -> list[float]:
        found = []
        for weights in candidates:
            (value,) = [
                value
                for soup, value in values.items()
                if torch.allclose(
                    weights["patch_embed.weight"],
                    torch.stack([given[i]["patch_embed.weight"] for i in soup]).mean(dim=0),
                    atol=1e-7,
                )
            ]
            found.append(value)
        return found

    monkeypatch.setattr(greedy_soup, "selection_scores", scores)
    metrics = run(stage, store, datasets).metrics
    assert metrics == {
        "score": 0.6,
        "kept": ["w1", "w0"],
        "alone": {"w0": 0.3, "w1": 0.6, "w2": 0.5},
        "steps": [
            {"endpoint": "w1", "score": 0.6, "kept": True},
            {"endpoint": "w2", "score": 0.55, "kept": False},
            {"endpoint": "w0", "score": 0.6, "kept": True},
        ],
    }
    found = weights_of(stage, store)
    for name in found:
        torch.testing.assert_close(found[name], (given[0][name] + given[1][name]) / 2)


@pytest.mark.parametrize("test", [{"clips": 1, "crops": 1}, {"clips": 2, "crops": 3}])
def test_a_candidate_s_score_is_the_mean_of_what_the_probes_of_a_trial_measure(
    test: dict[str, int],
    datasets: dict[str, Dataset],
    store: StageStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = []
    over_views = greedy_soup.over_views

    def remembered(run: StageRun, outputs_of: Any) -> Any:
        read.append(run.stage.settings)
        return over_views(run, outputs_of)

    monkeypatch.setattr(greedy_soup, "over_views", remembered)
    low = datasets["low"]
    other = {"train": "selection", "selection": "train", "report": "selection"}
    turned = tuple(replace(clip, split=other[clip.split]) for clip in low.clips)
    data = {**datasets, "turned": replace(low, name="turned", clips=turned, content_hash="t")}
    overrides: dict[str, Any] = {
        "downstream": ["low", "turned"],
        "probe__l2_grid": [1e-3, 1.0, 100.0],
        "test": test,
    }
    stage, given = soup_stage(data, **overrides), endpoints(3)
    for index, weights in enumerate(given):
        finished(store, stage.inputs[f"w{index}"], weights)
    record = run(stage, store, data)
    found = set()
    for seed in range(3):  # the random weights of this seed are endpoint number `seed`
        parts = trial_stages(
            toy_trial(mae__epochs=0, align__epochs=0, seed=seed, **overrides), data
        )
        for needed in parts.all():
            run_stage(needed, store, data, toy_execution(), lambda: False)
        features = [stage.settings for stage in parts.all() if stage.kind == "features"]
        assert len(features) == 4
        assert all(any(one.items() >= asked.items() for one in features) for asked in read)
        records = [store.record(probe.identity) for probe in parts.scored.values()]
        accuracies = [probe.metrics["accuracy"] for probe in records if probe is not None]
        assert len(accuracies) == 2
        assert record.metrics["alone"][f"w{seed}"] == pytest.approx(sum(accuracies) / 2)
        found |= set(accuracies)
    assert len(found) > 2
    assert record.cost["clips"] == (8 + 4 + 8 + 8) * 3  # all alone in one pass, then two soups
    assert record.trained_on == {}  # the downstream datasets were looked at, not learnt from
