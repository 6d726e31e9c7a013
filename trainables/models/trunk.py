"""The trunk that a trial's settings name: a video ViT, or a convolutional network."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.models.timm_models import image_backbone, video_backbone
from trainables.models.video_vit import VideoViT
from trainables.training_settings import TSN, ClipSettings, ModelSettings


class ConvolutionalTrunk(nn.Module):
    """video [B, 3, T, H, W] -> pooled feature [B, width] of a network without its classifier.

    `tsn_<name>`: timm's image network on every frame, averaged over the frames (Wang et al. 2016).
    Its batch normalisation takes the statistics of the clips that one process has at a time.
    """

    depth = 0  # no layers with a learning rate of their own

    def __init__(self, model: ModelSettings, clip: ClipSettings) -> None:
        super().__init__()
        self.per_frame = model.name.startswith(TSN)
        if self.per_frame:
            self.backbone = image_backbone(model.name.removeprefix(TSN))
        else:
            self.backbone = video_backbone(model.name)
        self.width = self._width(model, clip)

    def _width(self, model: ModelSettings, clip: ClipSettings) -> int:
        """The size of the feature, from a pass without values."""
        without_values = {
            name: tensor.to("meta")
            for name, tensor in (*self.named_parameters(), *self.named_buffers())
        }
        shape = (1, 3, clip.frames, clip.resolution, clip.resolution)
        try:
            feature = functional_call(
                self.eval(), without_values, torch.empty(shape, device="meta")
            )
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"model {model.name!r} cannot take clips of {clip.frames} frames of "
                f"{clip.resolution} x {clip.resolution} ({error}); change clip.frames or "
                "clip.resolution, or choose another model"
            ) from None
        self.train()
        return int(feature.shape[1])

    def forward(self, video: Tensor) -> Tensor:
        if not self.per_frame:
            feature: Tensor = self.backbone(video)
            return feature
        frames = video.transpose(1, 2)  # B, T, 3, H, W
        features: Tensor = self.backbone(frames.flatten(0, 1))
        return features.unflatten(0, frames.shape[:2]).mean(dim=1)


Trunk: TypeAlias = VideoViT | ConvolutionalTrunk


def build_trunk(model: ModelSettings, clip: ClipSettings, drop_path: float = 0.0) -> Trunk:
    """A trunk with random weights: video [B, 3, T, H, W] -> feature [B, trunk.width].

    `drop_path`: of the last block of a ViT; it grows linearly from none in the first.

    Raises:
        ValueError: timm has no such backbone; the clip is too small for the network.
    """
    if model.vit is not None:
        return VideoViT(model, clip, drop_path)
    assert drop_path == 0, "TrialConfig gives a convolutional network none"
    return ConvolutionalTrunk(model, clip)
