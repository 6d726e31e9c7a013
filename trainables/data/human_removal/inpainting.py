"""Fills holes with what other frames saw there, and with neighbouring texture where none did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trainables.data.human_removal.camera_motion import (
    CameraMotion,
    background_flow,
    camera_motion,
)

SPATIAL_RADIUS = 4  # pixels that cv2.inpaint looks around
PIXELS_AT_ONCE = 20_000  # whose median is taken
LEAST_UNSEEN = 30  # pixels of a frame: fewer are inpainted in their frame alone


@dataclass(frozen=True, kw_only=True)
class Filled:
    frames: np.ndarray  # uint8 [T, H, W, 3]; equal to the input outside the holes
    still: bool  # whether the camera is
    from_time: float  # share of the holes' pixels that another frame saw


def inpaint(frames: np.ndarray, holes: np.ndarray) -> Filled:
    """`frames` without what is in their holes.

    A still camera: the median over time of what was seen at the pixel. A moving one: each pixel is
    followed along the background's motion, into the past and the future, to where it was seen, and
    faded from one to the other. What no frame saw is inpainted in one frame and carried to others.

    Args:
        frames: uint8 [T, H, W, 3].
        holes: bool [T, H, W].
    """
    if not holes.any():
        return Filled(frames=frames, still=False, from_time=1.0)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    motion = camera_motion(grey, holes)
    if motion.still:
        return _from_median(frames, holes)
    return _from_neighbours(frames, holes, grey, motion)


def _from_median(frames: np.ndarray, holes: np.ndarray) -> Filled:
    light = _light(frames, holes)
    plate, unseen = frames[len(frames) // 2].copy(), np.zeros(holes.shape[1:], bool)
    y, x = np.nonzero(holes.any(0))
    for start in range(0, len(y), PIXELS_AT_ONCE):
        at = y[start : start + PIXELS_AT_ONCE], x[start : start + PIXELS_AT_ONCE]
        hidden = holes[:, *at]
        even = frames[:, *at] - light[:, None]
        seen = np.ma.masked_array(even, hidden[..., None].repeat(3, -1))
        plate[at] = np.rint(np.ma.median(seen, 0).filled(0)).clip(0, 255).astype(np.uint8)
        unseen[at] = hidden.all(0)
    plate = _spatially(plate, unseen)
    filled = frames.copy()
    for t in np.flatnonzero(holes.any((1, 2))).tolist():
        lit = np.rint(plate[holes[t]] + light[t]).clip(0, 255)
        filled[t][holes[t]] = lit.astype(np.uint8)
    from_time = 1 - (holes & unseen).sum() / holes.sum()
    return Filled(frames=filled, still=True, from_time=float(from_time))


def _light(frames: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """float32 [T, 3]: how much brighter each frame's background is than the middle frame's."""
    middle, light = len(frames) // 2, np.zeros((len(frames), 3), np.float32)
    for t in range(len(frames)):
        outside = ~(holes[t] | holes[middle])
        if outside.any():
            apart = frames[t][outside].astype(np.float32) - frames[middle][outside]
            light[t] = np.median(apart, 0)
    return light


def _from_neighbours(
    frames: np.ndarray, holes: np.ndarray, grey: Sequence[np.ndarray], motion: CameraMotion
) -> Filled:
    count = len(frames)
    to_past, to_future = dict[int, np.ndarray](), dict[int, np.ndarray]()
    for t in range(count - 1):
        pair = grey[t], grey[t + 1], motion.onward[t], holes[t], holes[t + 1]
        to_future[t] = background_flow(*pair)
        pair = grey[t + 1], grey[t], motion.back[t], holes[t + 1], holes[t]
        to_past[t + 1] = background_flow(*pair)
    filled = frames.copy()
    past = _carried(frames, holes, ~holes, to_past, range(count))
    future = _carried(frames, holes, ~holes, to_future, range(count - 1, -1, -1))
    unseen = np.zeros_like(holes)
    for t in range(count):
        colour, steps = past[t]
        other, other_steps = future[t]
        near, far = 1.0 / steps, 1.0 / other_steps  # 0 where nothing was found
        total = near + far
        blend = (near[:, None] * colour + far[:, None] * other) / np.maximum(total, 1e-9)[:, None]
        filled[t][holes[t]] = np.rint(blend).astype(np.uint8)
        unseen[t][holes[t]] = total == 0
    from_time = 1 - unseen.sum() / holes.sum()
    _fill_unseen(filled, unseen, to_past, to_future)
    return Filled(frames=filled, still=False, from_time=float(from_time))


def _carried(
    frames: np.ndarray,
    wanted: np.ndarray,
    known: np.ndarray,
    flows: dict[int, np.ndarray],
    order: Iterable[int],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each frame the colours [N, 3] of its wanted pixels and how many frames away they were
    seen [N], infinite where not. Pixels are followed along `flows` against the `order`; colours
    are read once, from the frame in which they were seen, so that nothing blurs on the way.
    """
    _, height, width = wanted.shape
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty((0, 3)), np.empty(0))] * len(frames)
    before: int | None = None
    source = np.full((height, width), -1, np.int32)
    place = np.zeros((height, width, 2), np.float32)
    for t in order:
        y, x = np.nonzero(wanted[t])
        origin, where = np.full(len(y), -1, np.int32), np.zeros((len(y), 2), np.float32)
        if before is not None and len(y):
            end = np.stack([x, y], -1) + flows[t][y, x]
            near = np.rint(end).astype(int)
            inside = ((near >= 0) & (near < (width, height))).all(-1)
            at = near[:, 1].clip(0, height - 1), near[:, 0].clip(0, width - 1)
            seen = inside & known[before][at]
            passed_on = inside & ~seen & (source[at] >= 0)
            origin = np.where(seen, before, np.where(passed_on, source[at], -1)).astype(np.int32)
            # At a hole's rim a bilinear sample would reach into it: the nearest pixel is taken.
            rim = cv2.erode(known[before].astype(np.uint8), np.ones((3, 3), np.uint8))[at] == 0
            from_known = np.where(rim[:, None], near, end)
            where = np.where(seen[:, None], from_known, place[at] + (end - near)).astype(np.float32)
        source = np.full((height, width), -1, np.int32)
        place = np.zeros((height, width, 2), np.float32)
        source[y, x], place[y, x] = origin, where
        steps = np.where(origin >= 0, np.abs(origin - t), np.inf)
        found[t] = _sampled(frames, origin, where), steps
        before = t
    return found


