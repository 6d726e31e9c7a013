"""How the camera moves: homographies between neighbouring frames, and the background's flow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

STILL = 0.5  # pixels at 240 lines and less: a still camera's corners move no more
MOST = 0.5  # of the corners: the others may be on people, or behind them
LOOKS = 9  # frames that are looked at for that
FLOW_SIDE = 480  # pixels; flow is estimated on frames of at most this short side
LEAST_FEATURES = 12  # fewer tracked corners do not tell a homography from noise
CELLS, IN_A_CELL = 5, 24  # rows and columns of parts of a frame, and corners in each
MARGIN = 5  # pixels around a hole in which the flow is still that of what was removed


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """Of a clip of T frames: T - 1 homographies each way, on [x, y, 1] in pixels."""

    onward: list[np.ndarray]  # place in frame t -> place in frame t + 1
    back: list[np.ndarray]  # place in frame t + 1 -> place in frame t
    still: bool


def camera_motion(grey: list[np.ndarray], holes: np.ndarray) -> CameraMotion:
    """From corners outside the holes, tracked from frame to frame, by RANSAC.

    Args:
        grey: T frames, uint8 [H, W].
        holes: bool [T, H, W]; what moves there is not the background.
    """
    onward = [_homography(*pair) for pair in zip(grey, grey[1:], holes, holes[1:], strict=False)]
    back = [np.linalg.inv(each) for each in onward]
    return CameraMotion(onward=onward, back=back, still=_is_still(grey, holes))


def _is_still(grey: list[np.ndarray], holes: np.ndarray) -> bool:
    """Whether most corners of a frame in the middle are where they were, in frames all over."""
    middle, limit = len(grey) // 2, STILL * max(min(grey[0].shape) / 240, 1)
    for t in np.unique(np.linspace(0, len(grey) - 1, LOOKS).round().astype(int)).tolist():
        outside = ~(holes[middle] | holes[t])
        corners = _spread_corners(grey[middle], outside)
        if len(corners):  # those on plain ground are none that can be found again
            corners = corners[_tracked(grey[middle], grey[middle], corners, levels=0)[1]]
        if len(corners) < LEAST_FEATURES:
            continue  # a plain scene: wherever it is seen from, it is the same
        light = np.median(grey[middle][outside].astype(np.float32) - grey[t][outside])
        as_bright = (grey[t] + light).clip(0, 255).astype(np.uint8)
        there, found = _tracked(grey[middle], as_bright, corners, levels=0)
        near = found & (np.abs(there - corners).max(1) <= limit)
        if near.sum() < MOST * len(corners):
            return False
    return True


def _homography(
    before: np.ndarray, after: np.ndarray, hole_before: np.ndarray, hole_after: np.ndarray
) -> np.ndarray:
    """float64 [3, 3]; the identity where too few corners can be tracked."""
    corners = _spread_corners(before, ~hole_before)
    if not len(corners):
        return np.eye(3)
    there, found = _tracked(before, after, corners, levels=3)
    height, width = after.shape
    x, y = np.rint(there).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    found &= inside & ~hole_after[y.clip(0, height - 1), x.clip(0, width - 1)]
    if found.sum() < LEAST_FEATURES:
        return np.eye(3)
    cv2.setRNGSeed(0)
    matrix, kept = cv2.findHomography(corners[found], there[found], cv2.RANSAC, 1.5)
    if matrix is None or kept.sum() < LEAST_FEATURES or not _sane(matrix, width, height):
        return np.eye(3)
    return np.asarray(matrix)


def _tracked(
    before: np.ndarray, after: np.ndarray, corners: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where corners [N, 2] are in `after`, float32 [N, 2], and whether they are found back, [N]."""
    window = (21, 21)
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, None, winSize=window, maxLevel=levels
    )
    again, back, _ = cv2.calcOpticalFlowPyrLK(
        after, before, there, None, winSize=window, maxLevel=levels
    )
    sure = (found & back).ravel() == 1
    return there, sure & (np.abs(again - corners).max(1) < 0.5)


