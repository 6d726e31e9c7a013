"""Multinomial logistic regression with an L2 penalty, to its optimum, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ITERATIONS = 2000
GRADIENT_TOLERANCE = 1e-7


@dataclass(frozen=True, kw_only=True)
class LogisticRegression:
    """Weights on standardised features; class c of the original labels is `classes[c]`."""

    mean: Tensor  # [D]
    scale: Tensor  # [D]
    weight: Tensor  # [C, D]
    bias: Tensor  # [C]
    classes: Tensor  # int64 [C]

    def predict(self, features: Tensor) -> Tensor:
        """The labels [N] of features [N, D]."""
        standardised = (features.double() - self.mean) / self.scale
        logits = F.linear(standardised, self.weight, self.bias)
        return self.classes[logits.argmax(dim=1)]


def fit(features: Tensor, labels: Tensor, l2: float) -> LogisticRegression:
    """The minimum of mean cross-entropy + l2 / 2 * |weight|^2, by full-batch L-BFGS.

    Features [N, D] are standardised by their own mean and deviation; the bias has no penalty.
    In scikit-learn's terms C = 1 / (l2 * N). Always starts from 0: the same input gives the same
    output.
    """
    values = features.double()
    mean = values.mean(dim=0)
    deviation = values.std(dim=0, unbiased=False)
    scale = torch.where(deviation > 0, deviation, 1.0)
    standardised = (values - mean) / scale
    classes, target = labels.unique(return_inverse=True)
    weight = torch.zeros(len(classes), values.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        solver.zero_grad()
        logits = F.linear(standardised, weight, bias)
        value = F.cross_entropy(logits, target) + l2 / 2 * weight.square().sum()
        value.backward()
        return value.item()

    solver.step(loss)
    return LogisticRegression(
        mean=mean, scale=scale, weight=weight.detach(), bias=bias.detach(), classes=classes
    )
