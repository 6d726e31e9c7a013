"""A picture of clips, a row each, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from trainables.data.clips import read_clip
from trainables.data.virtual_humans.plan import ClipPlan
from trainables.data.whole_files import write_whole

COLUMNS, BAND = 6, 16  # frames of a clip; pixels for its label


def write_contact_sheet(path: Path, root: Path, plans: Sequence[ClipPlan], rows: int) -> None:
    """`rows` clips spread over the plans, `COLUMNS` frames each over the whole clip, as a PNG or
    what `path`'s ending says. Raises ValueError for an ending that is no picture's."""
    step = max(1, len(plans) // rows)
    strips = []
    for number, plan in enumerate(plans[::step][:rows]):
        plan = plans[min(number * step + number % step, len(plans) - 1)]
        frames = read_clip(
            root / plan.path,
            frames=COLUMNS,
            seconds=1e6,
            position=0.0,
            short_side=4096,
            frame_rate=None,
            video_reader="pyav",
        )
        band = np.full((BAND, frames.shape[2] * COLUMNS, 3), 255, np.uint8)
        text = f"{plan.label}  ({plan.path}, {plan.takes[0].path.name})"
        cv2.putText(band, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        strips += [band, np.concatenate(frames, axis=1)]
    sheet = cv2.cvtColor(np.concatenate(strips), cv2.COLOR_RGB2BGR)
    write_whole(path, cv2.imencode(path.suffix, sheet)[1].tobytes())
