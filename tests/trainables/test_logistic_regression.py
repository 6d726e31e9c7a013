from __future__ import annotations

import pytest
import torch

from trainables.logistic_regression import fit

linear_model = pytest.importorskip("sklearn.linear_model")


def blobs(count: int, classes: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(count) % classes
    centre = torch.randn(classes, width, generator=draw)
    scale = 10.0 ** torch.arange(width).clamp(max=3)  # features of very different size
    return scale * (centre[label] + torch.randn(count, width, generator=draw)), label


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_it_is_scikit_learn_s_optimum(l2: float) -> None:
    features, label = blobs(120, 4, 6)
    found = fit(features, label, l2)
    standardised = ((features.double() - found.mean) / found.scale).numpy()
    expected = linear_model.LogisticRegression(C=1 / (l2 * 120), tol=1e-10, max_iter=10_000)
    expected.fit(standardised, label.numpy())
    torch.testing.assert_close(found.weight, torch.from_numpy(expected.coef_), rtol=1e-3, atol=1e-4)
    assert found.predict(features).tolist() == expected.predict(standardised).tolist()


def test_the_same_input_gives_the_same_bits() -> None:
    features, label = blobs(60, 3, 5)
    first, second = fit(features, label, 0.01), fit(features, label, 0.01)
    assert torch.equal(first.weight, second.weight)


def test_a_constant_feature_and_a_class_that_never_occurs_do_no_harm() -> None:
    features, label = blobs(60, 3, 5)
    features[:, 0] = 7.0
    found = fit(features, 2 * label, 0.1)  # classes 0, 2, 4
    assert found.weight.isfinite().all()
    assert set(found.predict(features).tolist()) <= {0, 2, 4}
