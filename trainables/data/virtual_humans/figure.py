"""A dressed person as a surface: trunk, limbs, hands, shoes; head.py has the head.

Half-widths are in body heights, by eye from anatomy drawings; girth and clothes come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainables.data.virtual_humans.body import ANKLE, BALL, Body
from trainables.data.virtual_humans.clothing import Outfit
from trainables.data.virtual_humans.head import head_surfaces
from trainables.data.virtual_humans.skeleton import SIDES, SPINE_POINTS, frame_of
from trainables.data.virtual_humans.surface import (
    Ring,
    Surface,
    from_rings,
    joined,
    sides_at,
    tube,
    unit,
)

Points = dict[str, np.ndarray]
TRUNK = (  # along the spine, half-width, half-depth
    *((-0.42, 0.040, 0.045), (-0.25, 0.088, 0.066), (0.0, 0.097, 0.071), (0.4, 0.094, 0.066)),
    *((0.75, 0.085, 0.060), (1.15, 0.080, 0.059), (1.6, 0.088, 0.062), (2.1, 0.099, 0.066)),
    *((2.5, 0.103, 0.064), (2.8, 0.098, 0.056), (3.05, 0.072, 0.046), (3.25, 0.040, 0.037)),
)
BELT = 0.75  # where top and bottom meet
ARM = (  # shoulder 0, elbow 1, wrist 2; half-width
    *((-0.16, 0.016), (-0.06, 0.030), (0.06, 0.0345), (0.25, 0.032), (0.5, 0.0275), (0.75, 0.025)),
    *((0.95, 0.0235), (1.05, 0.0235), (1.2, 0.0255), (1.45, 0.0235), (1.7, 0.0185), (2.0, 0.0155)),
)
LEG = (  # hip 0, knee 1, ankle 2
    *((-0.12, 0.035), (-0.02, 0.054), (0.12, 0.057), (0.35, 0.052), (0.6, 0.045), (0.85, 0.037)),
    *((1.0, 0.035), (1.12, 0.034), (1.3, 0.038), (1.5, 0.035), (1.75, 0.024), (2.02, 0.020)),
)
HAND = (  # along the hand, half-width, half-thickness
    *((-0.05, 0.015, 0.012), (0.15, 0.019, 0.012), (0.4, 0.024, 0.012), (0.7, 0.022, 0.010)),
    *((0.9, 0.016, 0.008), (1.0, 0.006, 0.004)),
)
SHOE = (  # from the ankle along the sole, half-width, half-height
    *((-0.046, 0.006, 0.010), (-0.036, 0.021, 0.026), (0.0, 0.0245, 0.030), (0.04, 0.026, 0.023)),
    *((0.085, 0.029, 0.016), (0.112, 0.022, 0.012), (0.126, 0.006, 0.006)),
)


@dataclass(frozen=True)
class Person:
    points: Points  # on_body's
    body: Body
    outfit: Outfit
    detail: float  # 1, or less for those who are far: fewer faces go around body and limbs

    @cached_property
    def hips(self) -> np.ndarray:
        """[T, 3, 3]: left, up and forward of the pelvis."""
        left = self.points["left hip"] - self.points["right hip"]
        return frame_of(left, self.points["spine 1"] - self.points["spine 0"])

    @cached_property
    def trunk(self) -> np.ndarray:
        """[T, 3, 3]: the same of the chest."""
        left = self.points["left shoulder"] - self.points["right shoulder"]
        return frame_of(left, self.points[f"spine {SPINE_POINTS - 1}"] - self.points["spine 2"])


def figure(person: Person, rng: np.random.Generator) -> Surface:
    """The person's surface. `rng` draws the folds of the cloth."""
    cloth = [_trunk(person)]
    bare = [_neck(person), *head_surfaces(person.points, person.body, person.outfit, person.detail)]
    for side in SIDES:
        cloth += [_arm(person, side), _leg(person, side)]
        bare += [*_hand(person, side), _shoe(person, side)]
    if person.outfit.legs == "skirt":
        cloth.append(_skirt(person))
    clothes = joined(cloth)
    folds = rng.uniform(0.9, 1.08, (len(clothes.colours), 1)).astype(np.float32)
    return joined([Surface(clothes.corners, clothes.normals, clothes.colours * folds), *bare])


