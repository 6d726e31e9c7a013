"""An image ViT of timm as a video ViT: I3D's inflation of its patches and positions."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from trainables.models.sizes import TUBELET_FRAMES

NO_PART = ("cls_token", "head.")  # of a trunk that averages over its tokens


def inflated(image: Mapping[str, Tensor], grid: tuple[int, int, int]) -> dict[str, Tensor]:
    """The tensors of an image ViT as those of a trunk with linear tubelets on `grid` (t, h, w).

    A tubelet of equal frames is embedded as the frame was: the weight of a patch is repeated over
    the frames and divided by their number (Carreira and Zisserman 2017). All times have the
    image's positions, brought to h x w as timm does it (bicubic, with antialiasing). The class
    token is left out, so the blocks see one token fewer. The norm before the classifier, `norm` or
    `fc_norm`, becomes the trunk's; where `norm` was trained on each token apart, the trunk applies
    it to their mean.
    """
    video = {
        name.replace("patch_embed.proj.", "patch_embed.").replace("fc_norm.", "norm."): tensor
        for name, tensor in image.items()
        if not name.startswith(NO_PART)
    }
    if "patch_embed.weight" in video:
        weight = video["patch_embed.weight"]
        frames = weight.unsqueeze(2).repeat_interleave(TUBELET_FRAMES, dim=2) / TUBELET_FRAMES
        video["patch_embed.weight"] = frames.flatten(1)
    if "pos_embed" in video:
        video["positions"] = _over_time(video.pop("pos_embed"), grid)
    return video


def _over_time(positions: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[t * h * w, width] of [1, n, width] or, with the class token's first, [1, 1 + n, width]."""
    times, height, width = grid
    count = positions.shape[1]
    side = math.isqrt(count)
    if side * side != count:
        positions, side = positions[:, 1:], math.isqrt(count - 1)
    if side * side != positions.shape[1]:
        raise ValueError(f"pos_embed holds {count} positions, which are no square of patches")
    if (side, side) != (height, width):
        square = positions.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=(height, width), mode="bicubic", antialias=True)
        positions = resized.flatten(2).transpose(1, 2)
    return positions[0].repeat(times, 1)
