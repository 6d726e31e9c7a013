"""Where a clip is filmed from: the view, the distance, the lens, and how the camera moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Move = Literal["still", "handheld", "pan", "orbit", "approach", "follow"]
NEAR = 0.3  # metres: what is closer is not drawn


@dataclass(frozen=True)
class Rig:
    """One camera set-up, to be held out as a whole. Angles in radians, times in clips."""

    azimuth: float  # around the people; 0 looks them in the face
    elevation: float  # above the horizon
    field: float  # vertical angle of view
    fill: float  # part of the frame that the people's way takes
    move: Move
    amount: float  # of the move, -1 to 1
    roll: float


def random_rig(rng: np.random.Generator) -> Rig:
    moves: list[Move] = ["still", "handheld", "pan", "orbit", "approach", "follow"]
    return Rig(
        azimuth=rng.uniform(-np.pi, np.pi) if rng.random() < 0.4 else rng.normal(0, 0.7),
        elevation=float(np.clip(rng.normal(0.14, 0.14), -0.06, 0.6)),
        field=rng.uniform(0.55, 1.0),
        fill=rng.uniform(0.62, 0.98),
        move=rng.choice(moves, p=[0.3, 0.25, 0.1, 0.15, 0.1, 0.1]),
        amount=rng.uniform(0.3, 1.0) * rng.choice([-1.0, 1.0]),
        roll=rng.normal(0, 0.012),
    )


@dataclass(frozen=True)
class Camera:
    """A path: places [T, 3] and rotations [T, 3, 3] whose rows are right, down and ahead."""

    places: np.ndarray
    axes: np.ndarray
    focal: float  # pixels
    width: int
    height: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """[T, ..., 3] in metres to x, y in pixels and the distance ahead in metres."""
        shape = points.shape
        flat = points.reshape(shape[0], -1, 3) - self.places[:, None]
        seen = flat.astype(np.float32) @ self.axes.transpose(0, 2, 1).astype(np.float32)
        ahead = np.maximum(seen[..., 2:], 1e-3)
        centre = np.array([self.width / 2, self.height / 2], np.float32)
        pixels = seen[..., :2] / ahead * np.float32(self.focal) + centre
        return np.concatenate([pixels, seen[..., 2:]], axis=-1).reshape(shape)


def film(rig: Rig, people: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """The camera that has `people` in view.

    Args:
        people: points of all that should be seen, [T, N, 3].
        size: width and height, pixels.
        rng: draws the trembling of hands.
    """
    count, (width, height) = len(people), size
    time = np.linspace(-0.5, 0.5, count)
    middle = (people.min(axis=1) + people.max(axis=1)) / 2  # [T, 3]
    way = _smooth(middle)
    fixed = (people.min(axis=(0, 1)) + people.max(axis=(0, 1))) / 2
    roams = np.linalg.norm(np.ptp(way[:, [0, 2]], axis=0)) > 2.5  # more than a frame should hold
    follows = rig.move == "follow" or roams
    target = way if follows else np.tile(fixed, (count, 1))
    azimuth = rig.azimuth + (0.35 * rig.amount * time if rig.move == "orbit" else np.zeros(count))
    direction = np.stack(
        [
            np.sin(azimuth) * np.cos(rig.elevation),
            np.full(count, np.sin(rig.elevation)),
            np.cos(azimuth) * np.cos(rig.elevation),
        ],
        axis=-1,
    )
    nearer = np.exp(-0.22 * rig.amount * time) if rig.move == "approach" else np.ones(count)
    aim = target.copy()
    if rig.move == "pan":
        right = np.cross(np.array([0.0, 1.0, 0.0]), direction)
        aim += 0.35 * rig.amount * time[:, None] * right
    if rig.move in ("handheld", "follow"):
        aim += 0.025 * _tremble(rng, count)
    focal = height / 2 / np.tan(rig.field / 2)
    distance = 4.0
    camera = None
    for _ in range(8):  # a distance at which the people's way fills the frame as it should
        places = target + distance * nearer[:, None] * direction
        places[:, 1] = np.maximum(places[:, 1], 0.25)
        camera = Camera(places, _axes(aim - places, rig.roll), focal, width, height)
        seen = camera.project(people)[..., :2] - (width / 2, height / 2)
        reach = max(np.abs(seen[..., 0]).max() / width, np.abs(seen[..., 1]).max() / height) * 2
        distance = float(np.clip(distance * reach / rig.fill, 1.6, 40.0))
    assert camera is not None
    return camera


def _axes(ahead: np.ndarray, roll: float) -> np.ndarray:
    ahead = ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
    right = np.cross(ahead, np.array([0.0, 1.0, 0.0]))
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(ahead, right)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, ahead], axis=1)


def _smooth(way: np.ndarray) -> np.ndarray:
    """A cameraman's idea of a way [T, 3]: its low frequencies, by a cubic fit."""
    time = np.linspace(-1, 1, len(way))
    degree = min(3, len(way) - 1)
    return np.stack([np.polyval(np.polyfit(time, axis, degree), time) for axis in way.T], axis=-1)


def _tremble(rng: np.random.Generator, count: int) -> np.ndarray:
    """[T, 3] of standard deviation near 1: a few slow sines a clip."""
    time = np.arange(count) / count
    waves = rng.normal(0, 1, (3, 4)) / np.arange(1, 5)
    phases = rng.uniform(0, 2 * np.pi, (3, 4))
    turns = 2 * np.pi * time[:, None, None] * np.arange(1, 5) + phases
    return np.asarray((waves * np.sin(turns)).sum(axis=-1))
