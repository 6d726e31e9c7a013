"""Removes the people from a folder of videos.

Person masks come from a detector and a background model (no download), from torchvision's Mask
R-CNN if you have its weights (--weights), or from files (--masks). They are widened as in HAT and
filled: where the camera is still with the median of what was seen there, where it moves with what
neighbouring frames saw, and what nobody saw from around it. Then the detector looks again: a clip
in which somebody is still found is done again with larger holes, and in the end left out.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
from rich.console import Console
from rich.markup import escape

from trainables.data.claims import locked
from trainables.data.clip_jobs import in_processes, with_progress
from trainables.data.command_line import exit_status
from trainables.data.human_removal.clip_files import (
    VIDEO_SUFFIXES,
    find_clips,
    sha256_of,
)
from trainables.data.human_removal.one_clip import (
    Job,
    Outcome,
    died,
    is_there,
    read_outcome,
    remove_people,
)
from trainables.data.human_removal.options import parser
from trainables.data.human_removal.person_detector import hog_detector
from trainables.data.human_removal.report import (
    MEANING,
    sentences,
    totals,
    write_catalog,
    write_manifest,
    write_report,
)
from trainables.data.human_removal.settings import CODE_VERSION, RemovalSettings
from trainables.data.manifests import Row, path_inside, read_manifest
from trainables.data.whole_files import delete_unfinished, write_whole

# In OUT, which others may write to as well. The catalog sees to itself.
WRITTEN = ("clips", "masks", "sheets", "records", "clips.csv", "report.html", "settings.json")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status that `--help` tells."""
    return exit_status(_run, parser(__doc__).parse_args(argv))


def _run(arguments: argparse.Namespace, console: Console) -> int:
    rows = _rows(arguments)
    jobs = [_job(row.path, arguments) for row in rows]
    if arguments.frame_rate is None and any(job.source.is_dir() for job in jobs):
        raise ValueError(f"{arguments.source} has folders of frames; give their --frame-rate")
    settings = _settings(arguments)
    with locked(arguments.into / ".lock", arguments.into):
        return _remove(rows, jobs, settings, arguments, console)


