from __future__ import annotations

import pytest
import torch

from trainables.metrics import in_top, mean_class_accuracy, scores

metrics = pytest.importorskip("sklearn.metrics")


def drawn(clips: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (clips,), generator=draw).pow(2) // classes  # uneven
    logits = torch.randn(clips, classes, generator=draw) + 1.5 * torch.eye(classes)[label]
    return logits, label


@pytest.mark.filterwarnings("ignore:y_pred contains", "ignore:.k. .4.")
@pytest.mark.parametrize("classes", [4, 12])
def test_they_are_scikit_learn_s(classes: int) -> None:
    logits, label = drawn(200, classes)
    found = scores(logits, label, torch.arange(200))
    predicted, names = logits.argmax(dim=1).numpy(), range(classes)
    top5 = metrics.top_k_accuracy_score(label, logits.numpy(), k=min(5, classes), labels=names)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, predicted))
    assert found["top5"] == pytest.approx(1.0 if classes == 4 else top5)
    assert found["mean_class_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(label, predicted)
    )
    assert found["accuracy"] != pytest.approx(found["mean_class_accuracy"])
    assert 0 < found["interval_low"] < found["accuracy"] < found["interval_high"] <= 1
    assert found["clips"] == 200


def test_the_interval_is_over_groups() -> None:
    logits, label = drawn(200, 3)
    order = in_top(logits, label, 1).int().argsort()  # whole groups are right, or wrong
    logits, label = logits[order], label[order]
    alone = scores(logits, label, torch.arange(200))
    together = scores(logits, label, torch.arange(200) // 20)
    assert together["interval_high"] - together["interval_low"] > 2 * (
        alone["interval_high"] - alone["interval_low"]
    )


def test_a_class_that_never_occurs_has_no_accuracy_to_average() -> None:
    label = torch.tensor([0, 0, 0, 3])
    correct = torch.tensor([True, True, False, False])
    assert mean_class_accuracy(correct, label) == pytest.approx((2 / 3 + 0) / 2)


def test_a_model_that_says_nothing_is_not_right() -> None:
    logits, label = torch.zeros(10, 10), torch.arange(10)
    assert in_top(logits, label, 1).sum() == 1
    assert in_top(logits, label, 5).sum() == 5


def test_a_class_that_was_never_trained_is_never_right() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.0], [0.0, -torch.inf, 1.0]])
    assert in_top(logits, torch.tensor([1, 0]), 5).tolist() == [False, True]
