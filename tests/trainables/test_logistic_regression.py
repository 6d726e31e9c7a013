from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from trainables.logistic_regression import LogisticRegression, fit

linear_model = pytest.importorskip("sklearn.linear_model")

GRID = [1e-3, 1e-1, 1e-5]


def blobs(count: int, classes: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(count) % classes
    centre = torch.randn(classes, width, generator=draw)
    scale = 10.0 ** torch.arange(width).clamp(max=3)  # features of very different size
    return scale * (centre[label] + torch.randn(count, width, generator=draw)), label


def gradient(found: LogisticRegression, features: torch.Tensor, label: torch.Tensor) -> float:
    """The largest entry of the gradient of the objective, where all classes are seen."""
    weight, bias = (value.clone().requires_grad_() for value in (found.weight, found.bias))
    logits = F.linear((features.double() - found.mean) / found.scale, weight, bias)
    (F.cross_entropy(logits, label) + found.l2 / 2 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    return max(weight.grad.abs().max().item(), bias.grad.abs().max().item())


def test_each_penalty_has_scikit_learn_s_optimum() -> None:
    features, label = blobs(120, 4, 6)
    fits = fit(features, label, GRID, 4)
    assert [found.l2 for found in fits] == [1e-1, 1e-3, 1e-5]
    for found in fits[:2]:
        standardised = ((features.double() - found.mean) / found.scale).numpy()
        reference = linear_model.LogisticRegression(
            C=1 / (found.l2 * 120), tol=1e-10, max_iter=10_000
        )
        reference.fit(standardised, label.numpy())
        expected = torch.from_numpy(reference.coef_)
        torch.testing.assert_close(found.weight, expected, rtol=1e-3, atol=1e-4)
        predicted = found.logits(features).argmax(dim=1)
        assert predicted.tolist() == reference.predict(standardised).tolist()


def test_every_one_of_them_is_an_optimum() -> None:
    features, label = blobs(120, 4, 6)
    assert max(gradient(found, features, label) for found in fit(features, label, GRID, 4)) < 1e-7


def one_by_one(features: torch.Tensor, label: torch.Tensor, l2: float) -> torch.Tensor:
    """Weight and bias [K, D + 1] of one penalty, by torch's L-BFGS: what `fit` did in a loop."""
    values = features.double()
    values = (values - values.mean(dim=0)) / values.std(dim=0, unbiased=False)
    values = torch.cat([values, values.new_ones(len(values), 1)], dim=1)
    weight = values.new_zeros(int(label.max()) + 1, values.shape[1]).requires_grad_()
    solver = torch.optim.LBFGS(
        [weight],
        max_iter=2000,
        tolerance_grad=1e6 * 1e-8,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        solver.zero_grad()
        value = F.cross_entropy(values @ weight.T, label)
        value = 1e6 * (value + l2 / 2 * weight[:, :-1].square().sum())
        value.backward()
        return value.item()

    solver.step(loss)
    return weight.detach()


@pytest.mark.parametrize("size", [(60, 3, 5), (240, 6, 24), (40, 4, 60)])
def test_the_grid_at_once_ends_where_a_loop_over_it_ends(size: tuple[int, int, int]) -> None:
    features, label = blobs(*size)
    held_out, held_out_label = blobs(2 * size[0], *size[1:])
    for found in fit(features, label, [1.0, 1e-1, 1e-2, 1e-3], size[1]):
        alone = one_by_one(features, label, found.l2)
        together = torch.cat([found.weight, found.bias.unsqueeze(1)], dim=1)
        torch.testing.assert_close(together, alone, rtol=0.0, atol=1e-7 / found.l2 + 1e-5)
        # So the same penalty is chosen: by how many clips it gets right.
        found_right = found.logits(held_out).argmax(dim=1) == held_out_label
        like = replace(found, weight=alone[:, :-1], bias=alone[:, -1])
        assert torch.equal(found_right, like.logits(held_out).argmax(dim=1) == held_out_label)


def test_a_penalty_has_the_same_optimum_whichever_others_there_are() -> None:
    features, label = blobs(60, 3, 5)
    last = fit(features, label, [1.0, 1e-2], 3)[-1]
    alone = fit(features, label, [1e-2], 3)[0]
    torch.testing.assert_close(last.weight, alone.weight, rtol=0.0, atol=1e-5)


def test_a_grid_takes_as_many_steps_as_its_hardest_penalty() -> None:
    features, label = blobs(300, 8, 96)
    steps: list[int] = []
    fit(features, label, [1.0, 1e-1, 1e-2, 1e-3, 1e-4], 8, lambda: steps.append(1))
    assert len(steps) < 80
    of_one: list[int] = []
    for l2 in (1.0, 1e-4):
        fit(features, label, [l2], 8, lambda: of_one.append(1))
    assert len(steps) < len(of_one)


def test_the_same_input_gives_the_same_bits() -> None:
    features, label = blobs(60, 3, 5)
    first, second = (fit(features, label, [0.1, 0.01], 3)[-1] for _ in range(2))
    assert torch.equal(first.weight, second.weight)


def test_a_constant_feature_and_a_class_that_never_occurs_do_no_harm() -> None:
    features, label = blobs(60, 3, 5)
    features[:, 0] = 7.0
    [found] = fit(features, 2 * label, [0.1], 6)  # classes 0, 2, 4 of 6
    logits = found.logits(features.reshape(30, 2, 5))
    assert logits.shape == (30, 2, 6)
    assert logits[..., [0, 2, 4]].isfinite().all()
    assert logits[..., [1, 3, 5]].eq(-torch.inf).all()
    assert (logits.reshape(60, 6).argmax(dim=1) == 2 * label).double().mean() > 0.6
