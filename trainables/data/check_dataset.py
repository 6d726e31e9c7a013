"""Checks the clips of a dataset on disk against its lists, before a cluster stumbles over them.

Every clip is opened and a window at its end is decoded, by the reader that training uses.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainables.data.catalog import Dataset, load_catalog
from trainables.data.clip_checks import PROBLEMS, Found, Job, check_in_processes
from trainables.data.clip_jobs import with_progress
from trainables.data.command_line import at_least_one, parser_over_datasets

EXAMPLES = 5  # paths shown for each problem; --report has all

HELP = f"""problems of a clip:
{"".join(f"  {problem:<10}  {meaning}{chr(10)}" for problem, meaning in PROBLEMS.items())}
examples:
  python -m trainables.data.check_dataset sweeps/catalogs/ppma.yaml ucf101
  python -m trainables.data.check_dataset sweeps/catalogs/ppma.yaml ucf101 hmdb51 --report bad.csv
  python -m trainables.data.check_dataset my.yaml synapt --frames 8 --seconds 2 --workers 32

exit status: 0 all is well, 1 something is wrong with a clip, 2 the catalog or a list is wrong,
130 interrupted (what was found until then is shown and written)
"""


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status that `--help` tells."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        datasets = load_catalog(arguments.catalog, arguments.names)
        for dataset in datasets.values():
            dataset.require_files()
        if arguments.report is not None:
            _check_writable(arguments.report)  # before hours are spent on what it shall hold
    except ValueError as error:
        console.print(f"[red bold]error:[/red bold] {escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    found: list[Found] = []
    interrupted = False
    for dataset in datasets.values():
        for note in dataset.notes:
            console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
        checked, wrong, interrupted = _check_dataset(dataset, arguments, console)
        _summary(dataset, checked, wrong, console)
        found += wrong
        if interrupted:
            console.print("Stopped. The rest is unchecked.")
            break
    if arguments.report is not None:
        _write_report(arguments.report, found)
        console.print(f"report: {arguments.report}", soft_wrap=True)
    return 130 if interrupted else int(bool(found))


def _check_dataset(
    dataset: Dataset, arguments: argparse.Namespace, console: Console
) -> tuple[int, list[Found], bool]:
    """Clips checked, those with a problem by path, whether Ctrl-C came."""
    jobs = [Job(dataset.root / clip.path, dataset.frame_rate) for clip in dataset.clips]
    checked, wrong, interrupted = 0, list[Found](), False
    results = check_in_processes(jobs, arguments.frames, arguments.seconds, arguments.workers)

    def note() -> str:
        return f"{len(wrong):,} with a problem"

    try:
        for found in with_progress(results, dataset.name, len(jobs), note, console):
            checked += len(found)
            wrong.extend(each for each in found if each.problem)
    except KeyboardInterrupt:
        interrupted = True
        results.close()
    return checked, sorted(wrong), interrupted


def _summary(dataset: Dataset, checked: int, wrong: list[Found], console: Console) -> None:
    total = len(dataset.clips)
    of = f"{checked:,} clips" if checked == total else f"{checked:,} of {total:,} clips"
    if not wrong:
        console.print(f"{dataset.name}: {of} checked, all can be read")
        return
    console.print(f"{dataset.name}: {of} checked, {len(wrong):,} with a problem")
    table = Table("problem", "clips", "what it means, and examples", header_style="bold")
    for problem, count in Counter(found.problem for found in wrong).most_common():
        shown = [found for found in wrong if found.problem == problem]
        lines = [
            f"{_under(dataset.root, found.path)}: {found.reason}" for found in shown[:EXAMPLES]
        ]
        more = [f"and {count - EXAMPLES:,} more"] if count > EXAMPLES else []
        table.add_row(problem, f"{count:,}", escape("\n".join([PROBLEMS[problem], *lines, *more])))
    console.print(table)


def _under(root: Path, path: Path) -> str:
    return str(path.relative_to(root))


def _check_writable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise ValueError(f"--report {path}: cannot be written ({error.strerror})") from None


def _write_report(path: Path, found: list[Found]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Found._fields)
        writer.writerows(found)


def _parser() -> argparse.ArgumentParser:
    parser = parser_over_datasets("trainables.data.check_dataset", __doc__, HELP, work="decode")
    parser.add_argument("--report", type=Path, metavar="FILE", help="CSV of path,problem,reason")
    parser.add_argument(
        "--frames",
        type=at_least_one,
        default=16,
        help="frames of a clip in training (default: 16)",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=2.7, help="length of its window (default: 2.7)"
    )
    return parser


def _seconds(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
