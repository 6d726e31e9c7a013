"""What was done to a clip, as a picture: frames before and after, holes and finds drawn in."""

from __future__ import annotations

import cv2
import numpy as np

from trainables.data.human_removal.person_detector import Box

COLUMNS = 6
CELL_WIDTH = 240  # pixels
HOLE, FOUND = (255, 220, 0), (255, 0, 0)  # RGB


def contact_sheet(
    before: np.ndarray,
    after: np.ndarray,
    holes: np.ndarray,
    found: tuple[list[list[Box]], list[list[Box]]],
) -> np.ndarray:
    """uint8 [H, W, 3]: above, frames with their holes outlined; below, the same frames filled.

    Args:
        before, after: uint8 [T, H, W, 3].
        holes: bool [T, H, W].
        found: for both and each frame, what the detector finds there: red boxes.
    """
    times = np.unique(np.linspace(0, len(before) - 1, COLUMNS).round().astype(int))
    scale = CELL_WIDTH / before.shape[2]
    rows = []
    for frames, boxes in zip((before, after), found, strict=True):
        cells = []
        for t in times:
            size = (CELL_WIDTH, max(round(before.shape[1] * scale), 1))
            cell = cv2.resize(frames[t], size, interpolation=cv2.INTER_AREA)
            if frames is before:
                hole = cv2.resize(holes[t].astype(np.uint8), size)
                lines, _ = cv2.findContours(hole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                cv2.drawContours(cell, lines, -1, HOLE, 1)
            for box in boxes[t]:
                start = round(box.left * scale), round(box.top * scale)
                end = round((box.left + box.width) * scale), round((box.top + box.height) * scale)
                cv2.rectangle(cell, start, end, FOUND, 1)
            cells.append(cell)
        rows.append(np.hstack(cells))
    return np.vstack(rows)
