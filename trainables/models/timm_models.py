"""What comes from timm and torchvision. Nothing is ever downloaded.

Of other files only data/human_removal/mask_rcnn.py imports torchvision, for its Mask R-CNN.
"""

from __future__ import annotations

import difflib
from functools import partial
from importlib import import_module

import torch
from torch import Tensor, nn


def transformer_block(width: int, heads: int, mlp_ratio: float, drop_path: float) -> nn.Module:
    """timm's pre-norm ViT block with biases on q, k and v: [B, N, width] -> [B, N, width]."""
    import_torchvision()
    from timm.models.vision_transformer import Block

    norm = partial(nn.LayerNorm, eps=1e-6)  # VideoMAE's; timm's own default changed over time
    block: nn.Module = Block(width, heads, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=norm)
    if drop_path > 0:
        block.drop_path1, block.drop_path2 = DropPath(drop_path), DropPath(drop_path)
    return block


class DropPath(nn.Module):
    """In training each clip goes without the branch [B, N, D] at `rate`, or has it / (1 - rate).

    Stochastic depth (Huang et al. 2016). timm's holds the rate as a number, which is part of what
    is compiled: each block of a model would be compiled by itself.
    """

    rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate
        return branch * (kept / (1 - self.rate)).to(branch.dtype)


def check_backbone(name: str) -> None:
    """Raises ValueError, naming the nearest, where timm has no image backbone `name`."""
    import_torchvision()
    import timm

    known = timm.list_models()
    if name not in known:  # a name with a pretrained tag or hf_hub: is none either
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"model.name: timm knows no image backbone {name!r}; the nearest is {nearest!r}"
        )


def image_backbone(name: str) -> nn.Module:
    """timm's `name` with random weights and no classifier: [B, 3, H, W] -> pooled [B, D].

    Raises:
        ValueError: timm has none of that name.
    """
    check_backbone(name)
    import timm

    backbone: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return backbone


def video_backbone(name: str) -> nn.Module:
    """torchvision's `name` with random weights and no classifier: [B, 3, T, H, W] -> [B, D].

    S3D pools over whatever its last map holds; torchvision's own pooling takes 2 x 7 x 7 only.
    """
    import_torchvision()
    from torchvision.models import video

    backbone: nn.Module = getattr(video, name)(weights=None)
    if name == "s3d":
        backbone.avgpool = nn.AdaptiveAvgPool3d(1)
        backbone.classifier = nn.Identity()
    else:
        backbone.fc = nn.Identity()
    return backbone


def import_torchvision() -> None:
    """Cure `operator torchvision::nms does not exist`, which stops timm's import.

    torchvision built for CUDA beside a CPU torch cannot load its compiled operators, and then
    fails to describe two of them. Their schemas suffice: only Mask R-CNN calls them, and says so.
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
