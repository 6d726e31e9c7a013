"""What each stage of a trial is, as its identity sees it: settings, data, inputs.

pretraining_descriptions.py has those that train on a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables import training_descriptions
from trainables.config import FinetuneSettings, TrialConfig
from trainables.data.catalog import Dataset
from trainables.schedules import check_schedule
from trainables.stage import Stage, file_hash
from trainables.training_descriptions import json_of, model_and_clip


def start(trial: TrialConfig) -> Stage:
    """Random weights, or public ones: known by what their file holds, not by where it lies."""
    if trial.start.path is None:
        return Stage(kind="init", settings={"seed": trial.seed, **model_and_clip(trial)})
    path = Path(trial.start.path)
    return Stage(
        kind="import",
        settings={"format": trial.start.weights, "seed": trial.seed, **model_and_clip(trial)},
        data={"weights": file_hash(path)},
        where={"weights": str(path.resolve())},
    )


def average(trial: TrialConfig, method: str, inputs: dict[str, Stage]) -> Stage:
    """`method`: uniform, interpolate, model_stock, last_k, ema or posthoc_ema."""
    settings = trial.average
    read: dict[str, dict[str, Any]] = {
        "interpolate": {"coefficient": settings.coefficient},
        "last_k": {"last": settings.last},
        "posthoc_ema": {"ema_length": settings.ema_length},
    }
    return Stage(kind="average", settings={"method": method, **read.get(method, {})}, inputs=inputs)


def greedy_soup(
    trial: TrialConfig, data: Mapping[str, Dataset], endpoints: dict[str, Stage]
) -> Stage:
    """Its score is the mean probe accuracy over the trial's downstream selection splits."""
    return Stage(
        kind="greedy_soup",
        settings={
            "downstream": list(trial.downstream),
            "probe": training_descriptions.described_probe(trial.probe),
            "test": json_of(trial.test),
            **model_and_clip(trial),
        },
        data={name: data[name].content_hash for name in trial.downstream},
        inputs=endpoints,
    )


def learned_average(trial: TrialConfig, dataset: Dataset, endpoints: list[Stage]) -> Stage:
    assert trial.augmented_probe is not None
    _check_downstream_schedule(trial.augmented_probe, dataset, "augmented_probe")
    return Stage(
        kind="learned_average",
        settings={
            "dataset": dataset.name,
            "learned": trial.average.learned,
            "augmented_probe": training_descriptions.described(trial.augmented_probe),
            "seed": trial.seed,
            **model_and_clip(trial),
        },
        data={dataset.name: dataset.content_hash},
        inputs={f"w{index}": endpoint for index, endpoint in enumerate(endpoints)},
    )


def features(trial: TrialConfig, dataset: Dataset, weights: Stage, split: str) -> Stage:
    """Of one set of weights; of all coefficients together where the trial's is among them.

    Those of 0 and 1 are no averages: the endpoints have passes of their own.
    """
    if _shares_its_pass(trial, weights):
        together = [each for each in trial.average.scored_together if 0 < each < 1]
        return _features(trial, dataset, weights.inputs, split, {"coefficients": together})
    return _features(trial, dataset, {"weights": weights}, split, {})


def _features(
    trial: TrialConfig,
    dataset: Dataset,
    inputs: dict[str, Stage],
    split: str,
    more: dict[str, Any],
) -> Stage:
    settings = {
        "dataset": dataset.name,
        "split": split,
        "views": {"clips": 1, "crops": 1} if split == "train" else json_of(trial.test),
        "max_unreadable": trial.probe.max_unreadable,
        **training_descriptions.lower_precision(trial.probe.precision),
        **model_and_clip(trial),
        **more,
    }
    return Stage(
        kind="features", settings=settings, data={dataset.name: dataset.content_hash}, inputs=inputs
    )


def _shares_its_pass(trial: TrialConfig, weights: Stage) -> bool:
    return (
        weights.kind == "average"
        and weights.settings["method"] == "interpolate"
        and weights.settings["coefficient"] in trial.average.scored_together
    )


def probe(trial: TrialConfig, dataset: Dataset, weights: Stage, split: str) -> Stage:
    splits = ["train", "selection"] if split == "selection" else ["train", "selection", "report"]
    more = {}
    if _shares_its_pass(trial, weights):
        more = {"coefficient": weights.settings["coefficient"]}
    inputs = {name: features(trial, dataset, weights, name) for name in splits}
    return _probe(trial, dataset, inputs, split, more)


def _probe(
    trial: TrialConfig,
    dataset: Dataset,
    inputs: dict[str, Stage],
    split: str,
    more: dict[str, Any],
) -> Stage:
    settings = {
        "l2_grid": list(trial.probe.l2_grid),
        "neighbours": trial.probe.neighbours,
        "split": split,
        "classes": len(dataset.classes),
        **more,
    }
    return Stage(kind="probe", settings=settings, inputs=inputs)


def merged_probes(
    trial: TrialConfig, dataset: Dataset, experts: list[Stage], mixes: list[list[float]]
) -> list[Stage]:
    """A probe on the selection split for each merge sum_k a_k W_k of the experts, all in one pass.

    `mixes`: the a of each merge, one number an expert.
    """
    weights = {f"w{index}": expert for index, expert in enumerate(experts)}
    inputs = {
        split: _features(trial, dataset, weights, split, {"coefficients": mixes})
        for split in ("train", "selection")
    }
    return [_probe(trial, dataset, inputs, "selection", {"coefficient": mix}) for mix in mixes]


def trained_on_downstream(
    kind: str,
    trial: TrialConfig,
    settings: FinetuneSettings,
    dataset: Dataset,
    weights: Stage,
    split: str,
) -> Stage:
    """Training (`kind`: augmented_probe or finetune) and the evaluation that follows it."""
    _check_downstream_schedule(settings, dataset, kind)
    common: dict[str, Any] = {"dataset": dataset.name, **model_and_clip(trial)}
    trained = Stage(
        kind=kind,
        settings={**common, "seed": trial.seed, kind: training_descriptions.described(settings)},
        data={dataset.name: dataset.content_hash},
        inputs={"weights": weights},
    )
    return Stage(
        kind="evaluate",
        settings={
            **common,
            "split": split,
            "views": json_of(trial.test),
            "max_unreadable": settings.max_unreadable,
        },
        data={dataset.name: dataset.content_hash},
        inputs={"model": trained},
    )


def downstream_steps_per_epoch(clips: int, batch_size: int) -> int:
    """An epoch is the whole batches of the training split, one at the least."""
    return max(1, clips // batch_size)


def _check_downstream_schedule(settings: FinetuneSettings, dataset: Dataset, where: str) -> None:
    clips = len(dataset.split("train"))
    steps_per_epoch = downstream_steps_per_epoch(clips, settings.optimizer.batch_size)
    check_schedule(settings.epochs * steps_per_epoch, settings.optimizer, where)
