from __future__ import annotations

import torch
from torch.nn import functional as F

from tests.toy import toy_trial
from trainables.models.heads import Classifier, label_space, smoothed_cross_entropy
from trainables.models.video_vit import VideoViT

CLASSES = {"virtual": ("wave", "jump", "sit"), "scenes": ("jump", "run")}  # scenes sorts first


def test_union_joins_classes_of_the_same_name() -> None:
    space = label_space(CLASSES, "union")  # jump, run, sit, wave
    assert space.outputs == 4
    assert space.output_of[0, :2].tolist() == [0, 1]
    assert space.output_of[1].tolist() == [3, 0, 2]
    assert space.allowed.all()


def test_by_index_overlays_unrelated_classes() -> None:
    space = label_space(CLASSES, "by_index")
    assert space.outputs == 3
    assert space.output_of[0, :2].tolist() == [0, 1]
    assert space.output_of[1].tolist() == [0, 1, 2]
    assert space.allowed.all()


def test_per_source_keeps_every_class_apart_and_in_its_own_softmax() -> None:
    space = label_space(CLASSES, "per_source")
    assert space.outputs == 5
    assert space.output_of[0, :2].tolist() == [0, 1]
    assert space.output_of[1].tolist() == [2, 3, 4]
    assert space.allowed.tolist() == [
        [True, True, False, False, False],
        [False, False, True, True, True],
    ]


def test_per_source_logits_of_the_other_source_are_minus_infinity_and_harm_no_gradient() -> None:
    trial = toy_trial()
    model = Classifier(VideoViT(trial.model, trial.clip), label_space(CLASSES, "per_source"))
    source, label = torch.tensor([0, 1]), torch.tensor([1, 2])
    logits = model(torch.randn(2, 3, 4, 32, 32), source)
    assert (logits == -torch.inf).tolist() == (~model.allowed).tolist()
    smoothed_cross_entropy(logits, model.target(source, label), 0.1).sum().backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.isfinite().all()


def test_smoothing_over_the_outputs_that_compete_is_pytorch_s() -> None:
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    closed = F.pad(logits, (0, 2), value=-torch.inf)
    for smoothing in (0.0, 0.1):
        torch.testing.assert_close(
            smoothed_cross_entropy(closed, target, smoothing),
            F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing),
        )
