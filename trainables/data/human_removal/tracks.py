"""People found in single frames, linked over time: what is found again and again is a person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.data.human_removal.person_detector import Box

GAP = 8  # frames in which a person may not be found
SAME_PLACE = 0.3  # intersection over union of a person's boxes, each with the one before
LEAST_FOUND = 3  # times; rarer finds are taken for chance
REACH = 8  # frames before the first and after the last find in which the person is still there

Track = dict[int, Box]  # frame -> where


def tracks_of(found: Sequence[Sequence[Box]]) -> list[Track]:
    """The tracks among the boxes `found` in each frame, found at least LEAST_FOUND times.

    Each box goes to the track whose last one it overlaps most.
    """
    tracks: list[Track] = []
    for t, boxes in enumerate(found):
        open_tracks = [track for track in tracks if t - max(track) <= GAP]
        pairs = sorted(
            (
                (box.overlap(track[max(track)]), b, n)
                for b, box in enumerate(boxes)
                for n, track in enumerate(open_tracks)
            ),
            key=lambda pair: (-pair[0], pair[1:]),
        )
        taken_boxes, taken_tracks = set[int](), set[int]()
        for overlap, b, n in pairs:
            if overlap >= SAME_PLACE and b not in taken_boxes and n not in taken_tracks:
                open_tracks[n][t] = boxes[b]
                taken_boxes.add(b)
                taken_tracks.add(n)
        tracks += [{t: box} for b, box in enumerate(boxes) if b not in taken_boxes]
    return [track for track in tracks if len(track) >= LEAST_FOUND]


def without_gaps(track: Track, frames: int) -> Track:
    """The track with boxes in between, and before and after as far as REACH, where it stood."""
    times = sorted(track)
    whole = range(max(times[0] - REACH, 0), min(times[-1] + REACH + 1, frames))
    columns = np.array([track[t] for t in times]).T
    return {t: Box(*(float(np.interp(t, times, column)) for column in columns)) for t in whole}
