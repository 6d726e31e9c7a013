"""Multinomial logistic regression with an L2 penalty, to its optimum, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.batched_lbfgs import minima

ITERATIONS = 2000
GRADIENT_TOLERANCE = 1e-7
LEAST_CURVATURE = 3.0  # of the features, in terms of their mean; see `_Penalised`


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

    All of them at once, by full-batch L-BFGS from 0. Features [N, D] are standardised by their own
    mean and deviation; the bias has no penalty. In scikit-learn's terms C = 1 / (l2 * N). The same
    input gives the same output. `beat` is called each time the losses were computed. Memory: the
    logits of the whole grid, N K floats each, and 40 copies of its weights.
    """
    values = features.double()
    mean = values.mean(dim=0)
    deviation = values.std(dim=0, unbiased=False)
    scale = torch.where(deviation > 0, deviation, 1.0)
    standardised = (values - mean) / scale
    seen, target = labels.unique(return_inverse=True)
    penalties = sorted(l2_grid, reverse=True)
    problem = _Penalised(standardised, target, penalties, len(seen), beat)
    start = values.new_zeros(len(penalties), problem.size)
    weights, biases = problem.weights(minima(problem, start, problem.is_optimal, ITERATIONS))
    return [
        LogisticRegression(
            l2=l2, mean=mean, scale=scale, weight=weight, bias=bias, seen=seen, classes=classes
        )
        for l2, weight, bias in zip(penalties, weights, biases, strict=True)
    ]


class _Penalised:
    """The losses of the grid, as functions of points [A, K (D + 1)] at which they are round.

    At weights 0 the Hessian of K classes is about (C / K + l2) per class, C being the features'
    covariance. In the eigenvectors of C, each divided by the root of its curvature, all penalties
    take few steps. Further on the data weigh less than that, so the least eigenvalues count as
    LEAST_CURVATURE: at 0.1, or 30, a small penalty takes twice the steps.
    """

    def __init__(
        self,
        features: Tensor,
        target: Tensor,
        penalties: Sequence[float],
        classes: int,
        beat: Callable[[], object],
    ) -> None:
        self.target, self.classes, self.beat = target, classes, beat
        count, width = features.shape
        curvature, self.basis = torch.linalg.eigh(features.T @ features / count)
        ones = features.new_ones(count, 1)  # the bias is the weight of a one, without penalty
        self.features = torch.cat([features @ self.basis, ones], dim=1)
        self.l2 = features.new_tensor(penalties).view(-1, 1, 1).repeat(1, 1, width + 1)
        self.l2[..., -1] = 0.0
        least = (classes * self.l2).clamp(min=LEAST_CURVATURE)
        curvature = torch.cat([curvature.clamp(min=0), curvature.new_zeros(1)])
        self.scale = (classes / (curvature + least)).sqrt()  # [G, 1, D + 1]
        self.size = classes * (width + 1)

    def __call__(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Values [A] and gradients [A, K (D + 1)]."""
        weights = self._scaled(points, which)
        problems, count = len(which), len(self.features)
        logits = (self.features @ weights.flatten(0, 1).T).view(count, problems, self.classes)
        losses = logits.logsumexp(dim=2) - logits[torch.arange(count), :, self.target]
        penalty = (self.l2[which] * weights.square()).sum(dim=(1, 2)) / 2
        error = logits.softmax(dim=2)
        error[torch.arange(count), :, self.target] -= 1
        gradients = (error.flatten(1).T @ self.features / count).view_as(weights)
        gradients = (gradients + self.l2[which] * weights) * self.scale[which]
        self.beat()
        return losses.mean(dim=0) + penalty, gradients.flatten(1)

    def is_optimal(self, gradients: Tensor, which: Tensor) -> Tensor:
        """No entry of a class's true gradient is larger than its norm, which no basis changes."""
        true = gradients.view(-1, self.classes, self.scale.shape[2]) / self.scale[which]
        return true.norm(dim=2).amax(dim=1) <= GRADIENT_TOLERANCE

    def weights(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """[G, K, D] and biases [G, K], in the features' own basis."""
        scaled = self._scaled(points, torch.arange(len(points)))
        return scaled[..., :-1] @ self.basis.T, scaled[..., -1]

    def _scaled(self, points: Tensor, which: Tensor) -> Tensor:
        return points.view(-1, self.classes, self.scale.shape[2]) * self.scale[which]
