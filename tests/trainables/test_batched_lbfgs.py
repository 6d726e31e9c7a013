from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from trainables.batched_lbfgs import minima

CURVATURES = torch.tensor([[1.0, 1.0, 1.0], [1.0, 10.0, 100.0], [1e-3, 1.0, 1e3]]).double()
CENTRES = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 5.0], [4.0, 4.0, 4.0]]).double()


def bowls(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    away, curvature = points - CENTRES[which], CURVATURES[which]
    return (curvature * away.square()).sum(dim=1) / 2, curvature * away


def small(gradients: Tensor, _which: Tensor) -> Tensor:
    return gradients.abs().amax(dim=1) <= 1e-9


def test_every_function_comes_to_its_own_minimum() -> None:
    found = minima(bowls, torch.zeros_like(CENTRES), small, 200)
    torch.testing.assert_close(found, CENTRES, rtol=0.0, atol=2e-6)


def test_what_is_done_takes_no_further_part() -> None:
    asked: list[list[int]] = []

    def noted(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(which.tolist())
        return bowls(points, which)

    minima(noted, torch.zeros_like(CENTRES), small, 200)
    assert asked[0] == [0, 1, 2]
    assert asked[-1] == [2]
    assert all(set(later) <= set(earlier) for earlier, later in pairwise(asked))


def test_a_step_that_would_rise_is_shortened() -> None:
    def steep(points: Tensor, _which: Tensor) -> tuple[Tensor, Tensor]:
        return (1e3 * points.square()).sum(dim=1), 2e3 * points

    sizes: list[float] = []

    def noted(gradients: Tensor, which: Tensor) -> Tensor:  # of each point that it goes to
        sizes.append(gradients.norm().item())
        return small(gradients, which)

    found = minima(steep, torch.ones(1, 2).double(), noted, 100)
    torch.testing.assert_close(found, torch.zeros(1, 2).double(), rtol=0.0, atol=1e-9)
    assert sizes == sorted(sizes, reverse=True)


def test_it_ends_after_so_many_iterations() -> None:
    found = minima(bowls, torch.zeros_like(CENTRES), lambda g, _: torch.zeros(len(g)).bool(), 3)
    assert found.isfinite().all()
