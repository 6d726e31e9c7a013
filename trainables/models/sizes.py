"""The sizes of the video ViTs, for the model itself and for those who count without torch."""

from __future__ import annotations

from typing import NamedTuple

TUBELET_FRAMES = 2
DECODER_MLP_RATIO = 4.0


class Size(NamedTuple):
    width: int
    depth: int
    heads: int
    mlp_ratio: float


SIZES = {
    "vit_tiny": Size(96, 4, 4, 3.0),
    "vit_small": Size(384, 12, 6, 4.0),
    "vit_base": Size(768, 12, 12, 4.0),
    "vit_large": Size(1024, 24, 16, 4.0),
}
