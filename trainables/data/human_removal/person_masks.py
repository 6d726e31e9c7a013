"""Masks of people without any download: a detector says who, a background model says where.

What stands out from the background is cut into blobs in space and time. A blob that moves with a
person found by the detector is that person, in all its frames, also those in which the detector
missed it. A person that does not stand out, since it never moves, is masked by its box.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from trainables.data.human_removal.camera_motion import CameraMotion, camera_motion
from trainables.data.human_removal.person_detector import BODY, Box
from trainables.data.human_removal.tracks import Track, tracks_of, without_gaps

WINDOW = 12  # frames to each side from which a moving camera's background is made
STEP = 3  # of them, every third
CONTRAST = 14.0  # grey values that a pixel must at least stand out by
NOISE = 5.0  # times the frame's median deviation, likewise
SMALLEST = 0.0005  # of the frame: smaller blobs are noise
FILLED = 0.15  # of that part: a blob that covers less is not the person


def masks_by_detector(
    frames: np.ndarray, found: list[list[Box]], all_that_moves: bool
) -> np.ndarray:
    """uint8 [T, H, W], 0 or 255, of frames uint8 [T, H, W, 3] in which `found` was found.

    `all_that_moves`: before a still camera every blob counts as a person.
    """
    tracks = tracks_of(found)
    masks = np.zeros(frames.shape[:3], np.uint8)
    if not tracks and not all_that_moves:
        return masks
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    motion = camera_motion(grey, np.zeros(masks.shape, bool))
    standing_out = _standing_out(frames, motion)
    whole = [without_gaps(track, len(frames)) for track in tracks]
    if not motion.still:  # parallax stands out too: only what is near a person counts
        near = np.zeros(masks.shape, bool)
        for track in whole:
            for t, box in track.items():
                near[(t, *box.part(frames.shape[1:3], 1.1))] = True
        standing_out &= near
    blobs, count = ndimage.label(standing_out, np.ones((3, 3, 3)))
    sizes = np.bincount(blobs.ravel(), minlength=count + 1)
    people = set[int]()
    for track, found_in in zip(whole, tracks, strict=True):
        resting = {}
        for t, box in track.items():
            body = blobs[(t, *box.part(frames.shape[1:3], BODY))]
            inside = np.bincount(body.ravel(), minlength=1)
            inside[0] = 0
            best = int(inside.argmax())
            if inside[best] >= FILLED * max(body.size, 1):
                people.add(best)
            elif t in found_in:
                resting[t] = box
        if len(resting) > len(found_in) / 2:
            _mask_with_background(masks, frames, track, motion)
        for t, box in resting.items():
            masks[t] |= _body(frames[t], box)
    if all_that_moves and motion.still:
        people = set(range(1, count + 1))
    people = {blob for blob in people if sizes[blob] >= SMALLEST * masks[0].size}
    masks[np.isin(blobs, sorted(people))] = 255
    return np.stack([cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(3)) for mask in masks])


def more_masks(masks: np.ndarray, frames: np.ndarray, found: list[list[Box]]) -> np.ndarray:
    """`masks` with the bodies of those who were found in a result, in all frames of the clip."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    motion = camera_motion(grey, masks > 0)
    more = masks.copy()
    for track in tracks_of(found):
        _mask_with_background(more, frames, without_gaps(track, len(masks)), motion)
    return more


def _mask_with_background(
    masks: np.ndarray, frames: np.ndarray, track: Track, motion: CameraMotion
) -> None:
    """In place: bodies in the boxes; where there is none, in the nearest box, moved as the camera
    moves. Who does not stand out from the background rests on it, before and after it is found."""
    if not track:
        return
    boxes, first, last = dict(track), min(track), max(track)
    for t in range(last + 1, len(masks)):
        boxes[t] = _moved(boxes[t - 1], motion.onward[t - 1])
    for t in range(first - 1, -1, -1):
        boxes[t] = _moved(boxes[t + 1], motion.back[t])
    for t, box in boxes.items():
        masks[t] |= _body(frames[t], box)


def _moved(box: Box, step: np.ndarray) -> Box:
    corners = np.array([[[box.left, box.top], [box.left + box.width, box.top + box.height]]])
    (left, top), (right, bottom) = cv2.perspectiveTransform(corners, step)[0].tolist()
    return Box(left, top, max(right - left, 1.0), max(bottom - top, 1.0), box.score)


def _standing_out(frames: np.ndarray, motion: CameraMotion) -> np.ndarray:
    """bool [T, H, W]: what differs from the median of the same place in other frames."""
    result = np.zeros(frames.shape[:3], bool)
    plate = np.median(frames[:: max(len(frames) // 60, 1)], 0) if motion.still else None
    for t, frame in enumerate(frames):
        background = _aligned_median(frames, motion, t) if plate is None else plate
        apart = np.abs(cv2.GaussianBlur(frame, (3, 3), 0).astype(np.float32) - background).max(-1)
        sure = apart > max(CONTRAST, NOISE * float(np.median(apart)))
        cleaned = cv2.morphologyEx(sure.astype(np.uint8), cv2.MORPH_OPEN, _disc(1))
        result[t] = cv2.morphologyEx(cleaned, cv2.MORPH_CLOSE, _disc(3)) > 0
    return result


def _aligned_median(frames: np.ndarray, motion: CameraMotion, t: int) -> np.ndarray:
    """float32 [H, W, 3]: the median of neighbouring frames, as the camera at `t` would see them."""
    height, width = frames.shape[1:3]
    seen = [frames[t].astype(np.float32)]
    for steps, ahead in ((motion.onward[t:], 1), (motion.back[:t][::-1], -1)):
        path = np.eye(3)
        for n, step in enumerate(steps[:WINDOW], 1):
            path = step @ path
            if n % STEP == 0:
                other = cv2.warpPerspective(
                    frames[t + ahead * n], path, (width, height),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_CONSTANT, borderValue=(-1, -1, -1),
                )  # fmt: skip
                seen.append(other.astype(np.float32))
    return np.median(np.stack(seen), 0).astype(np.float32)


def _body(frame: np.ndarray, box: Box) -> np.ndarray:
    """uint8 [H, W], 0 or 255: an ellipse of a standing person's size in its box, and what around
    it has its colours (GrabCut: Rother et al., 2004)."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    middle = round(box.left + box.width / 2), round(box.top + box.height / 2)
    radii = round(box.width * 0.3), round(box.height * 0.42)
    ellipse = np.asarray(cv2.ellipse(mask, middle, radii, 0, 0, 360, 255, -1))
    around = box.part(frame.shape, 1.6)
    labels = np.where(ellipse[around] > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    core = np.zeros_like(mask)
    cv2.ellipse(core, middle, (radii[0] // 3, radii[1] // 2), 0, 0, 360, 255, -1)
    labels[core[around] > 0] = cv2.GC_FGD
    outside = np.ones_like(mask)
    outside[box.part(frame.shape, 1.4)] = 0
    labels[outside[around] > 0] = cv2.GC_BGD
    kinds = set(np.unique(labels).tolist())
    if kinds & {cv2.GC_FGD, cv2.GC_PR_FGD} and kinds & {cv2.GC_BGD, cv2.GC_PR_BGD}:
        cv2.setRNGSeed(0)
        state = np.zeros((2, 1, 65))
        part = np.ascontiguousarray(frame[around])
        cv2.grabCut(part, labels, None, state[0], state[1], 3, cv2.GC_INIT_WITH_MASK)
        ellipse[around] |= np.uint8(255) * np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return ellipse


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
