"""Linear probe: logistic regression on frozen features, its penalty chosen on `selection`."""

from __future__ import annotations

from typing import NamedTuple

from safetensors import safe_open
from torch import Tensor

from trainables.bootstrap import bootstrap_interval
from trainables.logistic_regression import LogisticRegression, fit
from trainables.stage_run import Outcome, StageRun


class Features(NamedTuple):
    values: Tensor  # [N, D]
    label: Tensor  # int64 [N]
    group: Tensor  # int64 [N]
    left_out: int  # clips that could not be read


def run_probe(run: StageRun) -> Outcome:
    settings = run.stage.settings
    train, selection = _features(run, "train"), _features(run, "selection")
    # The report split is read here, and only by a stage that asks for it.
    scored = selection if settings["split"] == "selection" else _features(run, settings["split"])
    # The largest penalty comes first, so that it wins a tie.
    fits = [(l2, fit(train.values, train.label, l2)) for l2 in sorted(settings["l2_grid"])[::-1]]
    l2, probe = max(fits, key=lambda pair: _accuracy(pair[1], selection))
    correct = probe.predict(scored.values) == scored.label
    low, high = bootstrap_interval(correct.numpy(), scored.group.numpy())
    return Outcome(
        write={},
        metrics={
            "accuracy": correct.double().mean().item(),
            "l2": l2,
            "selection_accuracy": _accuracy(probe, selection),
            "train_accuracy": _accuracy(probe, train),
            "clips": len(correct),
            "interval_low": low,
            "interval_high": high,
            "left_out": scored.left_out,
        },
        clips=len(correct),
    )


def _features(run: StageRun, split: str) -> Features:
    identity = run.stage.inputs[split].identity
    record = run.store.record(identity)
    assert record is not None
    with safe_open(run.input_file(split, "features"), framework="pt") as file:
        return Features(
            file.get_tensor("features"),
            file.get_tensor("label"),
            file.get_tensor("group"),
            len(record.metrics["left_out"]),
        )


def _accuracy(probe: LogisticRegression, features: Features) -> float:
    return (probe.predict(features.values) == features.label).double().mean().item()
