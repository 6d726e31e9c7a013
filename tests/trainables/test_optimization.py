from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.toy import toy_trial
from trainables.models.heads import Classifier, label_space
from trainables.models.video_vit import VideoViT
from trainables.optimization import (
    build_optimizer,
    parameter_groups,
    set_learning_rate,
)
from trainables.training_settings import OptimizerSettings


def settings(**changes: Any) -> OptimizerSettings:
    rates = {"lr_start": 1e-6, "lr_peak": 8e-4, "lr_end": 1e-5, "warmup_fraction": 0.05}
    return toy_trial().align.optimizer.model_copy(update={**rates, **changes})


def scales_and_decays(model: torch.nn.Module, **changes: Any) -> dict[str, tuple[float, float]]:
    """Parameter name -> scale of its learning rate, weight decay."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        name_of[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(model, 4, settings(layer_decay=0.75, **changes))
        for parameter in group["params"]
    }


def test_layer_decay_is_ppma_s_and_vectors_have_no_weight_decay() -> None:
    trial = toy_trial()
    trunk = VideoViT(trial.model, trial.clip)  # 4 blocks
    model = Classifier(trunk, label_space({"a": ("x", "y")}, "union"))
    found = scales_and_decays(model, layer_decay_of_head=True)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, (scale, weight_decay) in found.items():
        if name.startswith("trunk.patch_embed"):
            layer = 0
        elif name.startswith("trunk.blocks"):
            layer = int(name.split(".")[2]) + 1
        else:
            layer = 5
        assert scale == pytest.approx(0.75 ** (6 - layer)), name
        is_vector = name.endswith("bias") or "norm" in name
        assert weight_decay == (0.0 if is_vector else 0.05), name


def test_layer_decay_without_the_head_s_is_timm_s() -> None:
    trial = toy_trial()
    VideoViT(trial.model, trial.clip)  # makes timm importable, whatever torchvision is here
    from timm.models.vision_transformer import VisionTransformer
    from timm.optim import param_groups_layer_decay

    trunk = VisionTransformer(
        img_size=32, embed_dim=8, depth=4, num_heads=2, class_token=False, pos_embed="none",
        global_pool="avg", num_classes=3,
    )  # fmt: skip
    groups = param_groups_layer_decay(trunk, weight_decay=0.05, layer_decay=0.75)
    scale_of = {
        id(parameter): (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    timm_s = {f"trunk.{name}": scale_of[id(p)] for name, p in trunk.named_parameters()}
    found = scales_and_decays(torch.nn.ModuleDict({"trunk": trunk}), layer_decay_of_head=False)
    assert found["trunk.head.weight"] == (1.0, 0.05)
    assert len({scale for scale, _ in timm_s.values()}) == 6
    assert found.keys() == timm_s.keys()
    for name, pair in timm_s.items():
        assert found[name] == pytest.approx(pair), name


def test_sgd_follows_its_formula_with_momentum_layer_decay_and_no_decay_on_vectors() -> None:
    torch.manual_seed(0)
    block = torch.nn.Linear(2, 3)
    model = torch.nn.ModuleDict({"trunk": torch.nn.ModuleDict({"patch_embed": block})})
    chosen = settings(algorithm="sgd", betas=None, momentum=0.9, layer_decay=0.5)
    optimizer = build_optimizer(model, 0, chosen)
    tensors = {"weight": block.weight, "bias": block.bias}
    expected = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    velocity = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    for lr in (0.1, 0.2, 0.05):
        for name, tensor in tensors.items():
            tensor.grad = torch.randn_like(tensor)
            decayed = tensor.grad + (0.05 * expected[name] if name == "weight" else 0.0)
            velocity[name] = 0.9 * velocity[name] + decayed
            expected[name] -= 0.5**2 * lr * velocity[name]  # layer 0 of depth 0, the head decayed
        set_learning_rate(optimizer, lr)
        optimizer.step()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor.detach(), expected[name])


def test_what_is_frozen_is_not_optimised() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(model, 0, settings())] == [1]
