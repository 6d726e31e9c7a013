"""One clip: masks, holes, filling, leak check, and again where somebody is still seen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from trainables.data.human_removal.clip_files import (
    copy_clip,
    read_whole,
    sha256_of,
    whole_folder,
    write_clip,
    write_images,
)
from trainables.data.human_removal.contact_sheets import contact_sheet
from trainables.data.human_removal.holes import composed, holes_around, through_hats_size
from trainables.data.human_removal.inpainting import inpaint
from trainables.data.human_removal.leak_check import hits, hits_in_holes, leak_rate
from trainables.data.human_removal.mask_files import read_masks
from trainables.data.human_removal.person_detector import Detect, Seen, hog_detector
from trainables.data.human_removal.person_masks import masks_by_detector, more_masks
from trainables.data.human_removal.quality import flicker, psnr
from trainables.data.human_removal.settings import RemovalSettings
from trainables.data.video_files import ClipUnreadable
from trainables.data.whole_files import write_whole

NOTHING_LEFT = 0.02  # of a clip's pixels outside the holes: too little to fill them from

State = Literal["removed", "no_people", "dropped", "refused"]


class Job(NamedTuple):
    path: str  # of the clip, in the source and in what is made
    source: Path
    into: Path
    masks: Path | None  # a folder of mask files, or a video
    weights: Path | None  # of Mask R-CNN


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a clip. Written when all else of it is on disk."""

    path: str
    state: State
    reason: str = ""
    source_sha256: str = ""
    masks_sha256: str = ""  # of the mask files that were given
    frames: int = 0
    still: bool = False  # whether the camera is
    masked: float = 0.0  # share of the pixels
    from_time: float = 0.0  # of those, the share that another frame saw
    attempts: int = 0
    leak_rate: float = 0.0  # share of frames in which the detector finds somebody for sure
    hits: tuple[int, int] = (0, 0)  # boxes of the detector before and after
    hits_in_holes: tuple[int, int] = (0, 0)  # those that lie on what was filled
    flicker: tuple[float | None, float | None] = (None, None)  # in the holes, before and after
    psnr_outside: float | None = None  # of what can be read again, outside the holes; None: equal


def outcome_file(into: Path, path: str) -> Path:
    return into / "records" / f"{path}.json"


def read_outcome(into: Path, path: str) -> Outcome | None:
    """What is known of a clip that an earlier run finished."""
    file = outcome_file(into, path)
    if not file.exists():
        return None
    known: Any = json.loads(file.read_text())
    pairs: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
    return Outcome(**pairs)


def is_there(job: Job) -> bool:
    """Whether an earlier run has made the clip, of what lies there now, and it still is there.

    Refused ones are not.
    """
    known = read_outcome(job.into, job.path)
    if known is None or known.state == "refused":
        return False
    if known.state != "dropped" and not (job.into / "clips" / job.path).exists():
        return False
    now = sha256_of(job.source) if job.source.exists() else "", masks_hash(job)
    return now == (known.source_sha256, known.masks_sha256)


def masks_hash(job: Job) -> str:
    return sha256_of(job.masks) if job.masks is not None and job.masks.exists() else ""


def remove_people(jobs: Sequence[Job], settings: RemovalSettings) -> list[Outcome]:
    """Each clip made, or refused with a reason. Raises OSError where the disk refuses."""
    cv2.setNumThreads(1)  # there is a process for each core
    return [_finished(job, settings) for job in jobs]


def died(job: Job) -> Outcome:
    """The outcome of a clip whose process did not survive it."""
    return Outcome(path=job.path, state="refused", reason="the process that worked on it died")


def _finished(job: Job, settings: RemovalSettings) -> Outcome:
    try:
        outcome = _made(job, settings)
    except ClipUnreadable as error:
        outcome = Outcome(path=job.path, state="refused", reason=str(error))
    text = json.dumps(asdict(outcome), indent=1)
    write_whole(outcome_file(job.into, job.path), text.encode())
    return outcome


def _made(job: Job, settings: RemovalSettings) -> Outcome:
    frames, rate = read_whole(job.source)
    detect = _detector(job.weights, settings)
    seen = [detect(frame) for frame in frames]
    found = [each.boxes for each in seen]
    masks = _masks(job, settings, frames, seen)
    for attempt in range(1 + settings.redo):
        holes = holes_around(masks, settings.dilation * 2**attempt)
        if holes.mean() > 1 - NOTHING_LEFT:
            share = f"{100 * holes.mean():.0f} % of its pixels"
            raise ClipUnreadable(job.source, f"people cover {share}; nothing is left to fill from")
        filled = inpaint(frames, holes)
        result = composed(frames, filled.frames, holes, settings.soft_edge)
        if settings.hat_resampling:
            result = through_hats_size(result)
        found_after = [detect(frame).boxes for frame in result] if holes.any() else found
        if (leak := leak_rate(found_after)) <= settings.max_leak:
            break
        masks = more_masks(masks, frames, found_after)
    state: State = "dropped"
    outside: float | None = None
    if leak <= settings.max_leak:
        state = "removed" if holes.any() else "no_people"
        outside = _write(job, settings, frames, result, holes, rate)
    sheet = contact_sheet(frames, result, holes, (found, found_after))
    jpg = cv2.imencode(".jpg", sheet[..., ::-1])[1].tobytes()
    write_whole(job.into / "sheets" / f"{job.path}.jpg", jpg)
    return Outcome(
        path=job.path,
        state=state,
        reason="somebody is still found" if state == "dropped" else "",
        source_sha256=sha256_of(job.source),
        masks_sha256=masks_hash(job),
        frames=len(frames),
        still=filled.still,
        masked=float(holes.mean()),
        from_time=filled.from_time,
        attempts=attempt + 1,
        leak_rate=leak,
        hits=(hits(found), hits(found_after)),
        hits_in_holes=(hits_in_holes(found, holes), hits_in_holes(found_after, holes)),
        flicker=(flicker(frames, holes), flicker(result, holes)),
        psnr_outside=outside,
    )


def _write(
    job: Job,
    settings: RemovalSettings,
    frames: np.ndarray,
    result: np.ndarray,
    holes: np.ndarray,
    rate: Fraction | None,
) -> float | None:
    """Clip and masks to disk. Returns the PSNR outside the holes, as read again; None: equal."""
    target = job.into / "clips" / job.path
    with whole_folder(job.into / "masks" / job.path) as folder:
        write_images(folder, np.uint8(255) * holes)
    if result is frames or not (holes.any() or settings.hat_resampling):
        copy_clip(job.source, target)
        return None
    write_clip(target, result, rate, settings.crf)
    again, _ = read_whole(target)
    outside = psnr(again[~holes], frames[~holes])
    return outside if math.isfinite(outside) else None


def _detector(weights: Path | None, settings: RemovalSettings) -> Detect:
    if settings.detector == "hog":
        return hog_detector()
    assert weights is not None
    from trainables.data.human_removal.mask_rcnn import load_mask_rcnn, mask_rcnn_detector

    return mask_rcnn_detector(load_mask_rcnn(weights))


def _masks(job: Job, settings: RemovalSettings, frames: np.ndarray, seen: list[Seen]) -> np.ndarray:
    if job.masks is not None:
        return read_masks(job.masks, frames.shape)
    if job.weights is not None:
        return np.stack([each.mask for each in seen if each.mask is not None])
    return masks_by_detector(frames, [each.boxes for each in seen], settings.all_that_moves)
