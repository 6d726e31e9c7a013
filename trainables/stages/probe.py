"""Linear probe: logistic regression on frozen features, its penalty chosen on `selection`.

It is fitted to the exact optimum of a convex problem, so it has no learning rate, length or seed
to choose: the penalty is all. The grid costs no pass of the trunk, for all fits read the same
features; so does the k-nearest-neighbour accuracy that comes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from safetensors import safe_open
from torch import Tensor

from trainables.logistic_regression import LogisticRegression, fit
from trainables.metrics import in_top, scores
from trainables.nearest_neighbours import mean_direction, votes
from trainables.stage_run import Outcome, StageRun


class Features(NamedTuple):
    values: Tensor  # [N, V, D], on the stage's device
    label: Tensor  # int64 [N]
    group: Tensor  # int64 [N]
    left_out: int  # clips that could not be read


def run_probe(run: StageRun) -> Outcome:
    settings = run.stage.settings
    train, selection = _features(run, "train"), _features(run, "selection")
    # The report split is read here, and only by a stage that asks for it.
    scored = selection if settings["split"] == "selection" else _features(run, settings["split"])
    device, classes = train.values.device, settings["classes"]
    probe = best_fit(train, selection, settings["l2_grid"], classes, run.beat)
    neighbours = votes(
        train.values[:, 0],
        train.label.to(device),
        mean_direction(scored.values),
        neighbours=settings["neighbours"],
        classes=classes,
    )
    metrics = scores(_logits(probe, scored), scored.label, scored.group)
    return Outcome(
        write={},
        metrics={
            **metrics,
            "knn_accuracy": in_top(neighbours.cpu(), scored.label, 1).double().mean().item(),
            "l2": probe.l2,
            "selection_accuracy": accuracy(probe, selection),
            "train_accuracy": accuracy(probe, train),
            "left_out": scored.left_out,
        },
        clips=len(scored.label),
    )


def best_fit(
    train: Features,
    selection: Features,
    l2_grid: Sequence[float],
    classes: int,
    beat: Callable[[], bool],
) -> LogisticRegression:
    """The probe whose penalty is the best on `selection`; of equals the largest."""
    assert train.values.shape[1] == 1, "training clips have one view"
    label = train.label.to(train.values.device)
    # The largest penalty comes first.
    fits = fit(train.values[:, 0], label, l2_grid, classes, beat)
    return max(fits, key=lambda probe: accuracy(probe, selection))


def _features(run: StageRun, split: str) -> Features:
    stage = run.stage.inputs[split]
    record = run.store.record(stage.identity)
    assert record is not None
    role = "features"
    if "coefficient" in run.stage.settings:
        coefficients = stage.settings["coefficients"]
        role = f"features_{coefficients.index(run.stage.settings['coefficient'])}"
    with safe_open(run.input_file(split, role), framework="pt") as file:
        return Features(
            file.get_tensor("features").to(run.device),
            file.get_tensor("label"),
            file.get_tensor("group"),
            len(record.metrics["left_out"]),
        )


def _logits(probe: LogisticRegression, features: Features) -> Tensor:
    """[N, classes] on the CPU: the mean over a clip's views."""
    return probe.logits(features.values).mean(dim=1).cpu()


def accuracy(probe: LogisticRegression, features: Features) -> float:
    """Top-1 of logits averaged over the views."""
    return in_top(_logits(probe, features), features.label, 1).double().mean().item()
