"""A head with a face, hair or a cap.

Half-widths and heights are in body heights, by eye from anatomy drawings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.data.virtual_humans.body import Body
from trainables.data.virtual_humans.clothing import Outfit
from trainables.data.virtual_humans.surface import Ring, Surface, from_rings, sides_at

HEAD = (  # over where the skull sits, half-width, half-depth, shift forward
    *((-0.030, 0.010, 0.012, 0.034), (-0.022, 0.026, 0.026, 0.028), (-0.005, 0.035, 0.041, 0.016)),
    *((0.012, 0.0395, 0.049, 0.011), (0.028, 0.042, 0.0535, 0.008), (0.042, 0.043, 0.0555, 0.007)),
    *((0.056, 0.0435, 0.0575, 0.006), (0.072, 0.042, 0.057, 0.004), (0.088, 0.036, 0.050, 0.002)),
    *((0.100, 0.024, 0.035, 0.0), (0.106, 0.004, 0.006, 0.0)),
)
LOCKS = (  # long hair behind the neck
    *((-0.10, 0.040, 0.016, -0.034), (-0.06, 0.050, 0.026, -0.034), (0.0, 0.050, 0.030, -0.034)),
    (0.05, 0.046, 0.030, -0.034),
)
BUN = (
    *((0.06, 0.004, 0.004, -0.058), (0.07, 0.020, 0.020, -0.058), (0.085, 0.024, 0.024, -0.058)),
    *((0.10, 0.018, 0.018, -0.058), (0.108, 0.003, 0.003, -0.058)),
)
MOUTH, NOSE, EYES, HAIRLINE = 1, 3, 5, 7  # rings of the head where they begin
Rows = Sequence[tuple[float, float, float, float]]


def head_surfaces(
    points: dict[str, np.ndarray], body: Body, outfit: Outfit, detail: float
) -> list[Surface]:
    """Skull, hair and cap of the person of `points` (on_body's)."""
    size, sides = body.height * body.head, sides_at(detail, 20)

    def around(rows: Rows, colour: np.ndarray) -> Surface:
        """Rings around the head's axis: (height, half-width, half-depth, shift forward)."""
        rings = [Ring(0.0, size * w, size * d, colour, size * ahead) for _, w, d, ahead in rows]
        frame = points["head frame"]
        rise = size * np.array([row[0] for row in rows])[None, :, None]
        centres = points["head"][:, None] + rise * frame[:, None, :, 1]
        x = np.repeat(-frame[:, None, :, 0], len(rows), axis=1)  # upward and y forward: x right
        y = np.repeat(frame[:, None, :, 2], len(rows), axis=1)
        return from_rings(centres, x, y, rings, sides)

    style, hair, cap = outfit.hair_style, outfit.hair, outfit.trim
    skull = around(HEAD, outfit.skin)
    _paint_face(skull, outfit, sides)
    _shape_nose(skull, points["head frame"], size, sides)
    parts = [skull]
    if style in ("full", "bun", "long"):
        parts.append(around(_shell(0.030 if style == "bun" else -0.005, 1.12, 0.016), hair))
    if style == "cap":
        parts.append(around(_shell(0.062, 1.08, 0.0), cap))
        parts.append(around([(0.060, 0.033, 0.034, 0.050), (0.068, 0.031, 0.030, 0.050)], cap))
    if style == "long":
        parts.append(around(LOCKS, hair))
    if style == "bun":
        parts.append(around(BUN, hair))
    return parts


def _paint_face(skull: Surface, outfit: Outfit, sides: int) -> None:
    colours = skull.colours.reshape(len(HEAD) - 1, sides, 3)
    ahead = np.sin(2 * np.pi * np.arange(sides) / sides)  # of each face: 1 in front
    front = sides // 4
    colours[MOUTH, front - 1 : front + 2] *= (0.82, 0.62, 0.62)
    colours[EYES, [front - 1, front + 1]] = (38, 30, 28)
    colours[EYES + 1, [front - 2, front - 1, front + 1, front + 2]] *= 0.72  # brows
    if outfit.hair_style != "bald":
        grown = colours[2:HAIRLINE]
        grown[:, ahead < (0.05 if outfit.hair_style == "short" else 0.3)] = outfit.hair
        colours[HAIRLINE:] = outfit.hair


def _shape_nose(skull: Surface, frame: np.ndarray, size: float, sides: int) -> None:
    faces = skull.corners.reshape(len(frame), len(HEAD) - 1, sides, 4, 3)
    tip = (0.016 * size * frame[:, None, :, 2]).astype(np.float32)
    faces[:, NOSE, sides // 4, 2:] += tip
    faces[:, NOSE + 1, sides // 4, :2] += tip


def _shell(lowest: float, larger: float, back: float) -> Rows:
    """Around the skull from `lowest` up, moved back so that the face is free."""
    return [
        (
            rise + 0.006 * (rise > 0.08),
            wide * larger,
            deep * larger,
            ahead - (back if rise < 0.075 else min(back, 0.006)),
        )
        for rise, wide, deep, ahead in HEAD
        if rise >= lowest
    ]
