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
import os
import sys
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
from rich.console import Console
from rich.markup import escape

from trainables.data.clip_jobs import in_processes, with_progress
from trainables.data.command_line import at_least_one
from trainables.data.human_removal.clip_files import (
    VIDEO_SUFFIXES,
    find_clips,
    sha256_of,
)
from trainables.data.human_removal.one_clip import Job, Outcome, died, read_outcome, remove_people
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
from trainables.data.whole_files import write_whole

NOTES = """what is written:
  OUT/clips/...      the clips, under the paths that they had: videos as H.264 in mp4 whatever the
                     ending, folders of frames as folders of PNG; without people, the same bytes
  OUT/masks/...      what was filled, a folder of 8-bit PNG a clip: 0 is untouched, 255 all new
  OUT/sheets/...     a picture of each clip, before and after; look at some
  OUT/report.html    how many of which kind, what is still found, the worst clips as pictures
  OUT/clips.csv, OUT/catalog.yaml   the dataset for a sweep: `humans: removed`, its leak rate
  OUT/records/...    what was measured of each clip, and settings.json: what they were made with

Outside the holes every pixel is kept: bit by bit in folders of frames and with --crf 0 (lossless,
several times larger); else up to the encoding, whose PSNR there is in each clip's record.

examples:
  python -m trainables.data.human_removal kinetics out
  python -m trainables.data.human_removal kinetics out --clips train.csv --weights maskrcnn.pth
  python -m trainables.data.human_removal DAVIS/JPEGImages/480p out --frame-rate 24 \\
      --masks 'DAVIS/Annotations/480p/{path}'

exit status: 0 done, 1 done but some clips were refused or left out, 2 an option, a list, the
weights or the disk is at fault (what was finished stays), 130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status that `--help` tells."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        return _run(arguments, console)
    except (ValueError, OSError) as error:
        console.print(f"[red bold]error:[/red bold] {escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on.")
        return 130


def _run(arguments: argparse.Namespace, console: Console) -> int:
    into: Path = arguments.into
    rows = _rows(arguments)
    jobs = [_job(row.path, arguments) for row in rows]
    if arguments.frame_rate is None and any(job.source.is_dir() for job in jobs):
        raise ValueError(f"{arguments.source} has folders of frames; give their --frame-rate")
    settings = _settings(arguments)
    _keep_settings(into, settings, arguments)
    waiting = [job for job in jobs if read_outcome(into, job.path) is None]
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
    write_catalog(into, name, settings, outcomes, arguments.frame_rate)
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
    """The clips to do. Raises ValueError where there are none, or OUT lies in IN."""
    source, into = arguments.source, arguments.into
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder; give the folder in which the videos lie")
    if into.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{into} lies in {source}, whose videos are read; choose another folder")
    if arguments.clips is not None:
        rows = read_manifest(arguments.clips)
        return [
            row._replace(path=path_inside(str(arguments.clips), row.path, source)) for row in rows
        ]
    paths = find_clips(source)
    of_masks = {_masks_of(path, arguments) for path in paths}
    paths = [path for path in paths if source / path not in of_masks]
    if not paths:
        raise ValueError(f"{source} has no videos and no folders of frames")
    folders = [Path(path).parent.name for path in paths]
    return [
        Row(path, folder or "clip", "", "") for path, folder in zip(paths, folders, strict=True)
    ]


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
        detector, masks_from = "mask_rcnn", f"mask_rcnn {sha256_of(arguments.weights)[:16]}"
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
    """settings.json. Raises ValueError where OUT was begun with others, naming them."""
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
        return
    provenance = {
        "source": str(arguments.source),
        "clips": str(arguments.clips) if arguments.clips else None,
        "masks": arguments.masks,
        "opencv": cv2.__version__,
    }
    text = json.dumps({"settings": wanted, "provenance": provenance}, indent=1)
    write_whole(file, text.encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.data.human_removal",
        description=__doc__,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="IN", help="a folder with videos or folders of frames")
    add("into", type=Path, metavar="OUT", help="where the result goes")
    add("--clips", type=Path, metavar="FILE", help="a manifest: which clips of IN, their labels "
        "(default: all, labelled by the folder they lie in)")  # fmt: skip
    add("--masks", metavar="PATTERN", help="the folder of a clip's masks, PNG files, one a frame; "
        "{path} is the clip's path without ending, {parent} the folder it lies in")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="of torchvision's Mask R-CNN (COCO): it then "
        "makes the masks, unless --masks does, and checks for leaks")  # fmt: skip
    add("--all-that-moves", action="store_true", help="without --masks and --weights: what moves "
        "before a still camera is a person, whether it is found or not")  # fmt: skip
    add("--frame-rate", type=float, help="of folders of frames, in frames per second")
    add("--name", help="of the dataset in the catalog (default: OUT's)")
    add("--dilation", type=int, default=4, metavar="N",
        help="times that masks are widened by a 3x3 cross (default: 4, as HAT)")  # fmt: skip
    add("--soft-edge", type=int, default=2, metavar="N",
        help="pixels over which a hole's rim fades (default: 2)")  # fmt: skip
    add("--max-leak", type=float, default=0.2, metavar="SHARE",
        help="of a clip's frames in which somebody may still be found (default: 0.2)")  # fmt: skip
    add("--redo", type=int, default=1, metavar="N", help="times that a clip past it is done again "
        "with holes twice as wide, and holes for those found (default: 1)")  # fmt: skip
    add("--crf", type=int, default=16, help="x264's quality of videos, lower is better, 0 keeps "
        "every bit (default: 16)")  # fmt: skip
    add("--hat-resampling", action="store_true", help="let every pixel pass through 432x240, as "
        "HAT does; on other sources an ablation of its blur")  # fmt: skip
    add("--workers", type=at_least_one, default=os.cpu_count() or 1, metavar="N",
        help="processes, each with a clip (default: one for each CPU)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
