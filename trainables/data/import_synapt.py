"""Makes SynAPT's dataset of 150 merged actions from its three assets on disk, as a catalog entry.

Its published lists (lines `class/clip`) say which of an asset's actions is which merged class:
every clip of that action can then be used, also where a list of training clips is not to be had. A
class gets at most so many training clips, in equal shares of the assets that have it. Nothing is
copied.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainables.data.command_line import at_least_one, exit_status, parser_of
from trainables.data.synapt_assets import SynaptClip, find_clips
from trainables.data.synapt_lists import check_agreement, read_list
from trainables.data.whole_files import add_to_catalog, write_whole

# Raise it when the same lists and options choose other clips than before.
CODE_VERSION = 2

NOTES = """layout of ASSETS (github.com/mintjohnkim/SynAPT):
  eldersim/A001_P101_G008_C006.avi             clips are video files, or folders of frames
  surreact/S017C003P016R001A011_v225_r00.mp4
  phav/BrushHair/b5009-Lake-Dawn-Clear-...

lists: `class/clip` a line, as SynAPT's sim150_val.txt and synAPT_total.txt; `class/clip.mp4;3`, as
PPMA's data/splits/sim150/val.csv, is read too, and numbers the classes.

examples:
  python -m trainables.data.import_synapt /data/assets out --heldout sim150_val.txt
  python -m trainables.data.import_synapt /data/assets out --heldout val.csv --per-class 500
  python -m trainables.data.import_synapt /data/assets out --heldout sim150_val.txt \\
    --train synAPT_total.txt

what is written: OUT/NAME.csv (path,label,group,split), OUT/NAME.json (the options, and hashes of
the lists) and an entry NAME in OUT/catalog.yaml. Parts by class are then entries like
{subset_of: NAME, classes: {first: 40}, clips_per_class: 1000}.

exit status: 0 done, 2 an asset or a list is wrong
"""


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status that `--help` tells."""
    return exit_status(_import, _parser().parse_args(argv))


def _import(arguments: argparse.Namespace, console: Console) -> int:
    clips = find_clips(arguments.assets, console.print)
    lines = read_list(arguments.heldout)
    of_train = read_list(arguments.train) if arguments.train else []
    check_agreement([*lines, *of_train])
    heldout = {line.clip: line.label for line in lines}
    numbers = {line.label: line.number for line in lines if line.number is not None}
    train = {line.clip: line.label for line in of_train} if arguments.train else None
    class_of = merged_classes(clips, {**heldout, **(train or {})})
    rows: list[tuple[str, str, str, str]] = []
    candidates: dict[str, list[SynaptClip]] = defaultdict(list)
    for clip in clips:
        label = class_of.get((clip.asset, clip.action))
        if clip.name in heldout:
            rows.append((clip.path, heldout[clip.name], clip.group, "selection"))
        elif label is not None and (train is None or clip.name in train):
            candidates[train[clip.name] if train else label].append(clip)
    for label, own in candidates.items():
        chosen = equal_shares(own, arguments.per_class, arguments.seed)
        rows += [(clip.path, label, clip.group, "train") for clip in chosen]
    folders = any(clip.is_folder for clip in clips)
    if folders and arguments.frame_rate is None:
        raise ValueError(
            f"{arguments.assets}: has clips that are folders of frames; give the --frame-rate that "
            "they were taken at"
        )
    _write(arguments, sorted(rows), _order(rows, numbers), folders)
    _tell(rows, clips, {*heldout, *(train or {})}, console)
    console.print(f"catalog: {arguments.out / 'catalog.yaml'}", soft_wrap=True)
    return 0


