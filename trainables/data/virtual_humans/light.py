"""Sun and sky over a clip: how faces are shaded and where shadows fall."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from trainables.data.virtual_humans.camera import NEAR, Camera
from trainables.data.virtual_humans.surface import Surface

SHADOW_STEP = 5  # every fifth face throws a shadow, so much wider


@dataclass(frozen=True)
class Light:
    towards: np.ndarray  # unit [3]: from the ground to the sun
    sun: np.ndarray  # RGB, times a surface's colour where it is met squarely
    sky: np.ndarray  # RGB, from above; half of it from below
    shadow: float  # how much of the ground's light a shadow takes away
    softness: float  # of a shadow's edge, metres


def random_light(rng: np.random.Generator) -> Light:
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.6, 1.35)
    towards = np.array(
        [np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)]
    )
    warm, share = rng.uniform(-1, 1), rng.uniform(0.35, 0.7)
    bright = rng.uniform(0.85, 1.2)
    return Light(
        towards=towards,
        sun=bright * share * np.array([1 + 0.1 * warm, 1.0, 1 - 0.1 * warm]),
        sky=bright * (1.12 - share) * np.array([1 - 0.04 * warm, 1.0, 1 + 0.05 * warm]),
        shadow=0.75 * share,
        softness=rng.uniform(0.015, 0.09),
    )


def shaded(surface: Surface, light: Light) -> np.ndarray:
    """uint8 [T, F, 3]: each face's colour, by Lambert's cosine under the sun, and the sky's."""
    normals = surface.normals
    sun = np.maximum(normals @ light.towards.astype(np.float32), 0)
    sky = 0.72 + 0.28 * normals[..., 1]
    lit = sun[..., None] * light.sun.astype(np.float32) + sky[..., None] * light.sky.astype(
        np.float32
    )
    return np.clip(surface.colours * lit, 0, 255).astype(np.uint8)


def shadow_masks(surfaces: Surface, light: Light, camera: Camera) -> np.ndarray:
    """uint8 [T, H / 2, W / 2]: where the people's shadows lie on the ground, 255 in their core."""
    corners = surfaces.corners[:, ::SHADOW_STEP, ::2]  # a face's diagonal will do for its shadow
    length = np.maximum(corners[..., 1:2], 0) / np.float32(light.towards[1])
    fallen = corners - length * light.towards.astype(np.float32)
    seen = camera.project(fallen)
    ends = np.clip(np.round(seen[..., :2] * 8), -(2**20), 2**20).astype(np.int32)
    ahead = seen[..., 2].min(axis=-1) > NEAR
    masks = np.zeros((len(ends), camera.height // 2, camera.width // 2), np.uint8)
    size = np.linalg.norm(corners[:, :, 0] - corners[:, :, 1], axis=-1)
    wide = size * camera.focal / np.maximum(seen[..., 0, 2], NEAR) / 2
    thickness = np.clip(np.round(1.2 * wide), 1, 60).astype(int)
    blur = light.softness * camera.focal / np.maximum(np.median(seen[..., 2]), 1.0) / 2
    for t, mask in enumerate(masks):
        lines = zip(ends[t, ahead[t]].tolist(), thickness[t, ahead[t]].tolist(), strict=True)
        for (a, b), thick in lines:
            cv2.line(mask, a, b, 255, thick, cv2.LINE_8, 4)
        cv2.GaussianBlur(mask, (0, 0), 0.6 + float(blur), dst=mask)
    return masks