def _sampled(frames: np.ndarray, source: np.ndarray, place: np.ndarray) -> np.ndarray:
    """float32 [N, 3]: `frames[source]` at `place` (x, y), bilinear; 0 without a source."""
    height, width = frames.shape[1:3]
    x = place[:, 0].clip(0, width - 1)
    y = place[:, 1].clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    dx, dy = (x - left)[:, None], (y - top)[:, None]
    frame = np.maximum(source, 0)
    above = frames[frame, top, left] * (1 - dx) + frames[frame, top, right] * dx
    below = frames[frame, bottom, left] * (1 - dx) + frames[frame, bottom, right] * dx
    colours = above * (1 - dy) + below * dy
    return np.where(source[:, None] >= 0, colours, 0).astype(np.float32)


def _fill_unseen(
    filled: np.ndarray,
    unseen: np.ndarray,
    to_past: dict[int, np.ndarray],
    to_future: dict[int, np.ndarray],
) -> None:
    """In place: the frame with most of it is inpainted, its pixels are carried to the others."""
    count = len(filled)
    while True:
        areas = unseen.sum((1, 2))
        key = int(areas.argmax())
        if areas[key] < LEAST_UNSEEN:
            break
        filled[key] = _spatially(filled[key], unseen[key])
        known = np.zeros_like(unseen)
        known[key] = True
        unseen[key] = False
        for flows, order in ((to_past, range(key, count)), (to_future, range(key, -1, -1))):
            for t, (colours, steps) in enumerate(_carried(filled, unseen, known, flows, order)):
                if len(steps) and np.isfinite(steps).any():
                    y, x = (axis[np.isfinite(steps)] for axis in np.nonzero(unseen[t]))
                    filled[t][y, x] = np.rint(colours[np.isfinite(steps)]).astype(np.uint8)
                    unseen[t][y, x] = False
    for t in np.flatnonzero(unseen.any((1, 2))).tolist():
        filled[t] = _spatially(filled[t], unseen[t])


def _spatially(frame: np.ndarray, hole: np.ndarray) -> np.ndarray:
    if not hole.any():
        return frame
    return cv2.inpaint(frame, hole.astype(np.uint8), SPATIAL_RADIUS, cv2.INPAINT_TELEA)
