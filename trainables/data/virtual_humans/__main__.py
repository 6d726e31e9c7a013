"""Renders labelled clips of virtual humans from motion capture.

Motions are BVH files of any skeleton. Bodies, clothes, cameras, light, ground and backgrounds are
drawn at random, one to three people a clip, all doing what the clip's label says. Held-out clips
show motions, people and cameras that no training clip shows. The same settings give the same
pixels, whatever the number of workers. Interrupted or killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from trainables.data.catalog import Dataset, load_catalog
from trainables.data.clip_jobs import in_parallel, with_progress
from trainables.data.command_line import (
    add_workers,
    at_least_one,
    check_names,
    exit_status,
    parser_of,
)
from trainables.data.files import check_files
from trainables.data.virtual_humans.clip import Footage
from trainables.data.virtual_humans.contact_sheet import write_contact_sheet
from trainables.data.virtual_humans.options import add_rendering, render_settings
from trainables.data.virtual_humans.plan import plan_clips
from trainables.data.virtual_humans.render import (
    Rendered,
    claimed,
    died,
    masks_folder,
    render_clips,
    write_lists,
)
from trainables.data.virtual_humans.settings import RenderSettings
from trainables.data.virtual_humans.takes import Take, checked_motions, find_takes, split_takes

NOTES = """labels:
  MOTIONS/clips.csv says `path,label[,group]`; a group (an actor, a session, a style) is held out
  as a whole. Without that file --labels takes them from the names.

what is written:
  OUT/NAME/train/000000.mp4, OUT/NAME/selection/...   the clips, H.264
  OUT/NAME.csv        the manifest: path,label,group,split
  OUT/NAME.masks/...  with --masks: videos like the clips, 255 where people are (not their shadows)
  OUT/NAME.json       all settings, and a hash of the motions
  OUT/catalog.yaml    an entry NAME, humans: virtual; a sweep's `datasets: {catalog: ...}` takes it

examples:
  python -m trainables.data.virtual_humans mocap data --name mocap --clips 10000 --heldout 1000
  python -m trainables.data.virtual_humans mocap data --clips 24 --contact-sheet look.png
  python -m trainables.data.virtual_humans cmu data --labels '(?P<group>\\d+)/(?P<label>[a-z]+)_'
  python -m trainables.data.virtual_humans mocap data --footage my.yaml empty_streets --size 224x224
  python -m trainables.data.virtual_humans mocap data --name filmed --places 8 --masks