def _spread_corners(grey: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """float32 [N, 2]: the best corners of each part of the frame, lest one that stands out, such as
    a person, has most of them."""
    height, width = grey.shape
    found = [np.empty((0, 2), np.float32)]
    rows, columns = (np.linspace(0, end, CELLS + 1).astype(int) for end in (height, width))
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            cell = slice(top, bottom), slice(left, right)
            mask = np.uint8(255) * allowed[cell]
            corners = cv2.goodFeaturesToTrack(grey[cell], IN_A_CELL, 0.02, 5, mask=mask)
            if corners is not None:
                offset = np.array([left, top], np.float32)
                found.append(corners.reshape(-1, 2) + offset)
    return np.concatenate(found)


def _sane(matrix: np.ndarray, width: int, height: int) -> bool:
    """Whether the frame's corners stay convex and of about the same area."""
    corners = _corners(width, height)
    moved = cv2.perspectiveTransform(corners, matrix)
    area = cv2.contourArea(moved) / (width * height)
    return bool(cv2.isContourConvex(moved) and 0.5 < area < 2)


def _corners(width: int, height: int) -> np.ndarray:
    """float32 [4, 1, 2], in turn around the frame."""
    return np.array([[[0, 0]], [[width, 0]], [[width, height]], [[0, height]]], np.float32)


def background_flow(
    here: np.ndarray,
    there: np.ndarray,
    homography: np.ndarray,
    hole_here: np.ndarray,
    hole_there: np.ndarray,
) -> np.ndarray:
    """float32 [H, W, 2]: where the background at a pixel of `here` lies in `there`, less the pixel.

    The camera's homography, and on it what optical flow (DIS) finds outside the holes: parallax.
    Inside the holes that part is continued smoothly from around them.
    """
    height, width = here.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grid = np.stack([x, y], -1)
    planar = cv2.perspectiveTransform(grid.reshape(-1, 1, 2), homography).reshape(grid.shape)
    warped = cv2.remap(there, planar, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    hole_warped = cv2.remap(
        hole_there.astype(np.uint8), planar, None, cv2.INTER_NEAREST, borderValue=1
    )
    scale = min(FLOW_SIDE / min(height, width), 1.0)
    size = (round(width * scale), round(height * scale))
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (here, warped)]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rest = cv2.resize(dis.calc(small[0], small[1], None), (width, height)) / scale
    unsure = cv2.dilate((hole_here | (hole_warped > 0)).astype(np.uint8), _disc(MARGIN)) > 0
    rest = continued(rest, ~unsure)
    ends = planar + rest
    # The residual is where `warped` is looked up: the homography leads on from there.
    led_on = cv2.remap(planar, ends - planar + grid, None, cv2.INTER_LINEAR)
    outside = (led_on == 0).all(-1, keepdims=True)
    return np.where(outside, ends, led_on) - grid


def continued(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """float32 [H, W, C]: `values` where `known`, and smooth between them elsewhere (push-pull).

    Averages of what is known are pushed up a pyramid and pulled down where nothing is known:
    Gortler et al., The Lumigraph, 1996.
    """
    if known.all() or not known.any():
        return values.astype(np.float32) * bool(known.any())
    weights = known.astype(np.float32)[..., None]
    levels = [(values.astype(np.float32) * weights, weights)]
    while min(levels[-1][0].shape[:2]) > 1:
        total, weight = levels[-1]
        size = (total.shape[1] + 1) // 2, (total.shape[0] + 1) // 2
        down = [cv2.pyrDown(each, dstsize=size) for each in (total, weight)]
        levels.append(tuple(each.reshape(size[1], size[0], -1) for each in down))
    total, weight = levels[-1]
    filled = total / np.maximum(weight, 1e-6)
    for total, weight in levels[-2::-1]:
        height, width = total.shape[:2]
        filled = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
        filled = filled.reshape(height, width, -1)
        trust = np.minimum(weight * 2, 1)
        filled = trust * total / np.maximum(weight, 1e-6) + (1 - trust) * filled
    return np.where(known[..., None], values, filled).astype(np.float32)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
