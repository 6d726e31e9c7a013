from __future__ import annotations

import math

import pytest
import torch

from tests.toy import toy_trial
from trainables.models.heads import Classifier, label_space
from trainables.models.video_vit import VideoViT
from trainables.optimization import adamw, learning_rate

SETTINGS = toy_trial().align.optimizer.model_copy(
    update={"lr_start": 1e-6, "lr_peak": 8e-4, "lr_end": 1e-5, "warmup_fraction": 0.05}
)


def test_the_learning_rate_warms_up_linearly_and_falls_as_half_a_cosine() -> None:
    rates = [learning_rate(step, 200, SETTINGS) for step in range(200)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[5] == pytest.approx((1e-6 + 8e-4) / 2)
    assert rates[10] == 8e-4 == max(rates)
    assert rates[105] == pytest.approx((8e-4 + 1e-5) / 2)
    last = 1e-5 + (8e-4 - 1e-5) * (1 + math.cos(math.pi * 189 / 190)) / 2
    assert rates[199] == pytest.approx(last)


def test_no_warm_up_starts_at_the_peak() -> None:
    settings = SETTINGS.model_copy(update={"warmup_fraction": 0.0})
    assert learning_rate(0, 10, settings) == 8e-4


def test_layer_decay_is_ppma_s_and_vectors_have_no_weight_decay() -> None:
    trial = toy_trial()
    trunk = VideoViT(trial.model, trial.clip)  # 4 blocks
    model = Classifier(trunk, label_space({"a": ("x", "y")}, "union"))
    optimizer = adamw(model, 4, SETTINGS.model_copy(update={"layer_decay": 0.75}))
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        if name.startswith("trunk.patch_embed"):
            layer = 0
        elif name.startswith("trunk.blocks"):
            layer = int(name.split(".")[2]) + 1
        else:
            layer = 5
        assert group["lr_scale"] == pytest.approx(0.75 ** (6 - layer)), name
        is_vector = name.endswith("bias") or "norm" in name
        assert group["weight_decay"] == (0.0 if is_vector else 0.05), name


def test_what_is_frozen_is_not_optimised() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    groups = adamw(model, 0, SETTINGS).param_groups
    assert [len(group["params"]) for group in groups] == [1]
