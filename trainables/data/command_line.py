"""What the commands over datasets of a catalog share."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path


def parser_over_datasets(
    module: str, description: str | None, notes: str, work: str
) -> argparse.ArgumentParser:
    """For `python -m module CATALOG NAME...`. `work`: what its `--workers` processes do."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=notes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("catalog", type=Path, metavar="CATALOG", help="a catalog YAML")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a dataset of the catalog")
    parser.add_argument(
        "--workers",
        type=at_least_one,
        default=os.cpu_count() or 1,
        metavar="N",
        help=f"processes that {work} (default: one for each CPU)",
    )
    return parser


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