def _remove(
    rows: list[Row],
    jobs: list[Job],
    settings: RemovalSettings,
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    into: Path = arguments.into
    for name in WRITTEN:
        delete_unfinished(into / name)
    _keep_settings(into, settings, arguments)
    waiting = [job for job in jobs if not is_there(job)]
    if len(waiting) < len(jobs):
        console.print(f"{len(jobs) - len(waiting):,} of {len(jobs):,} clips were there")
    made = Counter[str]()
    chunks = in_processes(
        partial(remove_people, settings=settings), waiting, arguments.workers, died, chunk=1
    )

    def note() -> str:
        return ", ".join(f"{count:,} {state}" for state, count in made.items() if count)

    try:
        for chunk in with_progress(chunks, into.name, len(waiting), note, console):
            made.update(each.state for each in chunk)
    finally:
        chunks.close()
    outcomes = [read_outcome(into, job.path) or died(job) for job in jobs]
    return _tell(outcomes, rows, settings, arguments, console)


def _tell(
    outcomes: list[Outcome],
    rows: list[Row],
    settings: RemovalSettings,
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    into = arguments.into
    write_manifest(into, rows, outcomes)
    name = arguments.name or into.resolve().name
    write_catalog(into, name, settings, outcomes, arguments.frame_rate, arguments.licence)
    write_report(into, settings, outcomes)
    total = totals(outcomes)
    if settings.detector == "hog":
        console.print(
            "[yellow]note:[/yellow] OpenCV's detector knows whole, upright people only: look at "
            "the sheets, and take the leak rate for a lower bound (--weights has a better one)",
            soft_wrap=True,
        )
    for state, meaning in MEANING.items():
        if count := total.clips.get(state):
            console.print(f"{count:,} {state}: {meaning}")
    for line in sentences(total):
        console.print(line)
    for each in [each for each in outcomes if each.state == "refused"][:5]:
        console.print(f"refused: {escape(each.reason)}", soft_wrap=True)
    console.print(
        f"report: {into / 'report.html'}, catalog: {into / 'catalog.yaml'}", soft_wrap=True
    )
    return int(any(each.state in ("dropped", "refused") for each in outcomes))


def _rows(arguments: argparse.Namespace) -> list[Row]:
    """The clips to do. Raises ValueError where there are none, one would replace another, or OUT
    lies in IN."""
    source, into = arguments.source, arguments.into
    _check_pattern(arguments.masks)
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder; give the folder in which the videos lie")
    if into.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{into} lies in {source}, whose videos are read; choose another folder")
    if arguments.clips is not None:
        rows = [
            row._replace(path=path_inside(str(arguments.clips), row.path, source))
            for row in read_manifest(arguments.clips)
        ]
        _check_apart([row.path for row in rows], arguments.clips, "list one of the two")
        return rows
    paths = find_clips(source)
    of_masks = {_masks_of(path, arguments) for path in paths}
    paths = [path for path in paths if source / path not in of_masks]
    if not paths:
        raise ValueError(f"{source} has no videos and no folders of frames")
    _check_apart(paths, source, "move one of the two away, or say by --clips which to do")
    folders = [Path(path).parent.name for path in paths]
    return [
        Row(path, folder or "clip", "", "") for path, folder in zip(paths, folders, strict=True)
    ]


def _check_apart(paths: list[str], named_by: Path, remedy: str) -> None:
    """Raises ValueError where what is made of one clip would take the place of another's."""
    count = Counter(paths)
    if twice := [path for path in paths if count[path] > 1]:
        raise ValueError(f"{named_by}: {twice[0]} is listed twice; keep one line")
    for path in paths:
        for above in PurePosixPath(path).parents:
            if str(above) in count:
                raise ValueError(
                    f"{named_by}: {path} lies in {above}, which is a clip itself, a folder of "
                    f"frames; {remedy}"
                )


def _check_pattern(masks: str | None) -> None:
    """Raises ValueError where not every clip would have masks of its own by it."""
    if masks is None:
        return
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(masks)} - {None}
    except ValueError as error:
        raise ValueError(f"--masks {masks} cannot be read: {error}") from None
    if not fields or not fields <= {"path", "parent"}:
        raise ValueError(
            f"--masks {masks} must name each clip's folder by {{path}} (the clip without its "
            "suffix) or {parent} (the folder it lies in), and by nothing else in braces"
        )


def _job(path: str, arguments: argparse.Namespace) -> Job:
    source, masks = arguments.source / path, _masks_of(path, arguments)
    return Job(path, source, arguments.into, masks, arguments.weights)


def _masks_of(path: str, arguments: argparse.Namespace) -> Path | None:
    if arguments.masks is None:
        return None
    clip = Path(path)
    stem = clip.with_suffix("") if clip.suffix.lower() in VIDEO_SUFFIXES else clip
    return Path(arguments.masks.format(path=stem, parent=clip.parent))


def _settings(arguments: argparse.Namespace) -> RemovalSettings:
    """Raises ValueError where the detector or the weights cannot be used."""
    detector, masks_from = "hog", "detector"
    if arguments.weights is not None:
        from trainables.data.human_removal.mask_rcnn import load_mask_rcnn  # and torch

        load_mask_rcnn(arguments.weights)
        detector = masks_from = f"mask_rcnn {sha256_of(arguments.weights)[:16]}"
    else:
        hog_detector()
    if arguments.masks is not None:
        masks_from = "files"
    if arguments.all_that_moves and masks_from != "detector":
        raise ValueError("--all-that-moves is for masks by the detector; drop --masks or --weights")
    return RemovalSettings(
        masks_from=masks_from,
        all_that_moves=arguments.all_that_moves,
        detector=detector,
        dilation=arguments.dilation,
        soft_edge=arguments.soft_edge,
        max_leak=arguments.max_leak,
        redo=arguments.redo,
        crf=arguments.crf,
        hat_resampling=arguments.hat_resampling,
    )


def _keep_settings(into: Path, settings: RemovalSettings, arguments: argparse.Namespace) -> None:
    """settings.json, with where this run reads from, which may be elsewhere than an earlier one.

    Raises ValueError where OUT was begun with other settings, naming them.
    """
    file = into / "settings.json"
    wanted = {**asdict(settings), "code_version": CODE_VERSION}
    if file.exists():
        known = json.loads(file.read_text())["settings"]
        other = [key for key in wanted if known.get(key) != wanted[key]]
        if other:
            told = ", ".join(f"{key} {known.get(key)}, now {wanted[key]}" for key in other)
            raise ValueError(
                f"{into} was begun with other settings ({told}); choose another folder"
            )
    provenance = {
        "source": str(arguments.source),
        "clips": str(arguments.clips) if arguments.clips else None,
        "masks": arguments.masks,
        "opencv": cv2.__version__,
    }
    text = json.dumps({"settings": wanted, "provenance": provenance}, indent=1)
    write_whole(file, text.encode())


if __name__ == "__main__":
    sys.exit(main())
