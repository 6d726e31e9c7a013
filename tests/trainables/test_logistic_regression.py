from __future__ import annotations

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


def test_the_path_to_an_optimum_does_not_matter() -> None:
    features, label = blobs(60, 3, 5)
    last = fit(features, label, [1.0, 1e-2], 3)[-1]
    alone = fit(features, label, [1e-2], 3)[0]
    torch.testing.assert_close(last.weight, alone.weight, rtol=0.0, atol=1e-4)


def test_the_optimum_is_reached_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    features, label = blobs(300, 8, 96)
    steps = []
    cross_entropy = F.cross_entropy

    def counted(*args: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        return cross_entropy(*args)

    monkeypatch.setattr(F, "cross_entropy", counted)
    fit(features, label, [1e-1], 8)
    alone = len(steps)
    assert alone < 120
    steps.clear()
    fit(features, label, [1e-1, 0.9e-1], 8)
    assert len(steps) - alone < 0.7 * alone


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
