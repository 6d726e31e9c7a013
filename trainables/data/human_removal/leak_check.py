"""Who can still be seen: what a person detector finds in a clip, held against its holes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.data.human_removal.person_detector import BODY, Box
from trainables.data.human_removal.tracks import tracks_of

ON_HOLE = 0.5  # of the middle of a box: then what is found is what should have gone

Found = Sequence[Sequence[Box]]  # for each frame


def leak_rate(found: Found) -> float:
    """Share of frames with somebody who is found again and again, so that it is not by chance."""
    return len({t for track in tracks_of(found) for t in track}) / len(found)


def hits(found: Found) -> int:
    """Boxes of all frames."""
    return sum(map(len, found))


def hits_in_holes(found: Found, holes: np.ndarray) -> int:
    """Those whose middle is mostly hole, of bool [T, H, W]; the others are whom the masks left out,
    or nobody."""
    count = 0
    for hole, boxes in zip(holes, found, strict=True):
        parts = (hole[box.part(hole.shape, BODY)] for box in boxes)
        count += sum(bool(part.size and part.mean() > ON_HOLE) for part in parts)
    return count
