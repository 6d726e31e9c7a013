"""Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019) of pairs of clips that stand together."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.training_settings import MixupSettings

MIXUP_STREAM = 3  # second word of a batch's seed: apart from masks, augmentation, the step's own


class Mixing(NamedTuple):
    """How every pair of a batch is mixed."""

    share: float  # of a clip in what becomes of it; its partner has the rest
    box: tuple[slice, slice] | None  # rows and columns that the partner gives; None: all, blended


def draw_mixing(
    settings: MixupSettings, seed: int, step: int, height: int, width: int
) -> Mixing | None:
    """What the batch of `step` is mixed by, None where it is not; drawn as timm's Mixup does.

    The share is drawn from Beta(alpha, alpha). Cutmix cuts a box of sides sqrt(1 - share), its
    centre anywhere in the frame of `height` x `width` pixels; the share is then what the box,
    cut off at the edges, leaves.
    """
    rng = np.random.default_rng([seed, MIXUP_STREAM, step])
    if rng.random() >= settings.probability:
        return None
    cuts = settings.cutmix_alpha > 0
    if cuts and settings.mixup_alpha > 0:
        cuts = rng.random() < settings.switch_probability
    alpha = settings.cutmix_alpha if cuts else settings.mixup_alpha
    share = float(rng.beta(alpha, alpha))
    if not cuts:
        return Mixing(share, None)
    rows, columns = (_cut(size, math.sqrt(1 - share), rng) for size in (height, width))
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Mixing(1 - area / (height * width), (rows, columns))


def _cut(size: int, part: float, rng: np.random.Generator) -> slice:
    """`part` of `size` pixels around a random centre, as far as they are inside."""
    length, centre = int(size * part), int(rng.integers(size))
    return slice(max(centre - length // 2, 0), min(centre + (length + 1) // 2, size))


def partners(source: Tensor, across_sources: bool) -> Tensor:
    """The place [B] of each clip's partner: 2i and 2i + 1 are partners; its own if it has none.

    `source` [B]: clips of two sources are partners only `across_sources`.
    """
    places = torch.arange(len(source), device=source.device)
    other = places ^ 1
    alone = other >= len(source)
    if not across_sources:
        alone |= source[torch.where(alone, places, other)] != source
    return torch.where(alone, places, other)


def mixed(video: Tensor, partner: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """`video` [B, C, T, H, W], mixed, and each clip's share [B] in it: 1 for one without partner.

    The box is the same in all frames and for all clips.
    """
    alone = partner == torch.arange(len(partner), device=partner.device)
    share = torch.where(alone, 1.0, mixing.share)
    if mixing.box is None:
        weight = share.view(-1, 1, 1, 1, 1)
        return weight * video + (1 - weight) * video[partner], share
    inside = (..., *mixing.box)
    result = video.clone()
    result[inside] = video[partner][inside]
    return result, share
