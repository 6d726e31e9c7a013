"""Steered views: a walk in the latent space of a program that imitates a change of pixels.

z' = z + MLP([z; alpha]), trained by MSE so that G(z') looks like the change of G(z) by alpha
(Jahanian et al. 2020, as GenRep uses it). Where the generator cannot follow, the view says what it
can: a zoom of a person is another person farther away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.data.generators.exported import ExportedProgram
from trainables.data.generators.generator import Sample
from trainables.data.virtual_humans.settings import Count
from trainables.data.whole_files import write_whole
from trainables.settings import Settings

ALPHA = 4  # what a random stream is of; see exported.py
BATCH = 8  # latents a step
# Of alpha 1: e-fold of zoom, part of half a frame, of the range of values, of pi.
ZOOM, SHIFT, BRIGHTNESS, TURN = 0.25, 0.25, 0.2, 0.1


def _placed(frames: Tensor, theta: Tensor) -> Tensor:
    """[T, H, W, 3] by an affine map [2, 3]; past its edges what is there goes on."""
    pixels = frames.permute(0, 3, 1, 2)
    grid = F.affine_grid(theta.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1)


def _affine(frames: Tensor, zoom: float, turn: float, right: float, down: float) -> Tensor:
    part = float(np.exp(-zoom))
    wide = frames.shape[2] / frames.shape[1]  # turns keep shapes
    cos, sin = part * float(np.cos(turn)), part * float(np.sin(turn))
    return _placed(frames, torch.tensor([[cos, -sin / wide, -right], [sin * wide, cos, -down]]))


# Name -> frames [T, H, W, 3], 0 to 1, and alpha to the changed ones.
TRANSFORMS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "zoom": lambda frames, alpha: _affine(frames, ZOOM * alpha, 0, 0, 0),
    "turn": lambda frames, alpha: _affine(frames, 0, TURN * np.pi * alpha, 0, 0),
    "shift_x": lambda frames, alpha: _affine(frames, 0, 0, SHIFT * alpha, 0),
    "shift_y": lambda frames, alpha: _affine(frames, 0, 0, 0, SHIFT * alpha),
    "brightness": lambda frames, alpha: (frames + BRIGHTNESS * alpha).clamp(0, 1),
}


class SteeringSettings(Settings):
    transforms: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: Count  # of training the walk
    seed: Annotated[int, Field(ge=0)]


class Walk(nn.Module):
    """z [B, D] and alpha [B, transforms] -> z' [B, D]; before it is trained it stays at z."""

    def __init__(self, latent: int, transforms: int) -> None:
        super().__init__()
        hidden = max(64, 2 * latent)
        last = nn.Linear(hidden, latent)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.steps = nn.Sequential(nn.Linear(latent + transforms, hidden), nn.ReLU(), last)

    def forward(self, z: Tensor, alpha: Tensor) -> Tensor:
        moved: Tensor = z + self.steps(torch.cat([z, alpha], dim=1))
        return moved


def changed(frames: Tensor, alpha: Tensor, transforms: Sequence[str]) -> Tensor:
    """[T, H, W, 3] after all the transforms, each by its alpha [transforms]."""
    for name, amount in zip(transforms, alpha.tolist(), strict=True):
        frames = TRANSFORMS[name](frames, amount)
    return frames


def train_walk(
    program: ExportedProgram, settings: SteeringSettings, console: Console
) -> tuple[Walk, float, float]:
    """The walk, and its mean squared error over the last tenth of the steps beside that of staying.

    Raises:
        ValueError: no such transform; a program that no gradient goes through.
    """
    for name in settings.transforms:
        if name not in TRANSFORMS:
            raise ValueError(f"--steer {name}: is none of {', '.join(TRANSFORMS)}")
    generate, size, takes_class, _ = program.loaded
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)  # sums of several are not the same to the bit
    walk = Walk(size, len(settings.transforms))
    optimizer = torch.optim.Adam(walk.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    errors: list[tuple[float, float]] = []
    for _ in track(range(settings.steps), "steering", console=console, transient=True):
        for _ in range(BATCH):
            z, alpha = torch.randn(1, size), torch.randn(1, len(settings.transforms))
            label = torch.randint(max(1, len(program.settings.classes)), (1,))
            more = [label] if takes_class else []
            moved = _frames(generate(walk(z, alpha), *more))
            if not moved.requires_grad:
                raise ValueError(
                    f"{program.path}: cannot be steered, for no gradient goes through it; export a "
                    "program that gives floats from 0 to 1"
                )
            with torch.no_grad():
                start = _frames(generate(z, *more))
                wanted = changed(start, alpha[0], settings.transforms)
            error = F.mse_loss(moved, wanted)
            (error / BATCH).backward()
            errors.append((error.item(), F.mse_loss(start, wanted).item()))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    last = np.mean(errors[-max(BATCH, len(errors) // 10) :], axis=0)
    return walk.eval(), float(last[0]), float(last[1])


def _frames(made: Tensor) -> Tensor:
    """[T, H, W, 3] of a clip or an image."""
    return made.reshape(-1, *made.shape[-3:])


def write_walk(walk: Walk, path: Path) -> None:
    write_whole(path, save({name: each.contiguous() for name, each in walk.state_dict().items()}))


@lru_cache(maxsize=1)
def _walk(path: Path, latent: int, transforms: int) -> Walk:
    walk = Walk(latent, transforms)
    walk.load_state_dict(load_file(path))
    return walk.eval()


@dataclass(frozen=True)
class SteeredProgram:
    """A program whose views are steered: of scale s, by alphas of N(0, s^2), one a transform."""

    program: ExportedProgram
    settings: SteeringSettings
    walk: Path  # its weights

    @property
    def frames_per_second(self) -> int:
        return self.program.frames_per_second

    @property
    def crf(self) -> int:
        return self.program.crf

    def samples(self) -> Sequence[Sample]:
        return self.program.samples()

    def draw(self, sample: Sample, scale: float) -> np.ndarray:
        z, count = self.program.latent(sample), len(self.settings.transforms)
        if scale:
            words = [self.program.settings.seed, ALPHA, sample.number]
            alpha = scale * np.random.default_rng(words).standard_normal(count)
            given = (torch.from_numpy(each).float().unsqueeze(0) for each in (z, alpha))
            with torch.inference_mode():
                z = _walk(self.walk, len(z), count)(*given)[0].numpy()
        return self.program.draw_latent(sample, z)

    def latents(self) -> np.ndarray:
        return self.program.latents()

    def described(self) -> dict[str, Any]:
        steered = {"transforms": list(self.settings.transforms), "steps": self.settings.steps}
        return {**self.program.described(), "generator": "steered program", **steered}
