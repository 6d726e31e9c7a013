"""Multinomial logistic regression with an L2 penalty, to its optimum, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ITERATIONS = 2000
GRADIENT_TOLERANCE = 1e-7
# torch's L-BFGS forgets curvature where (change of gradient . change of weights) is below 1e-10,
# which near our optimum it is: unscaled, the last digits take four times as many steps.
SCALE = 1e6


@dataclass(frozen=True, kw_only=True)
class LogisticRegression:
    """Weights on standardised features, of the K classes that have been seen."""

    l2: float
    mean: Tensor  # [D]
    scale: Tensor  # [D]
    weight: Tensor  # [K, D]
    bias: Tensor  # [K]
    seen: Tensor  # int64 [K]: the classes
    classes: int

    def logits(self, features: Tensor) -> Tensor:
        """float64 [..., classes] of features [..., D].

        A class that was not seen has -inf, which is where its bias tends to.
        """
        standardised = (features.double() - self.mean) / self.scale
        found = F.linear(standardised, self.weight, self.bias)
        logits = found.new_full((*found.shape[:-1], self.classes), -torch.inf)
        logits[..., self.seen] = found
        return logits


def fit(
    features: Tensor,
    labels: Tensor,
    l2_grid: Sequence[float],
    classes: int,
    beat: Callable[[], object] = lambda: None,
) -> list[LogisticRegression]:
    """For each l2 the minimum of mean cross-entropy + l2 / 2 * |weight|^2, largest l2 first.

    By full-batch L-BFGS from 0 for the largest penalty, and for the others from the optimum of the
    one before. Features [N, D] are standardised by their own mean and deviation; the bias has no
    penalty. In scikit-learn's terms C = 1 / (l2 * N). The same input gives the same output.
    `beat` is called each time the loss was computed.
    """
    values = features.double()
    mean = values.mean(dim=0)
    deviation = values.std(dim=0, unbiased=False)
    scale = torch.where(deviation > 0, deviation, 1.0)
    standardised = (values - mean) / scale
    seen, target = labels.unique(return_inverse=True)
    weight, bias = values.new_zeros(len(seen), values.shape[1]), values.new_zeros(len(seen))
    fits = []
    for l2 in sorted(l2_grid, reverse=True):
        weight, bias = _minimum(standardised, target, l2, weight, bias, beat)
        fits.append(
            LogisticRegression(
                l2=l2, mean=mean, scale=scale, weight=weight, bias=bias, seen=seen, classes=classes
            )
        )
    return fits


def _minimum(
    values: Tensor,
    target: Tensor,
    l2: float,
    weight: Tensor,
    bias: Tensor,
    beat: Callable[[], object],
) -> tuple[Tensor, Tensor]:
    """Weight [K, D] and bias [K] at the optimum, searched from those given."""
    weight, bias = (start.clone().requires_grad_() for start in (weight, bias))
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        tolerance_grad=SCALE * GRADIENT_TOLERANCE,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        solver.zero_grad()
        logits = F.linear(values, weight, bias)
        value = F.cross_entropy(logits, target) + l2 / 2 * weight.square().sum()
        value = SCALE * value
        value.backward()
        beat()
        return value.item()

    solver.step(loss)
    return weight.detach(), bias.detach()
