"""Floating-point operations of a clip, and parameters, from the settings alone: no torch.

A multiplication and its addition count as two, and only matrix products are counted, as by
`torch.utils.flop_counter`. Convolutional networks are not modelled: None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainables.models.sizes import DECODER_MLP_RATIO, SIZES, TUBELET_FRAMES, Size

# Of image models that see single frames, by what they do to a frame of 224 x 224 pixels; our
# descriptors have no matrix product, and cost about what so many operations a pixel do.
PER_PIXEL = {
    "descriptors": 500.0,
    "resnet18": 3.6e9 / 224**2,
    "resnet50": 8.2e9 / 224**2,
    "vit_small_patch16_224": 9.2e9 / 224**2,
    "vit_base_patch16_224": 35.1e9 / 224**2,
}
Described = Mapping[str, Any]  # settings of a stage, as its description holds them


def features_flops(model: Described, clip: Described) -> float | None:
    """Forward pass of the trunk over one view: [3, T, H, W] -> feature."""
    if model["name"] not in SIZES:
        return None
    size, tokens = SIZES[model["name"]], _tokens(model, clip)
    return _embedding(model, size, tokens) + size.depth * _block(size.width, size.mlp_ratio, tokens)


def image_flops(model: Described, clip: Described) -> float | None:
    """Of the frames of a clip that an image model, or our descriptors, see one by one."""
    pixels = clip["frames"] * clip["resolution"] ** 2
    known = PER_PIXEL.get(model["name"])
    return None if known is None else known * pixels


def classification_flops(model: Described, clip: Described, *, frozen: bool) -> float | None:
    """A training step's share of one clip; the head's, D x classes, is left out.

    The backward pass takes each matrix product twice, for the weights and for what comes before;
    the patch embedding has nothing before it. Of a `frozen` trunk there is none.
    """
    forward = features_flops(model, clip)
    if forward is None or frozen:
        return forward
    size, tokens = SIZES[model["name"]], _tokens(model, clip)
    return 3 * forward - _embedding(model, size, tokens)


def mae_flops(model: Described, clip: Described, mae: Described) -> float | None:
    """A training step's share of one view: encoder on the visible tokens, decoder on all."""
    if model["name"] not in SIZES:
        return None
    size, tokens = SIZES[model["name"]], _tokens(model, clip)
    hidden = hidden_tokens(model, clip, mae)
    visible = tokens - hidden
    width, depth = mae["decoder"]["width"], mae["decoder"]["depth"]
    embedding = _embedding(model, size, visible)
    forward = (
        embedding
        + size.depth * _block(size.width, size.mlp_ratio, visible)
        + 2 * visible * size.width * width
        + depth * _block(width, DECODER_MLP_RATIO, tokens)
        + 2 * hidden * width * _tubelet_values(model)
    )
    return 3 * forward - embedding


def parameters(model: Described, mae: Described | None) -> int | None:
    """Of the trunk, and with `mae` of the decoder and the encoder's own norm too; no head's."""
    if model["name"] not in SIZES:
        return None
    size, values = SIZES[model["name"]], _tubelet_values(model)
    trunk = (values + 1) * size.width + 2 * size.width
    trunk += size.depth * _block_parameters(size.width, size.mlp_ratio)
    if mae is None:
        return trunk
    width, depth = mae["decoder"]["width"], mae["decoder"]["depth"]
    decoder = size.width * width + width + 2 * width + (width + 1) * values
    decoder += depth * _block_parameters(width, DECODER_MLP_RATIO)
    return trunk + 2 * size.width + decoder


def hidden_tokens(model: Described, clip: Described, mae: Described) -> int:
    """See `models.mae.draw_masks`."""
    times, places = _grid(model, clip)
    units = places if mae["masking"] == "tube" else times * places
    hidden = min(max(int(mae["mask_ratio"] * units), 1), units - 1)
    return hidden * times if mae["masking"] == "tube" else hidden


def _grid(model: Described, clip: Described) -> tuple[int, int]:
    """Tokens over time, and at one time."""
    side = clip["resolution"] // model["vit"]["patch_size"]
    return clip["frames"] // TUBELET_FRAMES, side**2


def _tokens(model: Described, clip: Described) -> int:
    return math.prod(_grid(model, clip))


def _tubelet_values(model: Described) -> int:
    return int(3 * TUBELET_FRAMES * model["vit"]["patch_size"] ** 2)


def _embedding(model: Described, size: Size, tokens: int) -> float:
    return 2.0 * tokens * _tubelet_values(model) * size.width


def _block(width: int, mlp_ratio: float, tokens: int) -> float:
    """Forward: queries, keys, values and projection; two products of attention; two layers."""
    linear = 2 * tokens * width * width * (4 + 2 * mlp_ratio)
    return linear + 2 * 2 * tokens * tokens * width


def _block_parameters(width: int, mlp_ratio: float) -> int:
    hidden = int(width * mlp_ratio)
    attention = (width + 1) * 3 * width + (width + 1) * width
    return attention + (width + 1) * hidden + (hidden + 1) * width + 2 * 2 * width
