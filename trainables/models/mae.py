"""Masked autoencoding (VideoMAE, and as PPMA uses it): hidden space-time tokens are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config import DecoderSettings
from trainables.models.sizes import DECODER_MLP_RATIO
from trainables.models.timm_models import transformer_block
from trainables.models.video_vit import VideoViT, init_linear, take, through

MASK_STREAM = 1  # second word of the mask's seed: apart from the clip's augmentation draws


class MaskedAutoencoder(nn.Module):
    """Trunk and decoder. The trunk's last norm takes no part; `encoder_norm` stands in its place.

    `target` is what a masked tubelet's values are before they are drawn: `pixels` as the trunk
    embeds them, or those `normalized_per_channel` or `normalized_jointly`.
    """

    positions: Tensor

    def __init__(
        self,
        trunk: VideoViT,
        decoder: DecoderSettings,
        target: Literal["pixels", "normalized_per_channel", "normalized_jointly"],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.target = target
        self.encoder_norm = nn.LayerNorm(trunk.width, eps=1e-6)
        self.decoder_embed = nn.Linear(trunk.width, decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(decoder.width))
        self.register_buffer("positions", trunk.fixed_positions(decoder.width), False)
        self.decoder_blocks = nn.ModuleList(
            transformer_block(decoder.width, decoder.heads, DECODER_MLP_RATIO, 0.0)
            for _ in range(decoder.depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder.width, eps=1e-6)
        self.decoder_head = nn.Linear(decoder.width, trunk.tubelet_values)
        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_head):
            module.apply(init_linear)
        nn.init.normal_(self.mask_token, std=0.02)
        trunk.norm.requires_grad_(False)

    def forward(self, video: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Loss per clip [B]: squared error, mean over the values of the masked tubelets.

        `video` [B, 3, T, H, W]; `visible` [B, V] and `masked` [B, M] divide the token indices.
        """
        tubelets = self.trunk.tubelets(video)
        encoded = self.encoder_norm(self.trunk.encode(tubelets, visible))
        tokens = self.decoder_tokens(encoded, visible, masked)
        tokens = through(self.decoder_blocks, tokens, self.trunk.recomputes)
        return self.error(tokens, tubelets, masked)

    def decoder_tokens(self, encoded: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """[B, V + M, D]: what is known of the `visible` tokens, then the `masked` ones."""
        positions = self.positions.expand(len(encoded), -1, -1)
        known = self.decoder_embed(encoded) + take(positions, visible)
        unknown = self.mask_token + take(positions, masked)
        return torch.cat([known, unknown.to(known.dtype)], dim=1)

    def error(self, tokens: Tensor, tubelets: Tensor, masked: Tensor) -> Tensor:
        """[B]: of what the last decoder block's `tokens` [B, V + M, D] draw of the `masked`."""
        visible = tokens.shape[1] - masked.shape[1]
        drawn = self.decoder_head(self.decoder_norm(tokens[:, visible:]))
        if self.target == "normalized_per_channel":
            tubelets = normalized_per_channel(tubelets)
        elif self.target == "normalized_jointly":
            tubelets = normalized_jointly(tubelets)
        wanted = take(tubelets.flatten(2), masked)
        return (drawn.float() - wanted.float()).square().mean(dim=(1, 2))

    def trunk_tensors(self, final_norm: Literal["fresh", "kept"]) -> dict[str, Tensor]:
        """The trunk's weights; where it is `kept`, the encoder's last norm is the trunk's."""
        tensors: dict[str, Tensor] = self.trunk.state_dict()
        if final_norm == "kept":
            tensors |= {f"norm.{name}": t for name, t in self.encoder_norm.state_dict().items()}
        return tensors


def normalized_per_channel(tubelets: Tensor) -> Tensor:
    """(x - mean) / (deviation + 1e-6) of tubelets [B, N, C, 2, p * p], each channel by itself.

    Mean and unbiased deviation are over the 2 p^2 values that a tubelet has of the channel: what
    VideoMAE's released code does, and PPMA's.
    """
    values = tubelets.flatten(3)
    normal = (values - values.mean(-1, keepdim=True)) / (values.std(-1, keepdim=True) + 1e-6)
    return normal.reshape(tubelets.shape)


def normalized_jointly(tubelets: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-6) of tubelets [B, N, C, 2, p * p].

    Mean and unbiased variance are over all 2 p^2 C values of a tubelet: the rule of image MAE
    (He et al. 2022). It keeps how the channels of a tubelet differ, which the other takes away.
    """
    values = tubelets.flatten(2)
    variance = values.var(-1, keepdim=True)
    normal = (values - values.mean(-1, keepdim=True)) / (variance + 1e-6).sqrt()
    return normal.reshape(tubelets.shape)


def draw_masks(
    seeds: Sequence[int],
    grid: tuple[int, int, int],
    mask_ratio: float,
    masking: Literal["random", "tube"],
) -> tuple[Tensor, Tensor]:
    """(visible [B, V], masked [B, M]): a division of the `grid` (t, h, w) of tokens for each clip.

    It follows from the clip's seed. `random` hides M = int(mask_ratio * t * h * w) tokens; `tube`
    hides int(mask_ratio * h * w) places, each at all times (VideoMAE). At least one token, or
    place, is hidden and one is not.

    Raises:
        ValueError: there is but one token, or place.
    """
    times, places = grid[0], math.prod(grid[1:])
    units = places if masking == "tube" else times * places
    if units < 2:
        raise ValueError(
            f"mae.masking {masking!r} cannot divide a grid of {grid} tokens (times, rows, columns) "
            "into hidden and visible ones; raise clip.resolution or lower model.vit.patch_size"
        )
    hidden = min(max(int(mask_ratio * units), 1), units - 1)
    orders = [np.random.default_rng([seed, MASK_STREAM]).permutation(units) for seed in seeds]
    order = torch.from_numpy(np.stack(orders))
    visible, masked = order[:, hidden:], order[:, :hidden]
    if masking == "random":
        return visible, masked
    starts = torch.arange(times).view(1, -1, 1) * places  # of each time's tokens
    return (starts + visible.unsqueeze(1)).flatten(1), (starts + masked.unsqueeze(1)).flatten(1)
