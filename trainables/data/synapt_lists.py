"""SynAPT's published lists: which clip is of which merged class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from trainables.data.synapt_assets import bare_name


class Listed(NamedTuple):
    clip: str  # its bare name
    label: str
    number: int | None  # of the class, where the list gives it
    where: str  # file and line


def read_list(path: Path) -> list[Listed]:
    """The lines of a list.

    Raises:
        ValueError: a list that cannot be read, is empty, or has a line that is no `class/clip`.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"list {path}: cannot be read ({reason})") from None
    found = []
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"list {path}, line {line_number}"
        listed, _, number = line.strip().partition(";")
        label, _, clip = listed.rpartition("/")
        if not label or not clip or (number and not number.isdecimal()):
            raise ValueError(f"{where}: {line!r} is neither 'class/clip' nor 'class/clip;number'")
        given = int(number) if number else None
        found.append(Listed(bare_name(clip), label.split("/")[-1], given, where))
    if not found:
        raise ValueError(f"list {path}: is empty; it must list at least one clip")
    return found


def check_agreement(lines: Sequence[Listed]) -> None:
    """Raises ValueError for a clip of two classes, a class of two numbers, a number of two."""
    first: dict[tuple[str, str | int], tuple[str | int, str]] = {}
    for clip, label, number, where in lines:
        said: list[tuple[str, str | int, str, str | int]] = [("clip", clip, "class", label)]
        if number is not None:
            said += [("class", label, "number", number), ("number", number, "class", label)]
        for kind, thing, what, value in said:
            before, earlier = first.setdefault((kind, thing), (value, where))
            if before != value:
                raise ValueError(
                    f"{where}: {kind} {thing!r} is of {what} {value!r}, and of {before!r} in "
                    f"{earlier}; a {kind} has one {what}, so correct the line that is wrong"
                )
