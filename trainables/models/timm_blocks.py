"""timm's blocks, and timm beside any torchvision."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn


def transformer_block(width: int, heads: int, mlp_ratio: float, drop_path: float) -> nn.Module:
    """timm's pre-norm ViT block with biases on q, k and v: [B, N, width] -> [B, N, width]."""
    import_torchvision()
    from timm.models.vision_transformer import Block

    block: nn.Module = Block(width, heads, mlp_ratio=mlp_ratio, qkv_bias=True, drop_path=drop_path)
    return block


def import_torchvision() -> None:
    """Cure `operator torchvision::nms does not exist`, which stops timm's import.

    torchvision built for CUDA beside a CPU torch cannot load its compiled operators, and then
    fails to describe two of them. Their schemas suffice: nothing here ever calls them.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
