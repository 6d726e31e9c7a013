"""A generative model of short clips that is learnt in minutes on one core.

Pixels to cells (principal components), cells to a latent vector and back (a variational
autoencoder), and noise to such vectors (flow matching, Lipman et al. 2023). Sampling walks from
noise to a vector in a few steps and draws nothing, so the noise is the latent z of G(z).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8  # pixels of its side
NUMBERS = 96  # of a cell
LATENT = 128
AUTOENCODER_WIDTH, FLOW_WIDTH = 1024, 512
FLOW_STEPS = 6  # of sampling, by the midpoint rule
WAVES = 32  # that tell the time


def as_channels(clips: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] to float [B, 3T, H, W] from 0 to 1."""
    return clips.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 255


class Cells(nn.Module):
    """Clips [B, 3T, H, W], from 0 to 1, as numbers [B, h * w * NUMBERS], and back.

    A cell has the first principal components of 8x8 pixels in all frames. Its numbers have
    deviations that are the square root of the components' own, the first's being 1: fine parts
    count for more than in pixels and for less than coarse ones.
    """

    typical: Tensor  # [3T * 64], the mean of the cells
    components: Tensor  # [3T * 64, NUMBERS], each the change of pixels that a number of 1 makes
    inverse: Tensor  # likewise, from pixels to numbers

    def __init__(self, frames: int, height: int, width: int) -> None:
        super().__init__()
        pixels, self.size = 3 * frames * CELL**2, (height // CELL, width // CELL)
        self.register_buffer("typical", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(pixels, NUMBERS))
        self.register_buffer("inverse", torch.zeros(pixels, NUMBERS))

    @property
    def numbers(self) -> int:
        return self.size[0] * self.size[1] * NUMBERS

    def fit(self, clips: Tensor) -> None:
        cells = F.pixel_unshuffle(clips, CELL).permute(0, 2, 3, 1).flatten(0, 2)
        self.typical.copy_(cells.mean(0))
        variances, directions = torch.linalg.eigh(torch.cov(cells.T))
        deviations = variances[-NUMBERS:].clamp(min=1e-8).sqrt()
        scale = (deviations * deviations[-1]).sqrt()
        self.components.copy_(directions[:, -NUMBERS:] * scale)
        self.inverse.copy_(directions[:, -NUMBERS:] / scale)

    def encode(self, clips: Tensor) -> Tensor:
        cells = F.pixel_unshuffle(clips, CELL) - self.typical[:, None, None]
        return torch.einsum("bphw,pn->bhwn", cells, self.inverse).flatten(1)

    def decode(self, numbers: Tensor) -> Tensor:
        grid = numbers.unflatten(1, (*self.size, NUMBERS))
        cells = torch.einsum("bhwn,pn->bphw", grid, self.components)
        return F.pixel_shuffle(cells + self.typical[:, None, None], CELL)


class Perceptron(nn.Module):
    """[B, inputs] and a class, int64 [B], to [B, outputs]; `condition` is added like the class."""

    def __init__(self, inputs: int, outputs: int, classes: int, width: int, layers: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.label = nn.Embedding(classes, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())
            for _ in range(layers)
        )

    def forward(self, x: Tensor, label: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.first(x) + self.label(label)
        x = F.silu(x if condition is None else x + condition)
        for layer in self.layers:
            x = x + layer(x)
        found: Tensor = self.last(x)
        return found


class Autoencoder(nn.Module):
    """Of the numbers [B, P] of clips; `typical`, [P], is their mean."""

    typical: Tensor

    def __init__(self, typical: Tensor, classes: int) -> None:
        super().__init__()
        numbers = len(typical)
        self.register_buffer("typical", typical)
        self.encoder = Perceptron(numbers, 2 * LATENT, classes, AUTOENCODER_WIDTH, layers=1)
        self.decoder = Perceptron(LATENT, numbers, classes, AUTOENCODER_WIDTH, layers=2)

    def encode(self, numbers: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Means and deviations of the latent vectors, each [B, LATENT]."""
        mean, log_variance = self.encoder(numbers - self.typical, label).chunk(2, dim=1)
        return mean, (log_variance.clamp(-10, 3) / 2).exp()

    def decode(self, latent: Tensor, label: Tensor) -> Tensor:
        numbers: Tensor = self.decoder(latent, label) + self.typical
        return numbers


class Flow(nn.Module):
    """The velocity of latent vectors [B, LATENT] at a time [B], 0 (noise) to 1, to those of clips
    of a class, int64 [B].

    Class number `classes` stands for any: guidance leads away from it (Ho & Salimans 2022).
    """

    rates: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.any_class = classes
        self.perceptron = Perceptron(LATENT, LATENT, classes + 1, FLOW_WIDTH, layers=3)
        self.time = nn.Linear(2 * WAVES, FLOW_WIDTH)
        self.register_buffer("rates", 100 * torch.exp(-math.log(1e3) * torch.arange(WAVES) / WAVES))

    def forward(self, latent: Tensor, time: Tensor, label: Tensor) -> Tensor:
        angles = time.unsqueeze(1) * self.rates
        condition = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        velocity: Tensor = self.perceptron(latent, label, condition)
        return velocity


class ClipModel(nn.Module):
    """z, float32 [1, LATENT], and a class, int64 [1], to a clip [1, T, H, W, 3] from 0 to 1.

    `mean`, `deviation`: [LATENT], of the latent vectors of clips. `guidance`: 1 is none.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        cells: Cells,
        autoencoder: Autoencoder,
        flow: Flow,
        mean: Tensor,
        deviation: Tensor,
        guidance: float,
    ) -> None:
        super().__init__()
        self.cells, self.autoencoder, self.flow = cells, autoencoder, flow
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.guidance = guidance

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        latent, step = z, 1 / FLOW_STEPS
        for number in range(FLOW_STEPS):
            start = number * step
            half = latent + step / 2 * self._velocity(latent, start, label)
            latent = latent + step * self._velocity(half, start + step / 2, label)
        numbers = self.autoencoder.decode(latent * self.deviation + self.mean, label)
        clips = self.cells.decode(numbers).clamp(0, 1)
        return clips.unflatten(1, (-1, 3)).permute(0, 1, 3, 4, 2)

    def _velocity(self, latent: Tensor, time: float, label: Tensor) -> Tensor:
        """With and without the class, as one batch of two."""
        labels = torch.cat([label, torch.full_like(label, self.flow.any_class)])
        found = self.flow(latent.repeat(2, 1), torch.full((2,), time), labels)
        towards, anywhere = found.chunk(2)
        guided: Tensor = anywhere.lerp(towards, self.guidance)
        return guided