def _trunk(person: Person) -> Surface:
    points, body, outfit = person.points, person.body, person.outfit
    line = [points[f"spine {number}"] for number in range(SPINE_POINTS)]
    rings, size = [], body.height * (0.6 + 0.4 * body.girth)
    hangs_over = outfit.jacket or outfit.loose > 0.007
    belt = BELT - (0.25 if hangs_over else 0.0)
    for at, wide, deep in TRUNK:
        belly = body.belly if 0.2 < at < 1.8 else 1.0
        width = body.hips if at < 0.8 else body.shoulders if at > 1.5 else 1.0
        off = body.height * (outfit.loose if at >= belt else 0.004)
        if at > 3:
            off *= 0.4
        colour = outfit.top if at >= belt - 1e-9 else outfit.bottom
        wide, deep = wide * width * (0.5 + 0.5 * belly), deep * belly
        rings.append(Ring(at, size * wide + off, size * deep + off, colour))
    part = np.clip([[ring.at / 3] for ring in rings], 0, 1)[None]
    left = [(1 - part) * person.hips[:, None, :, 0], part * person.trunk[:, None, :, 0]]
    aside = -(left[0] + left[1])  # right, so that y is forward
    sides = sides_at(person.detail, 20)
    surface = tube(line, rings, aside, sides)
    ahead = np.sin(2 * np.pi * np.arange(sides) / sides)  # of each face: 1 in front, -1 behind
    for number, ring in enumerate(rings[:-1]):
        if ring.colour is outfit.top:
            faces = surface.colours[number * sides : (number + 1) * sides]
            faces[_in_trim(outfit, number, ahead)] = outfit.trim
    return surface


