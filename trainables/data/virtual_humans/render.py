"""Writes the clips, the manifest and the catalog entry of a folder of virtual humans."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2

from trainables.data import claims
from trainables.data.video_files import ClipUnreadable
from trainables.data.virtual_humans.clip import Footage, draw_clip
from trainables.data.virtual_humans.plan import ClipPlan, without_footage
from trainables.data.virtual_humans.settings import RenderSettings, version
from trainables.data.whole_files import add_to_catalog, encode_mp4, write_whole

MASK_CRF = 10  # x264's quality: fine enough for a threshold at 128


class Rendered(NamedTuple):
    path: str
    made: bool  # False: it was there
    error: str = ""
    footage_lost: str = ""  # why it stands before something else


def render_clips(
    plans: Sequence[ClipPlan],
    settings: RenderSettings,
    footage: Sequence[Footage],
    root: Path,
    masks: Path | None,
) -> list[Rendered]:
    """Each clip drawn into `root`, its mask into `masks`, unless they are there.

    One whose footage cannot be read is drawn before something else.

    Raises:
        OSError: a disk that is full.
    """
    cv2.setNumThreads(1)  # there is a process for each core
    return [_render(plan, settings, footage, root, masks) for plan in plans]


def _render(
    plan: ClipPlan,
    settings: RenderSettings,
    footage: Sequence[Footage],
    root: Path,
    masks: Path | None,
) -> Rendered:
    target, mask = root / plan.path, None if masks is None else masks / plan.path
    if target.exists() and (mask is None or mask.exists()):
        return Rendered(plan.path, made=False)
    lost = ""
    try:
        drawn = list(draw_clip(plan, settings, footage, masks=mask is not None))
    except ClipUnreadable as error:
        lost, plan = str(error), without_footage(plan, settings)
        drawn = list(draw_clip(plan, settings, footage, masks=mask is not None))
    rate = settings.frames_per_second
    if mask is not None:
        people = (cv2.merge([each.mask] * 3) for each in drawn)
        write_whole(mask, encode_mp4(people, rate, MASK_CRF))
    write_whole(target, encode_mp4((each.frame for each in drawn), rate, settings.crf))
    return Rendered(plan.path, made=True, footage_lost=lost)


def died(plan: ClipPlan) -> Rendered:
    return Rendered(plan.path, made=False, error="the process that drew it died")


@contextmanager
def claimed(out: Path, name: str, settings: RenderSettings, source: str) -> Iterator[None]:
    """See `claims.claimed`."""
    folders = [out / name, masks_folder(out, name)]
    with claims.claimed(out, name, version(settings), settings.told(), source, folders):
        yield


def masks_folder(out: Path, name: str) -> Path:
    return out / f"{name}.masks"


def write_lists(
    out: Path,
    name: str,
    plans: Sequence[ClipPlan],
    settings: RenderSettings,
    licence: str | None,
    masks: bool,
) -> Path:
    """The manifest and the catalog entry, written last: what they list is there. The catalog."""
    lines = io.StringIO()
    rows = csv.writer(lines)
    rows.writerow(["path", "label", "group", "split"])
    rows.writerows((plan.path, plan.label, plan.takes[0].group, plan.split) for plan in plans)
    write_whole(out / f"{name}.csv", lines.getvalue().encode())
    entry = {
        "clips": f"{name}.csv",
        "root": name,
        "humans": "virtual",
        "classes": sorted({plan.label for plan in plans}),
        "version": f"virtual humans {version(settings)}, seed {settings.seed}",
    }
    if licence:
        entry["licence"] = licence
    if masks:
        entry["masks"] = masks_folder(out, name).name
    add_to_catalog(out / "catalog.yaml", name, entry, kept=("licence", "masks"))
    return out / "catalog.yaml"
