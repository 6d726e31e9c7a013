"""What the commands that check, prepare and make data share."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def parser_over_datasets(
    module: str, description: str | None, notes: str, work: str
) -> argparse.ArgumentParser:
    """For `python -m module CATALOG NAME...`. `work`: what its `--workers` processes do."""
    parser = parser_of(module, description, notes)
    parser.add_argument("catalog", type=Path, metavar="CATALOG", help="a catalog YAML")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a dataset of the catalog")
    add_workers(parser, work)
    return parser


def add_workers(parser: argparse.ArgumentParser, work: str) -> None:
    """`work`: what the processes do."""
    parser.add_argument(
        "--workers",
        type=at_least_one,
        default=os.cpu_count() or 1,
        metavar="N",
        help=f"processes that {work} (default: one for each CPU)",
    )


def parser_of(module: str, description: str | None, notes: str) -> argparse.ArgumentParser:
    """For `python -m module`: what it is about before the options, `notes` after them."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=notes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def exit_status(
    run: Callable[[argparse.Namespace, Console], int], arguments: argparse.Namespace
) -> int:
    """What `run` returns; 2, with the reason, where the user or the disk is at fault.

    130 on Ctrl-C. For commands that go on where they were stopped.
    """
    console = Console(highlight=False)
    try:
        return run(arguments, console)
    except (ValueError, OSError) as error:
        console.print(f"[red bold]error:[/red bold] {escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on.")
        return 130


def check_names(name: str, sheet: Path | None) -> None:
    """Of --name and --contact-sheet. Raises ValueError where no file can be named so."""
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"--name {name!r}: use letters, digits, '_' and '-'; it names a folder")
    if sheet is not None and sheet.suffix.lower() not in PICTURES:
        raise ValueError(f"--contact-sheet {sheet}: must end with one of {', '.join(PICTURES)}")


def at_least_one(text: str) -> int:
    """The whole number that `text` is. Raises what argparse turns into a usage error."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def size(text: str) -> tuple[int, int]:
    """Width and height of '340x256'. Raises what argparse turns into a usage error."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(match[1]), int(match[2])