def merged_classes(
    clips: Sequence[SynaptClip], listed: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """(asset, action) -> merged class, learnt from the clips that are listed and on disk.

    Raises:
        ValueError: none is on disk, or an action is listed under two classes.
    """
    found: dict[tuple[str, str], str] = {}
    for clip in clips:
        label = listed.get(clip.name)
        if label is None:
            continue
        before = found.setdefault((clip.asset, clip.action), label)
        if before != label:
            raise ValueError(
                f"{clip.asset}'s action {clip.action} is listed as {before!r} and as {label!r} "
                f"({clip.path}); an action is one class, so correct the list"
            )
    if not found:
        raise ValueError(
            f"none of the {len(listed):,} listed clips is among the {len(clips):,} on disk, for "
            f"example {next(iter(listed))}; check the folder and the list"
        )
    return found


def equal_shares(clips: Sequence[SynaptClip], most: int, seed: int) -> list[SynaptClip]:
    """At most `most` clips, as many of each asset as can be: one that has fewer gives all it has.

    Of an asset those whose hash of (seed, path) is smallest, so that fewer are a part of more.
    """
    by_asset: dict[str, list[SynaptClip]] = defaultdict(list)
    for clip in clips:
        by_asset[clip.folder].append(clip)
    chosen: list[SynaptClip] = []
    waiting = sorted(by_asset.items(), key=lambda item: (len(item[1]), item[0]))
    for number, (_, own) in enumerate(waiting):
        share = (most - len(chosen)) // (len(waiting) - number)
        own.sort(key=lambda clip: hashlib.sha256(f"{seed}\0{clip.path}".encode()).hexdigest())
        chosen += own[:share]
    return chosen


def _order(rows: Sequence[tuple[str, str, str, str]], numbers: Mapping[str, int]) -> list[str]:
    """The classes: as the list numbers them, else by name."""
    labels = {label for _, label, _, _ in rows}
    if labels <= set(numbers):
        return sorted(labels, key=lambda label: numbers[label])
    return sorted(labels)


def _write(
    arguments: argparse.Namespace,
    rows: Sequence[tuple[str, str, str, str]],
    classes: list[str],
    folders: bool,
) -> None:
    out, name, lines = arguments.out, arguments.name, io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["path", "label", "group", "split"])
    writer.writerows(rows)
    write_whole(out / f"{name}.csv", lines.getvalue().encode())
    write_whole(out / f"{name}.json", json.dumps(_told(arguments), indent=2).encode())
    entry = {
        "clips": f"{name}.csv",
        "root": str(arguments.assets.resolve()),
        "humans": "virtual",
        "classes": classes,
        "licence": "ElderSim, SURREACT and PHAV, each under its own terms",
    }
    if folders:
        entry["frame_rate"] = arguments.frame_rate
    add_to_catalog(out / "catalog.yaml", name, entry)


def _told(arguments: argparse.Namespace) -> dict[str, Any]:
    """What decided the choice of clips, and where it was read from."""
    lists = {"heldout": arguments.heldout, "train": arguments.train}
    return {
        "source": str(arguments.assets.resolve()),
        "lists": {
            name: {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for name, path in lists.items()
            if path is not None
        },
        "per_class": arguments.per_class,
        "seed": arguments.seed,
        "code_version": CODE_VERSION,
    }


def _tell(
    rows: Sequence[tuple[str, str, str, str]],
    clips: Sequence[SynaptClip],
    listed: set[str],
    console: Console,
) -> None:
    asset_of = {clip.path: clip.asset for clip in clips}
    table = Table("asset", "on disk", "train", "selection", header_style="bold")
    for asset, count in sorted(Counter(clip.asset for clip in clips).items()):
        used = Counter(split for path, _, _, split in rows if asset_of[path] == asset)
        table.add_row(asset, f"{count:,}", f"{used['train']:,}", f"{used['selection']:,}")
    console.print(table)
    labels = {label for _, label, _, _ in rows}
    console.print(f"{len(labels)} classes, {len(rows):,} clips")
    absent = len(listed - {clip.name for clip in clips})
    if absent:
        console.print(
            f"[yellow]note:[/yellow] {absent:,} of {len(listed):,} listed clips are not on disk"
        )


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("trainables.data.import_synapt", __doc__, NOTES)
    add = parser.add_argument
    add("assets", type=Path, metavar="ASSETS", help="the folder with eldersim, surreact and phav")
    add("out", type=Path, metavar="OUT", help="a folder for the manifest and the catalog")
    add("--heldout", type=Path, required=True, metavar="LIST", help="the selection split's clips")
    add("--train", type=Path, metavar="LIST", help="training clips to choose from (default: all)")
    add("--per-class", type=at_least_one, default=1000, help="most training clips (default: 1000)")
    add("--name", default="synapt", help="of the dataset (default: synapt)")
    add("--frame-rate", type=float, help="frames per second, where clips are folders of frames")
    add("--seed", type=int, default=0, help="of the choice of clips (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
