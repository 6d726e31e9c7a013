"""Measures of a filled clip: what is untouched, and how much it flickers."""

from __future__ import annotations

import cv2
import numpy as np


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """10 log10(255^2 / mean squared difference), in dB; infinite where there is none."""
    if not one.size or not (error := float(((one.astype(np.float32) - other) ** 2).mean())):
        return float("inf")
    return float(10 * np.log10(255**2 / error))


def flicker(frames: np.ndarray, holes: np.ndarray) -> float | None:
    """How much the filling changes from frame to frame beyond its motion, in grey values.

    mean over t and over the pixels p of the hole at t that f leads into the hole at t + 1 of
    |O(t + 1, p + f(t, p)) - O(t, p)|, with O the grey frame and f the optical flow (DIS) from t to
    t + 1, which is estimated on `frames` itself. The warping error of Lai et al. (Learning Blind
    Video Temporal Consistency, ECCV 2018), without its occlusion masks. None without such pixels.

    Args:
        frames: uint8 [T, H, W, 3].
        holes: bool [T, H, W].
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    height, width = grey[0].shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    total, count = 0.0, 0
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for t in range(len(grey) - 1):
        if not (holes[t].any() and holes[t + 1].any()):
            continue
        flow = dis.calc(grey[t], grey[t + 1], None)
        ends = x + flow[..., 0], y + flow[..., 1]
        there = cv2.remap(grey[t + 1].astype(np.float32), *ends, cv2.INTER_LINEAR)
        led = cv2.remap(holes[t + 1].astype(np.uint8), *ends, cv2.INTER_NEAREST) > 0
        both = holes[t] & led
        total += float(np.abs(there - grey[t])[both].sum())
        count += int(both.sum())
    return total / count if count else None
