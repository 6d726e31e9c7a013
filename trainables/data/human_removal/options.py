"""The options of the command, and what its --help teaches."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from trainables.data.command_line import add_workers, parser_of

NOTES = """what is written:
  OUT/clips/...      the clips, under the paths that they had: videos as H.264 in mp4 whatever the
                     ending, folders of frames as folders of PNG; without people, the same bytes
  OUT/masks/...      255 where a clip was touched at all, 0 elsewhere: a folder of PNG each
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
  python -m trainables.data.human_removal data/filmed data --clips data/filmed.csv \\
      --masks 'data/filmed.masks/{path}.mp4'

exit status: 0 done, 1 done but some clips were refused or left out, 2 an option, a list, the
weights or the disk is at fault (what was finished stays), 130 interrupted
"""


def parser(description: str | None) -> argparse.ArgumentParser:
    """`description`: what stands above the options."""
    options = parser_of("trainables.data.human_removal", description, NOTES)
    add = options.add_argument
    add("source", type=Path, metavar="IN", help="a folder with videos or folders of frames")
    add("into", type=Path, metavar="OUT", help="where the result goes")
    add("--clips", type=Path, metavar="FILE", help="a manifest: which clips of IN, their labels "
        "(default: all, labelled by the folder they lie in)")  # fmt: skip
    add("--masks", metavar="PATTERN", help="a clip's masks, a folder of PNG files, one a frame, or "
        "a video; {path} is its path without ending, {parent} the folder it lies in")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="of torchvision's Mask R-CNN (COCO): it then "
        "makes the masks, unless --masks does, and checks for leaks")  # fmt: skip
    add("--all-that-moves", action="store_true", help="without --masks and --weights: what moves "
        "before a still camera is a person, whether it is found or not")  # fmt: skip
    add(
        "--frame-rate",
        type=_number(float, 0.01, 1000),
        help="of folders of frames, in frames per second",
    )
    add("--name", help="of the dataset in the catalog (default: OUT's)")
    add("--licence", help="what the videos allow, for the catalog and who gets the weights")
    add("--dilation", type=_number(int, 0, 100), default=4, metavar="N",
        help="times that masks are widened by a 3x3 cross (default: 4, as HAT)")  # fmt: skip
    add("--soft-edge", type=_number(int, 0, 100), default=2, metavar="N",
        help="pixels over which a hole's rim fades (default: 2)")  # fmt: skip
    add("--max-leak", type=_number(float, 0, 1), default=0.2, metavar="SHARE",
        help="of a clip's frames in which somebody may still be found (default: 0.2)")  # fmt: skip
    add("--redo", type=_number(int, 0, 10), default=1, metavar="N",
        help="times that a clip past it is done again "
        "with holes twice as wide, and holes for those found (default: 1)")  # fmt: skip
    add("--crf", type=_number(int, 0, 51), default=16,
        help="x264's quality of videos, lower is better, 0 keeps "
        "every bit (default: 16)")  # fmt: skip
    add("--hat-resampling", action="store_true", help="let every pixel pass through 432x240, as "
        "HAT does; on other sources an ablation of its blur")  # fmt: skip
    add_workers(options, "have a clip each")
    return options


def _number(
    kind: type[int] | type[float], least: float, most: float
) -> Callable[[str], int | float]:
    def number(text: str) -> int | float:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {most}")
        return value

    return number
