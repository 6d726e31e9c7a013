"""What every scored stage reports: top-1, top-5, mean class accuracy, an interval."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.bootstrap import bootstrap_interval


def in_top(logits: Tensor, label: Tensor, k: int) -> Tensor:
    """bool [N]: whether label [N] is among the min(k, C) largest of logits [N, C].

    Of equal logits the one of the lower class counts as larger. An output of -inf, a class that
    was never trained, is never among them.
    """
    highest = logits.argsort(dim=1, descending=True, stable=True)[:, :k]
    there = logits.gather(1, label.unsqueeze(1)).squeeze(1) > -torch.inf
    return (highest == label.unsqueeze(1)).any(dim=1) & there


def mean_class_accuracy(correct: Tensor, label: Tensor) -> float:
    """The mean over the classes that occur in label [N] of each one's share of `correct` [N]."""
    _, member, clips = label.unique(return_inverse=True, return_counts=True)
    right = torch.bincount(member, weights=correct.double())
    return (right / clips).mean().item()


def scores(logits: Tensor, label: Tensor, group: Tensor) -> dict[str, float]:
    """Metrics of logits [N, C] against label [N], all on the CPU.

    accuracy is top-1; top5 is among the min(5, C) largest; interval_low and interval_high bound
    accuracy by a bootstrap over the groups of `group` [N]; clips is N.
    """
    correct = in_top(logits, label, 1)
    low, high = bootstrap_interval(correct.numpy(), group.numpy())
    return {
        "accuracy": correct.double().mean().item(),
        "top5": in_top(logits, label, 5).double().mean().item(),
        "mean_class_accuracy": mean_class_accuracy(correct, label),
        "interval_low": low,
        "interval_high": high,
        "clips": len(label),
    }
