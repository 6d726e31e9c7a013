"""Closed tubes around lines that move: what bodies and clothes are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Surface:
    """Faces with four corners, seen from outside in counter-clockwise order."""

    corners: np.ndarray  # float32 [T, F, 4, 3], metres
    normals: np.ndarray  # float32 [T, F, 3], unit, outward
    colours: np.ndarray  # float32 [F, 3], RGB, 0 to 255


@dataclass(frozen=True)
class Ring:
    at: float  # along the line: 1.5 is midway from its point 1 to its point 2
    wide: float  # half-widths, metres: along the tube's x
    deep: float  # and along its y
    colour: np.ndarray  # RGB, from this ring to the next
    ahead: float = 0.0  # the centre's shift along the tube's y, metres


def joined(surfaces: Sequence[Surface]) -> Surface:
    return Surface(
        np.concatenate([surface.corners for surface in surfaces], axis=1),
        np.concatenate([surface.normals for surface in surfaces], axis=1),
        np.concatenate([surface.colours for surface in surfaces]),
    )


def tube(
    line: Sequence[np.ndarray], rings: Sequence[Ring], aside: np.ndarray, sides: int
) -> Surface:
    """A tube of elliptic rings around a line.

    Args:
        line: points [T, 3] that the line runs through.
        rings: in order along the line; past its ends it goes straight on.
        aside: where x points, [T, 3] or [T, R, 3]; made square to the line in each ring.
        sides: faces around.
    """
    centres, along = _on_line(np.stack(line, axis=1), [ring.at for ring in rings])
    x = aside if aside.ndim == 3 else _carried(aside, along)
    x = unit(x - (x * along).sum(axis=-1, keepdims=True) * along)
    y = np.cross(along, x)
    return from_rings(centres, x, y, rings, sides)


def from_rings(
    centres: np.ndarray, x: np.ndarray, y: np.ndarray, rings: Sequence[Ring], sides: int
) -> Surface:
    """The same of rings that are given: centres, x and y are [T, R, 3]. Face f of ring r is number
    r * sides + f, its middle at the angle 2 pi f / sides from x towards y."""
    angle = 2 * np.pi * (np.arange(sides + 1) - 0.5) / sides
    wide = np.array([ring.wide for ring in rings])[:, None] * np.cos(angle)  # [R, S + 1]
    deep = np.array([ring.deep for ring in rings])[:, None] * np.sin(angle)
    deep = deep + np.array([ring.ahead for ring in rings])[:, None]
    points = (
        centres[:, :, None] + wide[..., None] * x[:, :, None] + deep[..., None] * y[:, :, None]
    ).astype(np.float32)
    corners = np.stack(
        [points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, 1:], points[:, 1:, :-1]], axis=3
    )
    corners = corners.reshape(len(points), -1, 4, 3)
    normals = unit(
        np.cross(corners[..., 2, :] - corners[..., 0, :], corners[..., 3, :] - corners[..., 1, :])
    )
    colours = np.repeat(np.stack([ring.colour for ring in rings[:-1]]), sides, axis=0)
    return Surface(corners, normals, colours.astype(np.float32))


def sides_at(detail: float, sides: int) -> int:
    """How many faces go around what has `sides` of them at detail 1: a multiple of 4, 8 or more."""
    return 4 * max(2, round(detail * sides / 4))


def unit(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    return np.asarray(vectors / np.maximum(length, 1e-9)[..., None])


def _on_line(points: np.ndarray, ats: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Where the rings are, [T, R, 3], and where the line runs there; it turns gently at joints."""
    bones = np.diff(points, axis=1)  # [T, B, 3]
    directions = unit(bones)
    last = bones.shape[1] - 1
    centres, along = [], []
    for at in ats:
        bone = int(np.clip(np.floor(at), 0, last))
        centres.append(points[:, bone] + (at - bone) * bones[:, bone])
        joint = int(np.clip(np.round(at), 1, max(last, 1)))
        weight = np.clip((at - joint) / 0.3 / 2 + 0.5, 0, 1)
        weight = weight * weight * (3 - 2 * weight)
        if last == 0:
            along.append(directions[:, 0])
        else:
            turning = (1 - weight) * directions[:, joint - 1] + weight * directions[:, joint]
            along.append(unit(turning))
    return np.stack(centres, axis=1), np.stack(along, axis=1)


def _carried(first: np.ndarray, along: np.ndarray) -> np.ndarray:
    """[T, R, 3]: `first` [T, 3] carried from ring to ring without a twist."""
    rings = [first]
    for number in range(along.shape[1]):
        here = rings[-1] - (rings[-1] * along[:, number]).sum(-1, keepdims=True) * along[:, number]
        rings.append(unit(here))
    return np.stack(rings[1:], axis=1)