exit status: 0 done, 1 done but some clips could not be drawn (the catalog is not written), 2 the
motions, the footage or a setting is wrong, or the disk is full, 130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status that `--help` tells."""
    return exit_status(_run, _parser().parse_args(argv))


def _run(arguments: argparse.Namespace, console: Console) -> int:
    out, name = arguments.out, arguments.name
    sheet = arguments.contact_sheet
    check_names(name, sheet)
    takes = find_takes(arguments.motions, arguments.labels)
    behind = _footage_dataset(arguments.footage)
    footage = (
        [Footage(behind.root / clip.path, behind.frame_rate) for clip in behind.clips]
        if behind
        else []
    )
    motions = checked_motions(takes, arguments.workers, console)
    settings = render_settings(
        arguments,
        motions,
        footage=behind.content_hash if behind else None,
        places=arguments.places,
    )
    plans = plan_clips(settings, takes, len(footage))
    _tell(takes, settings, console)
    if len(footage) == 1:
        console.print("[yellow]note:[/yellow] the one clip of footage is behind held-out clips too")
    wrong, lost = list[Rendered](), list[Rendered]()
    with claimed(out, name, settings, str(arguments.motions.resolve())):
        made = 0

        def note() -> str:
            return f"{len(wrong):,} could not be drawn" if wrong else ""

        work = partial(
            render_clips,
            settings=settings,
            footage=footage,
            root=out / name,
            masks=masks_folder(out, name) if arguments.masks else None,
        )
        done = in_parallel(work, plans, arguments.workers, died)
        for chunk in with_progress(done, name, len(plans), note, console):
            made += sum(each.made for each in chunk)
            wrong += [each for each in chunk if each.error]
            lost += [each for each in chunk if each.footage_lost]
        if lost:
            console.print(
                f"[yellow]note:[/yellow] {len(lost):,} clips have a drawn background, for their "
                f"footage cannot be read: {escape(lost[0].footage_lost)}",
                soft_wrap=True,
            )
        for each in wrong[:5]:
            console.print(f"{each.path}: {escape(each.error)}", soft_wrap=True)
        if wrong:
            console.print(f"{len(wrong):,} clips could not be drawn; the same command tries again")
            return 1
        catalog = write_lists(out, name, plans, settings, arguments.licence, arguments.masks)
    console.print(f"{name}: {made:,} clips made, {len(plans) - made:,} were there")
    if sheet is not None:
        write_contact_sheet(sheet, out / name, plans, rows=min(12, len(plans)))
        console.print(f"contact sheet: {sheet}", soft_wrap=True)
    console.print(f"catalog: {catalog}", soft_wrap=True)
    return 0


def _footage_dataset(named: tuple[Path, str] | None) -> Dataset | None:
    """The dataset to stand behind people. Raises ValueError if it shows people itself."""
    if named is None:
        return None
    catalog, name = Path(named[0]), str(named[1])
    dataset = load_catalog(catalog, [name])[name]
    if dataset.humans not in ("none", "removed"):
        raise ValueError(
            f"--footage {name}: is declared humans: {dataset.humans}; what stands behind virtual "
            "people must be none or removed"
        )
    dataset.require_files()
    check_files(dataset)
    return dataset


def _tell(takes: list[Take], settings: RenderSettings, console: Console) -> None:
    """How many motions there are, and the classes that have none in a split."""
    splits = split_takes(takes, settings.heldout_share, settings.seed)
    by_split = {
        split: [take for take, own in zip(takes, splits, strict=True) if own == split]
        for split in ("train", "selection")
    }
    classes = sorted({take.label for take in takes})
    console.print(
        f"{len(takes):,} motions of {len(classes)} classes: {len(by_split['train']):,} to train, "
        f"{len(by_split['selection']):,} held out"
    )
    absent = sorted(set(classes) - {take.label for take in by_split["selection"]})
    if absent and settings.heldout_clips:
        console.print(f"[yellow]note:[/yellow] not among the held-out clips: {', '.join(absent)}")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("trainables.data.virtual_humans", __doc__, NOTES)
    add = parser.add_argument
    add("motions", type=Path, metavar="MOTIONS", help="the folder of the BVH files")
    add("out", type=Path, metavar="OUT", help="a folder; it may hold other datasets")
    add("--name", default="virtual_humans", help="of the dataset (default: virtual_humans)")
    add_rendering(add)
    add("--clips", type=at_least_one, default=1000, help="training clips (default: 1000)")
    add("--heldout", type=int, default=200, help="held-out clips (default: 200)")
    add("--fps", type=at_least_one, default=15, help="frames per second (default: 15)")
    add("--crf", type=int, default=22, help="x264's quality, lower is better (default: 22)")
    add(
        "--footage",
        nargs=2,
        metavar=("CATALOG", "DATASET"),
        help="human-free videos to stand behind the people of half the clips",
    )
    add(
        "--places",
        type=at_least_one,
        metavar="N",
        help="each class has N places of its own, all plain, all rooms or all outdoors, so that "
        "the scene tells what people do, as in films (default: each clip is somewhere else)",
    )
    add("--licence", help="what the motions allow, for the catalog and who gets the weights")
    add("--masks", action="store_true", help="also where the people are, in each frame")
    add("--seed", type=int, default=0, help="(default: 0)")
    add("--contact-sheet", type=Path, metavar="FILE", help="a picture of 12 clips, to look at")
    add_workers(parser, "draw")
    return parser


if __name__ == "__main__":
    sys.exit(main())
