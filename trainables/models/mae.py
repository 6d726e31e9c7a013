"""Masked autoencoding (VideoMAE, as PPMA uses it): hidden space-time tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config import DecoderSettings
from trainables.models.timm_models import transformer_block
from trainables.models.video_vit import VideoViT, init_linear, take

MASK_STREAM = 1  # second word of the mask's seed: apart from the clip's augmentation draws


class MaskedAutoencoder(nn.Module):
    """Trunk and decoder. The trunk's last norm takes no part: alignment starts with it fresh."""

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
            transformer_block(decoder.width, decoder.heads, 4.0, 0.0) for _ in range(decoder.depth)
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
        positions = self.positions.expand(len(video), -1, -1)
        known = self.decoder_embed(encoded) + take(positions, visible)
        unknown = self.mask_token + take(positions, masked)
        tokens = torch.cat([known, unknown.to(known.dtype)], dim=1)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        drawn = self.decoder_head(self.decoder_norm(tokens[:, visible.shape[1] :]))

        if self.target == "normalized_per_channel":
            tubelets = normalized_per_channel(tubelets)
        wanted = take(tubelets.flatten(2), masked)
        return (drawn.float() - wanted.float()).square().mean(dim=(1, 2))


def normalized_per_channel(tubelets: Tensor) -> Tensor:
    """Each tubelet's channels [B, N, C, 2, p * p] brought to mean 0, deviation 1."""
    values = tubelets.flatten(3)
    normal = (values - values.mean(-1, keepdim=True)) / (values.std(-1, keepdim=True) + 1e-6)
    return normal.reshape(tubelets.shape)


def draw_masks(seeds: Sequence[int], tokens: int, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """(visible [B, V], masked [B, M]): for each clip a random division that its seed decides.

    M = int(mask_ratio * tokens), as in VideoMAE, but at least 1 and at most tokens - 1.
    """
    hidden = min(max(int(mask_ratio * tokens), 1), tokens - 1)
    orders = [np.random.default_rng([seed, MASK_STREAM]).permutation(tokens) for seed in seeds]
    order = torch.from_numpy(np.stack(orders))
    return order[:, hidden:], order[:, :hidden]
