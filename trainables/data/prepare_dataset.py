"""Re-encodes the clips of a dataset once, so that training reads them faster.

A window of a long video costs the decoding of all frames since the last key frame, often ten
seconds of them. Prepared clips have key frames close together, and a short side no larger than
training looks at. Paths and lists stay what they are: only the root is another. Interrupted, the
same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console

from trainables.data.catalog import Dataset, load_catalog
from trainables.data.catalog_entries import written_out
from trainables.data.claims import claimed
from trainables.data.clip_jobs import in_processes, with_progress
from trainables.data.command_line import at_least_one, exit_status, parser_over_datasets
from trainables.data.reencode import Job, Prepared, Recipe, died, prepare_clips
from trainables.data.suite import SuiteSettings, suite_lists
from trainables.data.whole_files import add_to_catalog

EXAMPLES = """what is written:
  INTO/NAME/...              the clips, under the paths that they had (mp4, whatever the ending)
  INTO/NAME.json             how they were made; another recipe wants another INTO
  INTO/NAME.unreadable.csv   those that cannot be read, with the reason; each is an empty file,
                             which training replaces and counts as it would the original
  INTO/catalog.yaml          the datasets' entries, to be used in place of the original ones

examples:
  python -m trainables.data.prepare_dataset sweeps/catalogs/ppma.yaml synapt --into /fast/prepared
  python -m trainables.data.prepare_dataset my.yaml clips --into out --short-side 128 --gop 8

exit status: 0 done, 1 done but some clips cannot be read, 2 the catalog or a list is wrong,
130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status that `--help` tells."""
    return exit_status(_run, _parser().parse_args(argv))


def _run(arguments: argparse.Namespace, console: Console) -> int:
    into, unreadable = arguments.into, 0
    recipe = Recipe(short_side=arguments.short_side, gop=arguments.gop, crf=arguments.crf)
    entries = {name: written_out(arguments.catalog, name) for name in arguments.names}
    datasets = load_catalog(arguments.catalog, arguments.names)
    for name, dataset in datasets.items():
        root = into / name
        if root.resolve() == dataset.root.resolve():
            raise ValueError(f"--into {into}: is where {name!r} lies; choose another folder")
        settings = {**asdict(recipe), "frame_rate": dataset.frame_rate}
        with claimed(into, name, str(recipe), settings, str(dataset.root), [root]):
            unreadable += _prepare(dataset, into, recipe, arguments.workers, console)
        entry = entries[name]
        if isinstance(entry, SuiteSettings):  # its lists lie in its root
            for file in suite_lists(name, entry.suite, Path(entry.root)).values():
                shutil.copyfile(file, root / file.name)
        version = f"{entry.version}, {recipe}" if entry.version else str(recipe)
        entry = entry.model_copy(update={"root": name, "version": version})
        add_to_catalog(into / "catalog.yaml", name, entry.model_dump(exclude_none=True))
    console.print(f"catalog: {into / 'catalog.yaml'}", soft_wrap=True)
    return int(unreadable > 0)


def _prepare(dataset: Dataset, into: Path, recipe: Recipe, workers: int, console: Console) -> int:
    """Make what is missing. Returns how many clips cannot be read."""
    root = into / dataset.name
    root.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(dataset.root / clip.path, root / clip.path, dataset.frame_rate)
        for clip in dataset.clips
    ]
    made, unreadable = 0, list[Prepared]()

    def note() -> str:
        return f"{len(unreadable):,} cannot be read" if unreadable else ""

    chunks = in_processes(partial(prepare_clips, recipe=recipe), jobs, workers, died)
    try:
        for chunk in with_progress(chunks, dataset.name, len(jobs), note, console):
            made += sum(each.state == "made" for each in chunk)
            unreadable.extend(each for each in chunk if each.state == "unreadable")
    finally:
        chunks.close()
    _write_unreadable(into / f"{dataset.name}.unreadable.csv", unreadable)
    before = sum(_bytes(job.source) for job in jobs) / 1e9
    after = sum(_bytes(job.target) for job in jobs) / 1e9
    console.print(
        f"{dataset.name}: {made:,} clips made, {len(jobs) - made - len(unreadable):,} were there, "
        f"{len(unreadable):,} cannot be read; {before:.3g} GB before, {after:.3g} GB now"
    )
    return len(unreadable)


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size if path.exists() else 0


def _write_unreadable(path: Path, found: list[Prepared]) -> None:
    known = {}
    if path.exists():  # the reason is only known to the run that read the clip
        with path.open(newline="") as file:
            known = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "reason"])
        for each in sorted(found):
            source = str(each.job.source)
            writer.writerow([source, known.get(source, each.reason)])


def _parser() -> argparse.ArgumentParser:
    module = "trainables.data.prepare_dataset"
    parser = parser_over_datasets(module, __doc__, EXAMPLES, work="decode and encode")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--short-side",
        type=at_least_one,
        default=256,
        help="pixels; smaller clips stay (default: 256)",
    )
    parser.add_argument(
        "--gop",
        type=at_least_one,
        default=1,
        help="frames from key frame to key frame (default: 1)",
    )
    parser.add_argument(
        "--crf", type=int, default=20, help="x264's quality, lower is better (default: 20)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
