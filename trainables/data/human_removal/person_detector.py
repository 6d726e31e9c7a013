"""Finds people in a frame without any download: OpenCV's HOG detector (Dalal and Triggs, 2005)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

SHORT_SIDE = 480  # pixels that frames are scaled to: its people are at least 96 pixels tall
THRESHOLD = 0.5  # distance from the SVM's plane
BODY = 0.6  # of a box's width and height: HOG's boxes have a rim around the person
SAME = 0.4  # boxes that overlap more are one person


class Box(NamedTuple):
    """In pixels of the frame; may reach over its edges."""

    left: float
    top: float
    width: float
    height: float
    score: float

    def overlap(self, other: Box) -> float:
        """Intersection over union."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        both = max(width, 0) * max(height, 0)
        return both / (self.width * self.height + other.width * other.height - both)

    def part(self, shape: Sequence[int], share: float = 1.0) -> tuple[slice, slice]:
        """Rows and columns of its middle, `share` of its width and height, inside the frame."""
        edges = []
        for start, length, end in (
            (self.top, self.height, shape[0]),
            (self.left, self.width, shape[1]),
        ):
            rim = length * (1 - share) / 2
            edges.append(
                slice(*np.rint([start + rim, start + length - rim]).clip(0, end).astype(int))
            )
        return edges[0], edges[1]


class Seen(NamedTuple):
    """The people in a frame."""

    boxes: list[Box]  # the surest first
    mask: np.ndarray | None = None  # uint8 [H, W], how sure one is there; HOG tells none


Detect = Callable[[np.ndarray], Seen]  # of a frame, uint8 [H, W, 3] RGB


def hog_detector() -> Detect:
    """Raises ValueError where OpenCV was built without it."""
    if not hasattr(cv2, "HOGDescriptor"):
        raise ValueError(
            f"OpenCV {cv2.__version__} has no person detector: from 5.0 on it is in the contrib "
            "package; pip install opencv-contrib-python-headless in place of opencv-python-headless"
        )
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())

    def detect(frame: np.ndarray) -> Seen:
        scale = SHORT_SIDE / min(frame.shape[:2])
        method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        # A frame may be narrower than the detector's window.
        width = max(round(frame.shape[1] * scale), 64)
        height = max(round(frame.shape[0] * scale), 128)
        large = cv2.resize(frame[..., ::-1], (width, height), interpolation=method)
        found, scores = hog.detectMultiScale(
            large, hitThreshold=THRESHOLD, winStride=(8, 8), padding=(16, 16), scale=1.1,
            groupThreshold=0,
        )  # fmt: skip
        if not len(found):
            return Seen([])
        scores = np.asarray(scores, np.float64).ravel().tolist()
        best = cv2.dnn.NMSBoxes(np.asarray(found).tolist(), scores, THRESHOLD, SAME)
        shrink = np.array([frame.shape[1] / width, frame.shape[0] / height] * 2)
        places = (np.asarray(found) * shrink).tolist()
        boxes = [Box(*[*places[i], scores[i]]) for i in np.ravel(best).tolist()]
        return Seen(sorted(boxes, key=lambda box: -box.score))

    return detect
