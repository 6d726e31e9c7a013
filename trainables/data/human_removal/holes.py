"""From a person's mask to the hole that is filled: HAT's threshold and dilation, soft at the rim.

HAT (princetonvisualai/HAT) takes 8-bit masks from 128 on and dilates them 4 times by a 3x3 cross.
"""

from __future__ import annotations

import cv2
import numpy as np

THRESHOLD = 128  # of 255
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def holes_around(masks: np.ndarray, dilation: int) -> np.ndarray:
    """bool [T, H, W]: what is touched at all. `masks`: uint8 [T, H, W], soft."""
    hard = (masks >= THRESHOLD).astype(np.uint8)
    if dilation:
        hard = np.stack([cv2.dilate(mask, CROSS, iterations=dilation) for mask in hard])
    return hard > 0


def opacity(hole: np.ndarray, soft_edge: int) -> np.ndarray:
    """float32 [H, W]: how much of the filling is seen: 0 outside, 1 from `soft_edge` pixels in."""
    padded = cv2.copyMakeBorder(hole.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inwards = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.minimum(inwards / (soft_edge + 1), 1) * hole


def composed(
    frames: np.ndarray, filled: np.ndarray, holes: np.ndarray, soft_edge: int
) -> np.ndarray:
    """The filling in the frames, uint8 [T, H, W, 3].

    Pixels outside the holes are those of `frames`, bit by bit.
    """
    result = frames.copy()
    for t in np.flatnonzero(holes.any((1, 2))):
        alpha = opacity(holes[t], soft_edge)
        inside = holes[t]
        part = alpha[inside][:, None]
        blend = part * filled[t][inside] + (1 - part) * frames[t][inside]
        result[t][inside] = np.rint(blend).astype(np.uint8)
    return result


def through_hats_size(frames: np.ndarray) -> np.ndarray:
    """Each frame shrunk to 432x240 and back, as every pixel of No-Human Kinetics was."""
    height, width = frames.shape[1:3]
    small = (cv2.resize(frame, (432, 240), interpolation=cv2.INTER_AREA) for frame in frames)
    return np.stack([cv2.resize(each, (width, height)) for each in small])
