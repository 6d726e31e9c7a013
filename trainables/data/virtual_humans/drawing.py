"""People over their surroundings: faces from the farthest to the nearest, shadows below them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np

from trainables.data.virtual_humans.camera import NEAR, Camera
from trainables.data.virtual_humans.light import Light, shaded, shadow_masks
from trainables.data.virtual_humans.surface import Surface
from trainables.data.virtual_humans.surroundings import Surroundings, draw_surroundings

FINER = 2  # people are drawn so many times finer and shrunk, which smooths their outlines
SUBPIXEL = 4  # binary places of a corner's position, as cv2 takes them


class Drawn(NamedTuple):
    frame: np.ndarray  # uint8 [H, W, 3] RGB
    mask: np.ndarray | None  # uint8 [H, W]: 255 where people are, as much as they are at edges


def draw(
    people: Surface,
    around: Surroundings,
    camera: Camera,
    light: Light,
    middle: np.ndarray,
    masks: bool = False,
) -> Iterator[Drawn]:
    """The frames in turn, with the people's masks if asked. `middle`: [3], where they are, metres.

    Shadows are no part of the masks.
    """
    corners, order, colours = _projected(people, camera, light)
    shadows = shadow_masks(people, light, camera)
    size = (camera.width, camera.height)
    moves = np.ptp(camera.places, axis=0).any() or np.ptp(camera.axes, axis=0).any()
    scene, ground = draw_surroundings(around, camera, 0, middle)
    lit = np.clip(light.sun * light.towards[1] + light.sky, 0.55, 1.35)
    for t in range(len(corners)):
        if t and (moves or around.footage is not None):
            scene, ground = draw_surroundings(around, camera, t, middle)
        shadow = cv2.resize(shadows[t], size, interpolation=cv2.INTER_LINEAR)
        dark = 1 - ground * shadow * np.float32(light.shadow / 255)
        tint = (1.0, 1.0, 1.0) if around.footage is not None else lit.tolist()
        weight = cv2.merge([dark * np.float32(channel) for channel in tint])
        frame = cv2.multiply(scene, weight, dtype=cv2.CV_8U)
        faces = corners[t][order[t]]
        _paint(frame, faces, colours[t][order[t]].tolist())
        mask = np.zeros(frame.shape[:2], np.uint8) if masks else None
        if mask is not None:
            _paint(mask, faces, [255] * len(faces))
        yield Drawn(frame, mask)


def _paint(frame: np.ndarray, faces: np.ndarray, colours: list[Any]) -> None:
    """Faces int32 [F, 4, 2] over `frame`, in their order: finely, in the part that they touch."""
    if not len(faces):
        return
    unit = FINER << SUBPIXEL  # of a pixel
    low = np.maximum(faces.min(axis=(0, 1)) // unit, 0)
    high = np.minimum(faces.max(axis=(0, 1)) // unit + 1, (frame.shape[1], frame.shape[0]))
    if (high <= low).any():
        return
    part = frame[low[1] : high[1], low[0] : high[0]]
    fine = cv2.resize(part, None, fx=FINER, fy=FINER, interpolation=cv2.INTER_NEAREST)
    for face, colour in zip(faces - (low * unit).astype(np.int32), colours, strict=True):
        cv2.fillConvexPoly(fine, face, colour, cv2.LINE_8, SUBPIXEL)
    part[:] = cv2.resize(fine, part.shape[1::-1], interpolation=cv2.INTER_AREA)


def _projected(
    people: Surface, camera: Camera, light: Light
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Corners int32 [T, F, 4, 2], for each frame the faces to draw in their order, and colours.

    A face is drawn if it is turned to the camera and in front of it. Faces are small against the
    body, so the order of their middles is that of the body's parts.
    """
    seen = camera.project(people.corners)
    middle = people.corners.mean(axis=2)
    turned = ((middle - camera.places[:, None].astype(np.float32)) * people.normals).sum(
        axis=-1
    ) < 0
    drawn = turned & (seen[..., 2].min(axis=-1) > NEAR)
    depth = seen[..., 2].mean(axis=-1)
    order = []
    for t in range(len(depth)):
        kept = np.flatnonzero(drawn[t])
        order.append(kept[np.argsort(-depth[t, kept], kind="stable")])
    scale = FINER * 2**SUBPIXEL
    corners = np.clip(np.round(seen[..., :2] * scale), -(2**24), 2**24).astype(np.int32)
    return corners, order, shaded(people, light)
