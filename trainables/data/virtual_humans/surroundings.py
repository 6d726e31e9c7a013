"""What is behind the people: ground and wall or sky, in perspective, or the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from trainables.data.virtual_humans.camera import Camera

Kind = Literal["plain", "room", "outdoors", "footage"]
TILE = 512  # pixels; textures wrap at their edges


@dataclass(frozen=True)
class Surroundings:
    """Textures are uint8 [TILE, TILE, 3] RGB; `footage` is [T, H, W, 3] or None."""

    ground: np.ndarray
    ground_metres: float  # a tile's side
    wall: np.ndarray
    wall_metres: tuple[float, float]  # a tile's width and height
    wall_distance: float  # metres behind the middle of the people
    haze: float  # metres at which the ground has lost a third of its texture
    footage: np.ndarray | None = None


def random_surroundings(kind: Kind, rng: np.random.Generator) -> Surroundings:
    if kind == "plain":
        tone = rng.uniform(70, 225) + rng.uniform(-22, 22, 3)
        ground = _coloured(0.5 + 0.15 * (_noise(rng, 8) - 0.5), tone * 0.8, tone)
        fall = np.linspace(1.06, 0.94, TILE)[:, None, None]
        wall = np.clip(np.broadcast_to(tone * fall, (TILE, TILE, 3)), 0, 255).astype(np.uint8)
        return Surroundings(ground, 4.0, wall, (8.0, 8.0), rng.uniform(2.5, 6.0), 12.0)
    if kind == "room":
        floor = [_planks, _tiles, _carpet][rng.integers(3)](rng)
        return Surroundings(
            floor, rng.uniform(2.5, 4.0), _wall(rng), (6.0, 4.2), rng.uniform(2.2, 5.0), 10.0
        )
    ground = [_grass, _asphalt, _tiles][rng.integers(3)](rng)
    return Surroundings(ground, rng.uniform(4.0, 7.0), _horizon(rng), (46.0, 30.0), 30.0, 9.0)


def draw_surroundings(
    around: Surroundings, camera: Camera, frame: int, middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the camera sees in `frame` without people.

    Returns:
        uint8 [H, W, 3], and where it is ground (and shadows fall), float32 [H, W], 0 to 1.
    """
    width, height = camera.width, camera.height
    place, axes = camera.places[frame], camera.axes[frame]
    inverse = np.array(
        [
            [1 / camera.focal, 0, -width / 2 / camera.focal],
            [0, 1 / camera.focal, -height / 2 / camera.focal],
            [0, 0, 1],
        ]
    )
    rays = axes.T @ inverse  # [3, 3]: pixel (x, y, 1) -> direction in the world
    xs, ys = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)

    def over_pixels(row: np.ndarray) -> np.ndarray:
        across, down, constant = row.astype(np.float32)
        return np.asarray(across * xs[None, :] + (down * ys[:, None] + constant))

    ahead = np.array(
        [camera.axes[len(camera.axes) // 2][2][0], 0, camera.axes[len(camera.axes) // 2][2][2]]
    )
    ahead /= np.linalg.norm(ahead)
    wall_at = float((middle - place) @ ahead) + around.wall_distance
    # A ray meets the floor after -h / d_y and the wall after wall_at / (d . ahead): which is first?
    is_ground = over_pixels(-place[1] * (ahead @ rays) - wall_at * rays[1])
    near = (is_ground > 0).astype(np.float32)
    if around.footage is not None:
        return around.footage[frame], near
    # The floor: p = place + d * place_y / -d_y, in tiles of the texture.
    ground_scale = TILE / around.ground_metres
    to_ground = np.stack(
        [
            ground_scale * (place[0] * -rays[1] + place[1] * rays[0]),
            ground_scale * (place[2] * -rays[1] + place[1] * rays[2]),
            -rays[1],
        ]
    )
    sideways = np.array([ahead[2], 0, -ahead[0]])
    across, up = TILE / around.wall_metres[0], TILE / around.wall_metres[1]
    to_wall = np.stack(
        [
            across * (sideways @ place * (ahead @ rays) + wall_at * (sideways @ rays)),
            (TILE - 1) * (ahead @ rays) - up * (place[1] * (ahead @ rays) + wall_at * rays[1]),
            ahead @ rays,
        ]
    )
    depth = np.maximum(over_pixels(-rays[1]), 1e-4) * np.float32(around.haze / place[1])
    clear = np.clip(depth * 1.5, 0, 1)  # 1.5 times haze / distance
    rows = np.flatnonzero(near.any(axis=1))
    begin = int(rows[0]) if len(rows) else height  # of the ground
    rows = np.flatnonzero((near < 1).any(axis=1))
    end = int(rows[-1]) + 1 if len(rows) else 0  # of the wall
    scene = np.empty((height, width, 3), np.uint8)
    if begin < height:
        ground = _seen(around.ground, to_ground, (begin, height), width)
        mean = np.full_like(ground, around.ground[::16, ::16].mean(axis=(0, 1)))
        part = clear[begin:]
        scene[begin:] = cv2.blendLinear(ground, mean, part, 1 - part)
    if end > 0:
        wall = _seen(around.wall, to_wall, (0, end), width)
        np.copyto(scene[:end], wall, where=near[:end, :, None] < 1)
    return scene, near


def _seen(texture: np.ndarray, matrix: np.ndarray, rows: tuple[int, int], width: int) -> np.ndarray:
    """Some rows of what is seen of a texture, by the map from pixels to it. It wraps: the other
    borders of OpenCV fold a far point back step by step, which takes for ever."""
    shift = np.array([[1.0, 0, 0], [0, 1, rows[0]], [0, 0, 1]])
    return np.asarray(
        cv2.warpPerspective(
            texture,
            matrix @ shift,
            (width, rows[1] - rows[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_WRAP,
        )
    )


# -- textures -----------------------------------------------------------------------------------


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise that wraps, about 0 to 1, float32 [TILE, TILE]."""
    grid = np.pad(rng.random((cells, cells), dtype=np.float32), 2, mode="wrap")
    step = TILE // cells
    large = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large[2 * step : 2 * step + TILE, 2 * step : 2 * step + TILE])


def _coloured(tone: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: from `low` [3] where the tone [H, W] is 0 to `high` [3] where it is 1."""
    # Channel by channel: NumPy is slow along an axis of three.
    ends = zip(low, high, strict=True)
    return cv2.merge([np.clip(a + tone * (b - a), 0, 255).astype(np.uint8) for a, b in ends])


def _planks(rng: np.random.Generator) -> np.ndarray:
    tone = np.zeros((TILE, TILE), np.float32)
    high = TILE // 16
    for row in range(16):
        for start in range(0, TILE, TILE // 2):
            value = float(rng.uniform(0.3, 0.8))
            x = (start + int(rng.integers(0, TILE // 2))) % TILE
            tone[row * high : (row + 1) * high, start : start + TILE // 2] = value
            tone[row * high : (row + 1) * high, x : x + 2] = 0.1
        tone[row * high : row * high + 2] = 0.1
    grain = cv2.resize(_noise(rng, 128)[:, ::8], (TILE, TILE))
    wood = np.array([120, 82, 52]) * rng.uniform(0.7, 1.3)
    return _coloured(tone + 0.2 * (grain - 0.5), wood * 0.45, np.clip(wood * 1.5, 0, 250))


def _tiles(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.choice([4, 8]))
    shades = rng.uniform(0.6, 0.9, (count, count)).astype(np.float32)
    if rng.random() < 0.4:
        shades = 0.8 - 0.5 * (np.indices((count, count)).sum(axis=0) % 2).astype(np.float32)
    tone = np.kron(shades, np.ones((TILE // count, TILE // count), np.float32))
    tone[:: TILE // count] = tone[1 :: TILE // count] = 0.3
    tone[:, :: TILE // count] = tone[:, 1 :: TILE // count] = 0.3
    base = rng.uniform(120, 220) + rng.uniform(-25, 25, 3)
    return _coloured(tone + 0.12 * (_noise(rng, 64) - 0.5), base * 0.35, base * 1.1)


def _carpet(rng: np.random.Generator) -> np.ndarray:
    tone = 0.5 * _noise(rng, 128) + 0.3 * _noise(rng, 16)
    base = rng.uniform(50, 180) + rng.uniform(-50, 50, 3)
    return _coloured(tone, base * 0.75, base * 1.2)


def _grass(rng: np.random.Generator) -> np.ndarray:
    tone = 0.6 * _noise(rng, 128) + 0.5 * _noise(rng, 16)
    return _coloured(tone, np.array([38, 66, 26]), np.array([128, 160, 84]) * rng.uniform(0.8, 1.2))


def _asphalt(rng: np.random.Generator) -> np.ndarray:
    tone = 0.4 * _noise(rng, 128) + 0.4 * _noise(rng, 8)
    grey = rng.uniform(60, 150)
    return _coloured(tone, np.full(3, grey * 0.7), np.full(3, grey * 1.25))


def _wall(rng: np.random.Generator) -> np.ndarray:
    """A room's wall: paint or bricks, a skirting board, and what hangs and stands at it."""
    base = rng.uniform(100, 215) + rng.uniform(-35, 35, 3)
    tone = 0.5 + 0.15 * (_noise(rng, 16) - 0.5)
    if rng.random() < 0.3:
        for row in range(32):
            tone[row * 16 : row * 16 + 2] = 0.15
            tone[row * 16 : row * 16 + 16, (row % 2) * 16 :: 32] = 0.15
    wall = _coloured(tone, base * 0.7, base * 1.2)
    wall[-10:] = np.clip(base * 0.55, 0, 255)
    for _ in range(int(rng.integers(1, 6))):
        wide, high = int(rng.integers(30, 120)), int(rng.integers(40, 150))
        x = int(rng.integers(0, TILE - wide))
        stands = rng.random() < 0.5
        y = TILE - high - 2 if stands else int(rng.integers(60, TILE - high - 120))
        colour = np.clip(rng.uniform(30, 230) + rng.uniform(-50, 50, 3), 0, 255)
        edge = tuple(float(v) for v in colour * 0.6)
        cv2.rectangle(wall, (x, y), (x + wide, y + high), tuple(map(float, colour)), cv2.FILLED)
        cv2.rectangle(wall, (x, y), (x + wide, y + high), edge, 3)
        for shelf in range(1, int(rng.integers(1, 5))):
            level = y + high * shelf // 5
            cv2.line(wall, (x, level), (x + wide, level), edge, 2)
    return wall


def _horizon(rng: np.random.Generator) -> np.ndarray:
    """Sky with clouds over a line of hills, trees or houses; its lower edge is the ground's."""
    height = np.linspace(1, 0, TILE, dtype=np.float32)[:, None]
    zenith = np.array([96, 142, 205]) * rng.uniform(0.75, 1.15)
    sky = _coloured(1 - np.broadcast_to(height, (TILE, TILE)), zenith, np.array([222, 226, 230]))
    cloud = np.clip(1.6 * _noise(rng, 8) + 0.5 * _noise(rng, 32) - 1.1 - 0.4 * rng.random(), 0, 1)
    sky = (sky + cloud[..., None] * (238.0 - sky)).astype(np.uint8)
    houses = rng.random() < 0.5
    x = 0
    while x < TILE:
        wide = int(rng.integers(18, 70)) if houses else int(rng.integers(10, 36))
        high = int(rng.integers(50, 170)) if houses else int(rng.integers(40, 100))
        colour = np.clip(rng.uniform(80, 190) + rng.uniform(-20, 20, 3), 0, 255)
        if not houses:
            colour = np.array([52, 82, 46]) * rng.uniform(0.6, 1.4)
            centre = (x + wide // 2, TILE - high // 2)
            axes = (wide // 2 + 8, high // 2 + 6)
            cv2.ellipse(sky, centre, axes, 0, 0, 360, tuple(map(float, colour)), cv2.FILLED)
        else:
            cv2.rectangle(
                sky, (x, TILE - high), (x + wide, TILE), tuple(map(float, colour)), cv2.FILLED
            )
            dark = tuple(float(v) for v in colour * 0.5)
            for wx in range(x + 4, x + wide - 6, 10):
                for wy in range(TILE - high + 6, TILE - 14, 14):
                    cv2.rectangle(sky, (wx, wy), (wx + 4, wy + 7), dark, cv2.FILLED)
        x += wide
    return sky