def _in_trim(outfit: Outfit, ring: int, ahead: np.ndarray) -> np.ndarray:
    """[S]: which faces of a ring have the top's second colour."""
    if outfit.jacket:
        return ahead > 0.9
    if outfit.pattern == "sides":
        return np.abs(ahead) < 0.35
    if outfit.pattern == "stripes":
        return np.full(len(ahead), ring % 2 == 0)
    if outfit.pattern == "checks":
        return (np.arange(len(ahead)) // 2 + ring) % 2 == 0
    return np.zeros(len(ahead), bool)


def _neck(person: Person) -> Surface:
    points, body, outfit = person.points, person.body, person.outfit
    width = 0.031 * body.height * body.girth**0.5
    rings = [Ring(at, width, width, outfit.skin) for at in (0.0, 0.5, 1.25)]
    line = [points[f"spine {SPINE_POINTS - 1}"], points["head"]]
    return tube(line, rings, person.trunk[:, :, 0], sides_at(person.detail, 12))


def _limb_rings(
    table: tuple[tuple[float, float], ...],
    size: float,
    skin: np.ndarray,
    cloth: np.ndarray,
    cloth_end: float,
    off: float,
) -> list[Ring]:
    """Rings of skin, under cloth that stands off by `off` metres down to `cloth_end`."""
    ats = [at for at, _ in table]
    rings = []
    for at, wide in table:
        covered = at < cloth_end
        width = size * wide + off * covered * (1.0 if at > 0.3 else 0.3)
        rings.append(Ring(at, width, width, cloth if covered else skin))
        following = ats[ats.index(at) + 1] if at < ats[-1] else at
        if covered and following >= cloth_end:  # the hem: a step from cloth to skin
            bare = size * float(np.interp(cloth_end, ats, [each for _, each in table]))
            rings.append(Ring(cloth_end, bare + off, bare + off, cloth * 0.85))
            rings.append(Ring(cloth_end + 0.01, bare, bare, skin))
    return rings


def _arm(person: Person, side: str) -> Surface:
    points, body, outfit = person.points, person.body, person.outfit
    size = body.height * (0.5 + 0.5 * body.girth)
    off = outfit.loose * body.height
    rings = _limb_rings(ARM, size, outfit.skin, outfit.top, outfit.sleeve_end, off)
    line = [points[f"{side} {part}"] for part in ("shoulder", "elbow", "wrist")]
    aside = person.trunk[:, :, 2] + 0.3 * person.trunk[:, :, 1]
    return tube(line, rings, aside, sides_at(person.detail, 12))


def _leg(person: Person, side: str) -> Surface:
    points, body, outfit = person.points, person.body, person.outfit
    size = body.height * (0.45 + 0.55 * body.girth)
    off = body.height * {"trousers": 0.004, "wide trousers": 0.013, "shorts": 0.010}.get(
        outfit.legs, 0
    )
    end = -1.0 if outfit.legs == "skirt" else outfit.leg_end
    table: tuple[tuple[float, float], ...] = LEG
    if outfit.legs == "skirt":  # what it covers would show through
        table = tuple(ring for ring in LEG if ring[0] > outfit.leg_end - 0.3)
    rings = _limb_rings(table, size, outfit.skin, outfit.bottom, end, off)
    line = [points[f"{side} {part}"] for part in ("hip", "knee", "ankle")]
    aside = person.hips[:, :, 0] + 0.2 * person.hips[:, :, 2]
    return tube(line, rings, aside, sides_at(person.detail, 16))


def _skirt(person: Person) -> Surface:
    """A cone from the waist that holds both legs."""
    points, body, outfit = person.points, person.body, person.outfit
    height, rings, centres = body.height, [], []
    left = [points[f"left {part}"] for part in ("hip", "knee", "ankle")]
    right = [points[f"right {part}"] for part in ("hip", "knee", "ankle")]
    for at in (-0.3, 0.0, *np.linspace(0.2, outfit.leg_end, 5)):
        bone, part = (0, at) if at < 1 else (1, at - 1)
        ends = [(1 - part) * leg[bone] + part * leg[bone + 1] for leg in (left, right)]
        centres.append((ends[0] + ends[1]) / 2)
        apart = np.linalg.norm(ends[0] - ends[1], axis=-1) / 2
        girth = height * (0.050 * body.girth + 0.012 * max(at, 0))
        rings.append((apart + girth, np.full_like(apart, girth * 1.4)))
    x = np.repeat(person.hips[:, None, :, 0], len(rings), axis=1)
    y = np.repeat(person.hips[:, None, :, 2], len(rings), axis=1)
    wide = np.stack([wide for wide, _ in rings], axis=1)[..., None]
    deep = np.stack([deep for _, deep in rings], axis=1)[..., None]
    ones = [Ring(0.0, 1.0, 1.0, outfit.bottom) for _ in rings]
    return from_rings(
        np.stack(centres, axis=1), x * wide, y * deep, ones, sides_at(person.detail, 20)
    )


def _hand(person: Person, side: str) -> list[Surface]:
    points, body, outfit = person.points, person.body, person.outfit
    colour = outfit.trim if outfit.gloves else outfit.skin
    wrist, tip = points[f"{side} wrist"], points[f"{side} fingers"]
    fore = unit(wrist - points[f"{side} elbow"])
    inward = -person.trunk[:, :, 0] if side == "left" else person.trunk[:, :, 0]
    ahead = np.cross(fore, person.trunk[:, :, 0])  # of a hanging arm, whose thumb is in front
    thumb = ahead + 0.35 * inward + 0.2 * person.trunk[:, :, 2]
    size = body.height
    rings = [Ring(at, size * wide, size * deep, colour) for at, wide, deep in HAND]
    palm = tube([wrist, tip], rings, thumb, sides_at(person.detail, 12))
    root = wrist + 0.2 * (tip - wrist)
    end = root + 0.3 * (tip - wrist) + 0.045 * size * unit(thumb)
    small = [
        Ring(at, size * wide, size * wide, colour)
        for at, wide in ((0.0, 0.009), (0.6, 0.0085), (1.0, 0.004))
    ]
    return [palm, tube([root, end], small, person.trunk[:, :, 2], 8)]


def _shoe(person: Person, side: str) -> Surface:
    points, body, outfit = person.points, person.body, person.outfit
    ankle, size = points[f"{side} ankle"], body.height
    down = unit(points[f"{side} toes"] - ankle)
    shin = unit(ankle - points[f"{side} knee"])
    up = unit(-shin + (shin * down).sum(-1, keepdims=True) * down)
    slope = np.arcsin((ANKLE - BALL) * size / body.bones["foot"])
    sole = np.cos(slope) * down + np.sin(slope) * up
    over = unit(np.cos(slope) * up - np.sin(slope) * down)
    rings = [Ring(0.0, size * wide, size * high, outfit.shoes) for _, wide, high in SHOE]
    centres = np.stack(
        [ankle + size * (at * sole + (high - ANKLE) * over) for at, _, high in SHOE], axis=1
    )
    aside = unit(np.cross(over, sole))
    x = np.repeat(aside[:, None], len(rings), axis=1)
    y = np.repeat(over[:, None], len(rings), axis=1)
    return from_rings(centres, x, y, rings, sides_at(person.detail, 12))
