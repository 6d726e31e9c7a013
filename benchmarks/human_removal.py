"""People removed from DAVIS clips whose masks are known: what is left of them, and how it looks.

    python benchmarks/human_removal.py [--data FOLDER] [--clips NAME ...] [--into FOLDER]

Each clip's frames are filled by the given masks alone, so nothing is done again and nothing is left
out. Told are the boxes of OpenCV's person detector before and after, on the holes and in all (a few
bystanders are outside the masks), the flicker in the holes before, after, and of OpenCV's spatial
inpainting frame by frame (formula: trainables/data/human_removal/quality.py), the PSNR outside the
holes, and CPU seconds a frame. Contact sheets go to FOLDER/sheets. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from trainables.data.human_removal.clip_files import read_whole
from trainables.data.human_removal.holes import holes_around
from trainables.data.human_removal.inpainting import inpaint
from trainables.data.human_removal.mask_files import read_masks
from trainables.data.human_removal.one_clip import Job, read_outcome, remove_people
from trainables.data.human_removal.quality import flicker, psnr
from trainables.data.human_removal.report import totals
from trainables.data.human_removal.settings import RemovalSettings

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "davis" / "with_people"
SETTINGS = RemovalSettings(
    masks_from="files",
    all_that_moves=False,
    detector="hog",
    dilation=4,
    soft_edge=2,
    max_leak=1.0,
    redo=0,
    crf=0,
    hat_resampling=False,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folders NAME/{frames,masks}")
    parser.add_argument("--clips", nargs="+", help="names (default: all)")
    parser.add_argument("--into", type=Path, help="kept there, and gone on with (default: nowhere)")
    arguments = parser.parse_args()
    names = sorted(path.parent.name for path in arguments.data.glob("*/frames"))
    names = [name for name in names if arguments.clips is None or name in arguments.clips]
    if not names:
        print(f"skipped: no clips with frames and masks under {arguments.data}; give --data")
        return
    with tempfile.TemporaryDirectory() as nowhere:
        into = arguments.into or Path(nowhere)
        rows = [measured(name, arguments.data, into) for name in names]
        print(json.dumps(answer(names, into, rows)))


def measured(name: str, data: Path, into: Path) -> dict[str, float]:
    """A clip's own figures; what `remove_people` tells of it is printed and kept in its record."""
    job = Job(name, data / name / "frames", into, data / name / "masks", None)
    outcome = read_outcome(into, name) or remove_people([job], SETTINGS)[0]
    assert outcome.state == "removed", outcome.reason
    frames, _ = read_whole(job.source)
    holes = holes_around(read_masks(data / name / "masks", frames.shape), SETTINGS.dilation)
    start = time.process_time()
    inpaint(frames, holes)
    seconds = time.process_time() - start
    made, _ = read_whole(into / "clips" / name)
    pairs = zip(frames, holes, strict=True)
    alone = [cv2.inpaint(f, h.astype(np.uint8), 4, cv2.INPAINT_TELEA) for f, h in pairs]
    row = {
        "frames": len(frames),
        "fill_seconds": seconds / len(frames),
        "psnr_outside": psnr(made[~holes], frames[~holes]),
        "flicker_spatial": flicker(np.stack(alone), holes) or 0.0,
        "flicker_around": flicker(made, rim_of(holes)) or 0.0,
    }
    print(
        f"{name:<20} {len(frames):>3} frames, {100 * outcome.masked:4.1f} % masked, "
        f"{100 * outcome.from_time:5.1f} % of it seen by others, hits {outcome.hits[0]} -> "
        f"{outcome.hits[1]}, on holes {outcome.hits_in_holes[0]} -> {outcome.hits_in_holes[1]}, "
        f"leak {outcome.leak_rate:.3f}, flicker {outcome.flicker[0]:.2f} -> "
        f"{outcome.flicker[1]:.2f} (spatial {row['flicker_spatial']:.2f}, around "
        f"{row['flicker_around']:.2f}), PSNR outside {row['psnr_outside']}, "
        f"{row['fill_seconds']:.3f} s a frame to fill",
        flush=True,
    )
    return row


def rim_of(holes: np.ndarray) -> np.ndarray:
    """A band of 12 pixels around each hole: the untouched scene next to it."""
    wide = [cv2.dilate(hole.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0 for hole in holes]
    return np.stack(wide) & ~holes


def answer(names: list[str], into: Path, rows: list[dict[str, float]]) -> dict[str, object]:
    outcomes = [outcome for name in names if (outcome := read_outcome(into, name))]
    total = asdict(totals(outcomes))
    before, after = total["hits_in_holes"]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "frames"}
    return {
        "benchmark": "human_removal",
        "clips": len(names),
        **total,
        "hits_in_holes_down": 1 - after / before if before else None,
        **{key: value if np.isfinite(value) else "infinite" for key, value in mean.items()},
    }


if __name__ == "__main__":
    main()
