from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.models.contrastive import Projection, contrastive_loss, inverter_loss


def unit(count: int, size: int = 5, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, size, generator=rng, dtype=torch.float64), dim=1)


def test_the_loss_of_pairs_is_nt_xent() -> None:
    """Against SimCLR's pseudocode: a cross-entropy over the others, with the partner as class."""
    views, temperature = unit(8), 0.1
    others = (views @ views.T / temperature).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(others, torch.arange(8) ^ 1, reduction="none")
    found, _ = contrastive_loss(views, views, torch.arange(8) // 2, 0, temperature)
    torch.testing.assert_close(found, expected)


def test_the_loss_of_classes_is_supcon() -> None:
    """Against its formula (L_out of Khosla et al.), term by term."""
    views, label, t = unit(9), [0, 0, 1, 1, 2, 2, 0, 1, 0], 0.07
    found, _ = contrastive_loss(views, views, torch.tensor(label), 0, t)
    for i in range(9):
        below = sum(math.exp(float(views[i] @ views[a]) / t) for a in range(9) if a != i)
        positives = [p for p in range(9) if p != i and label[p] == label[i]]
        terms = [math.log(math.exp(float(views[i] @ views[p]) / t) / below) for p in positives]
        assert float(found[i]) == pytest.approx(-sum(terms) / len(positives))


def test_views_that_are_all_alike_cost_the_logarithm_of_the_others() -> None:
    views = torch.ones(6, 1)
    loss, _ = contrastive_loss(views, views, torch.arange(6) // 2, 0, 0.5)
    torch.testing.assert_close(loss, torch.full((6,), math.log(5)))


def test_a_part_of_a_batch_has_its_part_of_the_loss() -> None:
    views, label = unit(8), torch.tensor([0, 0, 1, 1, 0, 0, 2, 2])
    whole = contrastive_loss(views, views, label, 0, 0.1)
    part = contrastive_loss(views[4:6], views, label, 4, 0.1)
    torch.testing.assert_close(part[0], whole[0][4:6])
    assert torch.equal(part[1], whole[1][4:6])


def test_the_nearest_is_a_positive_where_the_partner_is_nearest() -> None:
    angles = torch.tensor([0.0, 0.1, 2.0, 2.1, 4.0, 0.2])
    views = torch.stack([angles.cos(), angles.sin()], dim=1)
    _, nearest = contrastive_loss(views, views, torch.arange(6) // 2, 0, 0.1)
    assert nearest.tolist() == [True, True, True, True, False, False]


def test_a_projection_lies_on_the_unit_sphere() -> None:
    out = Projection(4, 8, 3)(torch.randn(5, 4))
    torch.testing.assert_close(out.norm(dim=1), torch.ones(5))


def test_the_inverters_losses_are_mse_and_cross_entropy() -> None:
    found, latent = unit(4), unit(4, seed=1)
    logits, target = unit(4, size=3, seed=2), torch.tensor([0, 2, 1, 1])
    error, entropy = inverter_loss(found, latent.float(), logits, target)
    assert float(error.mean()) == pytest.approx(float(F.mse_loss(found, latent)), rel=1e-5)
    expected = [
        -math.log(math.exp(row[y]) / sum(map(math.exp, row)))
        for row, y in zip(logits.tolist(), target.tolist(), strict=True)
    ]
    assert entropy.tolist() == pytest.approx(expected)
