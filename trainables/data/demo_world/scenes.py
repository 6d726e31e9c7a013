"""Human-free scenes: a texture that moves. A family is a pair (texture, motion)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

TILE = 128  # pixels; textures wrap around at its edges

# -- textures: how a scene looks; values 0 to 1, float32 [TILE, TILE] ---------------------------


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Noise that wraps, `cells` bumps across the tile."""
    grid = rng.random((cells, cells), dtype=np.float32)
    padded = np.pad(grid, 2, mode="wrap")
    step = TILE // cells
    large = cv2.resize(padded, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return np.clip(large[2 * step : 2 * step + TILE, 2 * step : 2 * step + TILE], 0, 1)


def bricks(rng: np.random.Generator) -> np.ndarray:
    tile = np.zeros((TILE, TILE), np.float32)
    height, width = 16, 32
    for row in range(TILE // height):
        for column in range(TILE // width + 1):
            x = column * width - (row % 2) * width // 2
            corner = (x + width - 3, row * height + height - 3)
            tone = float(rng.uniform(0.45, 1.0))
            cv2.rectangle(tile, (x, row * height), corner, tone, cv2.FILLED)
    return tile


def lights(rng: np.random.Generator) -> np.ndarray:
    tile = np.zeros((TILE, TILE), np.float32)
    for _ in range(int(rng.integers(26, 36))):
        x, y = (int(v) for v in rng.integers(0, TILE, 2))
        radius, tone = int(rng.integers(3, 8)), float(rng.uniform(0.5, 1.0))
        for dx in (-TILE, 0, TILE):
            for dy in (-TILE, 0, TILE):
                cv2.circle(tile, (x + dx, y + dy), radius, tone, cv2.FILLED, cv2.LINE_AA)
    return tile


def foliage(rng: np.random.Generator) -> np.ndarray:
    leaves = _smooth_noise(rng, 32)
    ground = 0.3 * _smooth_noise(rng, 8)
    return np.where(leaves > 0.5, 0.6 + 0.4 * leaves, ground).astype(np.float32)


def clouds(rng: np.random.Generator) -> np.ndarray:
    return (0.7 * _smooth_noise(rng, 8) + 0.3 * _smooth_noise(rng, 16)).astype(np.float32)


# -- motions: how it moves; frame times [T] in clips -> (x, y, angle, log zoom), each [T] --------

Path = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def pan(time: np.ndarray, rng: np.random.Generator) -> Path:
    still = np.zeros_like(time)
    return rng.uniform(10, 20) * time, still, still, still


def fall(time: np.ndarray, rng: np.random.Generator) -> Path:
    still = np.zeros_like(time)
    return still, rng.uniform(10, 20) * time, still, still


def sway(time: np.ndarray, rng: np.random.Generator) -> Path:
    still = np.zeros_like(time)
    cycles, phase = rng.uniform(1.2, 2.0), rng.random()
    return rng.uniform(2, 3.5) * np.sin(2 * np.pi * (cycles * time + phase)), still, still, still


def spin(time: np.ndarray, rng: np.random.Generator) -> Path:
    still = np.zeros_like(time)
    return still, still, rng.uniform(0.4, 0.8) * time, still


def approach(time: np.ndarray, rng: np.random.Generator) -> Path:
    still = np.zeros_like(time)
    return still, still, still, rng.uniform(0.3, 0.6) * (time - 0.5)


Family = tuple[
    Callable[[np.random.Generator], np.ndarray],
    Callable[[np.ndarray, np.random.Generator], Path],
]
# Family i goes with action i. Pre-training and downstream share textures and motions, no pair.
SOURCE_FAMILIES: tuple[Family, ...] = (
    (lights, fall),
    (lights, spin),
    (foliage, sway),
    (foliage, pan),
    (clouds, pan),
    (clouds, approach),
    (bricks, approach),
    (bricks, fall),
)
DOWNSTREAM_FAMILIES: tuple[Family, ...] = (
    (lights, pan),
    (lights, approach),
    (foliage, fall),
    (foliage, spin),
    (bricks, pan),
    (bricks, sway),
)


def random_palette(rng: np.random.Generator, contrast: float) -> np.ndarray:
    """Two RGB colours [2, 3], 0 to 255, about `contrast` (0 to 1) apart in brightness."""
    middle = rng.uniform(90, 165) + rng.uniform(-30, 30, 3)
    half = contrast * rng.uniform(50, 100) * rng.choice([-1.0, 1.0])
    tint = rng.uniform(-30, 30, 3) * contrast
    return np.clip(np.stack([middle - half - tint, middle + half + tint]), 0, 255)


def draw_scene(
    family: Family,
    palette: np.ndarray,
    shift: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """uint8 [T, H, W, 3]: the family's texture in `palette`, moving, shaken by `shift` [T, 2]."""
    texture, motion = family
    tone = texture(rng)[..., None]
    tile = (palette[0] + tone * (palette[1] - palette[0])).astype(np.uint8)
    height, width = size
    time = np.arange(len(shift)) / len(shift)
    start = rng.uniform(0, TILE, 2)
    x, y, angle, log_zoom = motion(time, rng)
    scale = height / 64 * rng.uniform(0.85, 1.2)
    frames = np.empty((len(shift), height, width, 3), np.uint8)
    for t in range(len(shift)):
        cos, sin = np.cos(angle[t]), np.sin(angle[t])
        back = np.array([[cos, sin], [-sin, cos]]) / (scale * np.exp(log_zoom[t]))
        # From image pixels (about the centre, the shake undone) to texture pixels.
        origin = start - (x[t], y[t]) - back @ (np.array([width, height]) / 2 + shift[t])
        matrix = np.column_stack([back, origin])
        cv2.warpAffine(
            tile,
            matrix,
            (width, height),
            dst=frames[t],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_WRAP,
        )
    return frames


def draw_backdrop(frames: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """uint8 [T, H, W, 3]: a still room, a colour gradient with a few boxes; no family at all."""
    height, width = size
    middle = rng.uniform(90, 165) + rng.uniform(-30, 30, 3)
    top, bottom = middle + rng.uniform(-25, 25, (2, 3))
    room = np.linspace(top, bottom, height)[:, None].repeat(width, axis=1).astype(np.uint8)
    for _ in range(int(rng.integers(0, 5))):
        x, y = int(rng.integers(-8, width)), int(rng.integers(-8, height))
        w, h = (int(v) for v in rng.integers(6, 28, 2))
        colour = tuple(float(v) for v in middle + rng.uniform(-40, 40, 3))
        cv2.rectangle(room, (x, y), (x + w, y + h), colour, cv2.FILLED)
    return np.broadcast_to(room, (frames, height, width, 3)).copy()
