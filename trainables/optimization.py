"""The optimizer and its parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainables.training_settings import OptimizerSettings


def build_optimizer(
    model: nn.Module, depth: int, settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, over `parameter_groups`."""
    groups = parameter_groups(model, depth, settings)
    if settings.algorithm == "adamw":
        assert settings.betas is not None
        return torch.optim.AdamW(groups, lr=settings.lr_peak, betas=settings.betas, fused=True)
    assert settings.momentum is not None
    return torch.optim.SGD(groups, lr=settings.lr_peak, momentum=settings.momentum, fused=True)


def parameter_groups(
    model: nn.Module, depth: int, settings: OptimizerSettings
) -> list[dict[str, Any]]:
    """What `model` trains; a group's `lr_scale` multiplies the learning rate.

    Layer decay d: a layer's scale is d^(depth + 1 - id), with id 0 for the patch embedding, i + 1
    for block i of the trunk and depth + 1 for all else, so that the head gets 1 (BEiT). With
    `layer_decay_of_head` all are decayed once more, and the head gets d (PPMA).
    Vectors and scalars (biases, norms, mask tokens) have no weight decay.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (layer_id(name, depth), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    top = depth + 1 + settings.layer_decay_of_head
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "lr_scale": settings.layer_decay ** (top - layer),
        }
        for (layer, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_id(name: str, depth: int) -> int:
    """0 for the trunk's patch embedding, i + 1 for its block i, depth + 1 for everything else."""
    place = name.partition("trunk.")[2].split(".")
    if place[0] == "patch_embed":
        return 0
    return int(place[1]) + 1 if place[0] == "blocks" else depth + 1


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
