"""A video ViT: tubelets of 2 x p x p, fixed positions, timm's blocks, mean pooling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainables.models.sizes import SIZES, TUBELET_FRAMES
from trainables.models.timm_models import transformer_block
from trainables.training_settings import ClipSettings, ModelSettings


class VideoViT(nn.Module):
    """The trunk: video [B, 3, T, H, W] -> feature [B, width], the normalised mean over tokens."""

    positions: Tensor

    def __init__(self, model: ModelSettings, clip: ClipSettings, drop_path: float = 0.0) -> None:
        super().__init__()
        assert model.vit is not None, f"{model.name} is no ViT"
        vit, size = model.vit, SIZES[model.name]
        self.width, self.depth = size.width, size.depth
        self.patch_size = vit.patch_size
        self.takes_difference = vit.tubelet == "difference"
        side = clip.resolution // vit.patch_size
        self.grid = (clip.frames // TUBELET_FRAMES, side, side)
        self.tokens = math.prod(self.grid)
        self.position_kind = vit.positions
        self.recomputes = False  # true: blocks keep no activations, and run again going backwards
        self.tubelet_values = 3 * TUBELET_FRAMES * vit.patch_size**2

        self.patch_embed = nn.Linear(self.tubelet_values, size.width)
        imported = vit.positions == "imported"  # then part of the weights, and brought by them
        self.register_buffer("positions", self.fixed_positions(size.width), persistent=imported)
        last = size.depth - 1  # the block with the full drop path; the first has none
        self.blocks = nn.ModuleList(
            transformer_block(size.width, size.heads, size.mlp_ratio, drop_path * i / last)
            for i in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        self.apply(init_linear)

    def fixed_positions(self, width: int) -> Tensor:
        """[N, width], of the kind that the settings name; the decoder's too.

        Beside imported positions a decoder has VideoMAE's, as the trunk has until it is loaded.
        """
        if self.position_kind == "sincos_3d":
            return sincos_positions_3d(self.grid, width)
        return sincos_positions(self.tokens, width)

    def tubelets(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> [B, N, 3, 2, p * p], in the form that is embedded."""
        tubelets = to_tubelets(video, self.patch_size)
        return difference(tubelets) if self.takes_difference else tubelets

    def encode(self, tubelets: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens [B, N, width] of tubelets [B, N, ...], or only of those at `visible` [B, V]."""
        return through(self.blocks, self.embedded(tubelets, visible), self.recomputes)

    def embedded(self, tubelets: Tensor, visible: Tensor | None) -> Tensor:
        """The tokens that the first block takes; see `encode`."""
        values = tubelets.flatten(2)
        positions = self.positions.expand(len(values), -1, -1)
        if visible is not None:
            values, positions = take(values, visible), take(positions, visible)
        embedded: Tensor = self.patch_embed(values) + positions
        return embedded

    def forward(self, video: Tensor) -> Tensor:
        feature: Tensor = self.norm(self.encode(self.tubelets(video)).mean(dim=1))
        return feature


def through(blocks: nn.ModuleList, tokens: Tensor, recomputes: bool) -> Tensor:
    """`tokens` after one block after the other; see `VideoViT.recomputes`."""
    for block in blocks:
        if recomputes and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, use_reentrant=False)
        else:
            tokens = block(tokens)
    return tokens


def to_tubelets(video: Tensor, patch_size: int) -> Tensor:
    """[B, C, T, H, W] -> [B, N, C, 2, p * p]; N runs over time, then height, then width.

    Flattened from dimension 2, the values lie as in the weight of VideoMAE's Conv3d.
    """
    batch, channels, frames, height, width = video.shape
    p, f = patch_size, TUBELET_FRAMES
    grid = video.reshape(batch, channels, frames // f, f, height // p, p, width // p, p)
    tubelets = grid.permute(0, 2, 4, 6, 1, 3, 5, 7)  # B, t, h, w, C, f, p, p
    return tubelets.reshape(batch, -1, channels, f, p * p)


def difference(tubelets: Tensor) -> Tensor:
    """Each pair of frames (f1, f2) as (3 (f2 - f1), 0.7 (f1 + f2)): motion at first sight.

    A tiny ViT does not find the difference of two frames by itself in a few hundred steps.
    """
    first, second = tubelets.unbind(dim=3)
    return torch.stack([3.0 * (second - first), 0.7 * (first + second)], dim=3)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens [B, K, D] that stand at `index` [B, K] of `tokens` [B, N, D]."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def sincos_positions(count: int, width: int) -> Tensor:
    """[count, width]: sine at even, cosine at odd places of position / 10000^(2 (j // 2) / width).

    The position runs over all space-time tokens, as in VideoMAE's sinusoid encoding table.
    """
    position = torch.arange(count, dtype=torch.float64).unsqueeze(1)
    place = torch.arange(width, dtype=torch.float64)
    angle = position / 10000 ** (2 * torch.div(place, 2, rounding_mode="floor") / width)
    return torch.where(place % 2 == 0, angle.sin(), angle.cos()).float()


def sincos_positions_3d(grid: tuple[int, int, int], width: int) -> Tensor:
    """[t * h * w, width]: sines and cosines of height and of width, a third each, of time the rest.

    Tokens that share a row, a column or a time share that part of their positions.
    """
    space = width // 6 * 2
    widths = (width - 2 * space, space, space)
    parts = []
    for axis, (count, part) in enumerate(zip(grid, widths, strict=True)):
        shape = [1, 1, 1, part]
        shape[axis] = count
        parts.append(sincos_positions(count, part).reshape(shape).expand(*grid, part))
    return torch.cat(parts, dim=-1).reshape(-1, width)


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as VideoMAE's pre-training does."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
