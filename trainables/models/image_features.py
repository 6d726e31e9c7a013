"""What one frame looks like: fixed descriptors, or the features of an image model with weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.bias import DESCRIPTORS
from trainables.data.augment import IMAGENET_MEAN, IMAGENET_STD

ImageFeatures = Callable[[Tensor], Tensor]  # float32 [B, 3, S, S], 0 to 1 -> float32 [B, D]
SCALES, CELLS, DIRECTIONS, TONES = 3, 4, 8, 8
CLASSIFIERS = ("head.", "fc.", "classifier.", "head_drop.")  # of timm's models; left out
NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def image_features(
    name: str, weights: Path | None, resolution: int, device: torch.device
) -> ImageFeatures:
    """`descriptors`, or timm's `name` with the weights in a safetensors file.

    Raises:
        ValueError: timm has no such model; the file is of another one, or cannot be read; the
            model takes no frames of this resolution.
    """
    if name == DESCRIPTORS:
        return descriptors
    assert weights is not None, "BiasSettings lets no other model pass without weights"
    backbone = _backbone(name, weights).to(device).eval()
    try:
        backbone(torch.zeros(1, 3, resolution, resolution, device=device))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"bias.resolution {resolution}: {name} does not take it ({str(error).splitlines()[0]})"
        ) from None
    mean, deviation = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return lambda frames: backbone((frames - mean) / deviation)


def _backbone(name: str, file: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from trainables.models.timm_models import image_backbone  # which takes seconds
    from trainables.stages.weights import check_same_tensors

    backbone = image_backbone(name)
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"bias.weights {file}: cannot be read ({error})") from None
    found = {key: value for key, value in found.items() if not key.startswith(CLASSIFIERS)}
    check_same_tensors(found, backbone.state_dict(), f"bias.weights {file} does not fit {name!r}")
    backbone.load_state_dict(found)
    return backbone


def descriptors(frames: Tensor) -> Tensor:
    """Float32 [B, 3, S, S], 0 to 1 -> [B, 466]: edges by direction and place, texture, tones.

    At SCALES sizes, each half of the one before: the energy of DIRECTIONS edge directions in
    CELLS x CELLS places (as in HOG, Dalal and Triggs 2005), the same over the whole frame sorted
    by size (which does not change as the frame turns), uniform local binary patterns (Ojala et al.
    2002), standardised tones. Then the colours of the four quarters and their spread.
    """
    grey, found = frames.mean(dim=1, keepdim=True), []
    for _ in range(SCALES):
        energy = _edges(grey)
        overall = energy.mean(dim=(2, 3))
        found += [
            F.adaptive_avg_pool2d(energy, CELLS).flatten(1).sqrt(),
            overall.sqrt().sort(dim=1).values,
            energy.amax(dim=1).flatten(1).std(dim=1, keepdim=True),
            _patterns(grey),
            _tones(grey),
        ]
        grey = F.avg_pool2d(grey, 2)
    quarters = F.adaptive_avg_pool2d(frames, 2).flatten(1)
    return torch.cat([*found, quarters, frames.flatten(2).std(dim=2)], dim=1)


def _edges(grey: Tensor) -> Tensor:
    """[B, DIRECTIONS, S, S] of [B, 1, S, S]: the gradient's size, shared between directions."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    angles = torch.arange(DIRECTIONS, device=grey.device) * torch.pi / DIRECTIONS
    angles = angles.view(1, -1, 1, 1)
    along = (across * angles.cos() + down * angles.sin()).abs()
    size = (across.square() + down.square()).sqrt()
    # The cosine of the angle between them, to a power that lets two neighbours share an edge.
    return size * (along / (size + 1e-6)) ** 8


def _patterns(grey: Tensor) -> Tensor:
    """[B, 10]: how often a pixel has k brighter neighbours in a row (k 0 to 8), or not in a row."""
    inner = grey[:, 0, 1:-1, 1:-1]
    height, width = inner.shape[1:]
    brighter = torch.stack(
        [grey[:, 0, 1 + y : 1 + y + height, 1 + x : 1 + x + width] > inner for y, x in NEIGHBOURS]
    )
    changes = (brighter != brighter.roll(1, dims=0)).sum(dim=0)
    pattern = torch.where(changes <= 2, brighter.sum(dim=0), 9).flatten(1)
    counts = torch.zeros(len(grey), 10, device=grey.device)
    counts.scatter_add_(1, pattern, torch.ones_like(pattern, dtype=counts.dtype))
    return (counts / pattern.shape[1]).sqrt()


def _tones(grey: Tensor) -> Tensor:
    """[B, TONES]: how often each tone occurs, within 2.5 deviations of the mean."""
    values = grey.flatten(1)
    deviation = values.std(dim=1, keepdim=True) + 1e-3
    standard = (values - values.mean(dim=1, keepdim=True)) / deviation
    bins = ((standard + 2.5) / 5 * TONES).long().clamp(0, TONES - 1)
    counts = torch.zeros(len(values), TONES, device=grey.device)
    counts.scatter_add_(1, bins, torch.ones_like(standard))
    return (counts / values.shape[1]).sqrt()
