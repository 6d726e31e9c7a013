from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from tests.trainables.data.test_generators import program
from trainables.data.catalog import load_catalog
from trainables.data.clips import read_clip
from trainables.data.generators.__main__ import main
from trainables.data.generators.steering import (
    BRIGHTNESS,
    SteeringSettings,
    changed,
    train_walk,
)


class Square(nn.Module):
    """An image of a bright square on grey: its place across and its brightness are the latent."""

    def forward(self, z: Tensor) -> Tensor:
        at = torch.arange(32) / 16 - 31 / 32
        across = torch.sigmoid(20 * (0.3 - (at - z[:, :1] / 4).abs()))
        down = torch.sigmoid(20 * (0.3 - at.abs()))
        square = down[None, :, None, None] * across[:, None, :, None]
        light = 0.2 + 0.15 * torch.tanh(z[:, 1]).view(-1, 1, 1, 1) + 0.4 * square
        return light.expand(-1, -1, -1, 3)


def exported(path: Path, model: nn.Module) -> Path:
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3),)), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shift_x", "brightness"])
def test_a_walk_imitates_a_change_of_pixels(name: str, tmp_path: Path) -> None:
    settings = SteeringSettings(transforms=(name,), steps=120, seed=0)
    square = program(exported(tmp_path / "square.pt2", Square()))
    walk, error, staying = train_walk(square, settings, Console(quiet=True))
    assert error < 0.35 * staying
    z = torch.zeros(1, 3)
    moved, back = (walk(z, torch.tensor([[alpha]]))[0] for alpha in (0.8, -0.8))
    along = {"shift_x": 0, "brightness": 1}[name]
    assert moved[along] > 0.3 and back[along] < -0.3


def test_changes_are_what_they_say() -> None:
    frames = torch.zeros(1, 32, 48, 3)
    frames[:, 12:20, 20:28] = 0.5

    def centre(name: str, alpha: float) -> tuple[float, float, float]:
        light = changed(frames, torch.tensor([alpha]), [name])[0, :, :, 0]
        rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
        mass = float(light.sum())
        return float((rows * light).sum()) / mass, float((columns * light).sum()) / mass, mass

    down, right, mass = centre("zoom", 0.0)
    assert (down, right, mass) == pytest.approx((15.5, 23.5, 32), abs=1e-3)
    assert centre("shift_x", 1.0)[:2] == pytest.approx((down, right + 0.25 * 24), abs=0.05)
    assert centre("shift_y", -1.0)[:2] == pytest.approx((down - 0.25 * 16, right), abs=0.05)
    assert centre("zoom", 1.0)[2] == pytest.approx(mass * np.exp(2 * 0.25), rel=0.1)
    assert centre("turn", 1.0) == pytest.approx((down, right, mass), rel=0.05)
    lit = changed(frames, torch.tensor([1.0]), ["brightness"])
    torch.testing.assert_close(lit, frames + BRIGHTNESS)


@pytest.mark.slow
def test_steered_views_are_sampled_and_go_on(tmp_path: Path) -> None:
    path = exported(tmp_path / "square.pt2", Square())
    options = ["--clips", "6", "--steer", "shift_x", "--steer-steps", "60", "--workers", "1"]
    command = ["program", str(path), str(tmp_path / "out"), *options, "--scales", "0.5", "1"]
    assert main(command) == 0
    walk = tmp_path / "out/generated.walk.safetensors"
    before = walk.stat().st_mtime_ns
    assert main(command) == 0 and walk.stat().st_mtime_ns == before
    dataset = load_catalog(tmp_path / "out/catalog.yaml")["generated"]

    def place(root: Path, clip: str) -> float:
        light = read_clip(
            root / clip, frames=1, seconds=1, position=0, short_side=32, frame_rate=None
        )[0].mean(axis=(0, 2))
        above = light - light.min()
        return float((np.arange(32) * above).sum() / above.sum())

    steps = {
        scale: [place(root, c.path) - place(dataset.root, c.path) for c in dataset.clips]
        for scale, root in dataset.views.items()
    }
    assert np.abs(steps[1.0]).mean() > np.abs(steps[0.5]).mean() > 0.2
    assert np.corrcoef(steps[0.5], steps[1.0])[0, 1] > 0.8  # the same alpha, farther


def test_what_cannot_be_steered_is_refused(tmp_path: Path) -> None:
    class Whole(Square):
        def forward(self, z: Tensor) -> Tensor:
            return (255 * super().forward(z)).to(torch.uint8)

    whole = program(exported(tmp_path / "whole.pt2", Whole()))
    with pytest.raises(ValueError, match="no gradient goes through it"):
        train_walk(
            whole, SteeringSettings(transforms=("zoom",), steps=1, seed=0), Console(quiet=True)
        )
    with pytest.raises(ValueError, match="--steer zooom: is none of zoom, turn"):
        train_walk(
            whole, SteeringSettings(transforms=("zooom",), steps=1, seed=0), Console(quiet=True)
        )
