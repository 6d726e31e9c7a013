"""Manifests as they are found in the field, read into rows."""

from __future__ import annotations

import csv
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from trainables.settings import nearest

Humans = Literal["virtual", "removed", "none", "real"]
Split = Literal["train", "selection", "report"]
SPLITS = ("train", "selection", "report")
COLUMNS = ("path", "label", "group", "split")


class Row(NamedTuple):
    path: str
    label: str
    group: str  # "" when the manifest has no group column
    split: str  # "" when the manifest has no split column


def read_manifest(path: Path) -> list[Row]:
    """The rows of a manifest, in its order.

    Three forms: CSV with a header `path,label[,group][,split]`; `path;label` (PPMA); `path label`
    (VideoMAE), where the label stands after the last space.

    Raises:
        ValueError: a file that is missing, empty or malformed, naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"manifest {path}: cannot be read ({reason}); check `clips`") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ValueError(f"manifest {path}: is empty; it must list at least one clip")
    header = [name.strip() for name in numbered[0][1].split(",")]
    if {"path", "label"} & set(header):
        rows = [_csv_row(path, number, line, header) for number, line in numbered[1:]]
    else:
        rows = [_plain_row(path, number, line) for number, line in numbered]
    if not rows:
        raise ValueError(f"manifest {path}: has a header and no clips; list at least one")
    return rows


def read_lists(name: str, lists: Mapping[str, Path]) -> list[Row]:
    """The rows of one manifest for each split, with their splits filled in.

    Raises:
        ValueError: a manifest that cannot be read, or that lists another split itself.
    """
    rows = []
    for split, manifest in lists.items():
        for row in read_manifest(manifest):
            if row.split not in ("", split):
                raise ValueError(
                    f"dataset {name!r}: {row.path} is {row.split!r} in {manifest}, which the "
                    f"catalog calls {split!r}; drop one of the two"
                )
            rows.append(row._replace(split=split))
    return rows


def path_inside(name: str, path: str, root: Path) -> str:
    """`path` relative to `root`, with forward slashes. Raises ValueError if it is outside."""
    relative = os.path.relpath(path, root) if os.path.isabs(path) else path
    normal = posixpath.normpath(relative)
    if normal == "." or normal.split("/")[0] == "..":
        raise ValueError(
            f"dataset {name!r}: {path} is outside its root {root}; paths are relative to the root"
        )
    return normal


def _csv_row(path: Path, number: int, line: str, header: list[str]) -> Row:
    for name in header:
        if name not in COLUMNS:
            raise ValueError(
                f"manifest {path}: unknown column {name!r}{nearest(name, list(COLUMNS))}"
            )
    if len(set(header)) < len(header) or not {"path", "label"} <= set(header):
        raise ValueError(f"manifest {path}: the header is {header}; it needs path and label once")
    values = [value.strip() for value in next(csv.reader([line]))]
    if len(values) != len(header):
        raise ValueError(
            f"manifest {path}, line {number}: {len(values)} values for {len(header)} columns "
            f"({','.join(header)}): {line!r}"
        )
    row = Row(**{"group": "", "split": "", **dict(zip(header, values, strict=True))})
    for name in header:
        if not getattr(row, name):
            raise ValueError(f"manifest {path}, line {number}: {name} is empty: {line!r}")
    if "split" in header and row.split not in SPLITS:
        raise ValueError(
            f"manifest {path}, line {number}: split {row.split!r} is not one of "
            f"{', '.join(SPLITS)}; rename it ('val' is selection, 'test' is report)"
        )
    return row


def _plain_row(path: Path, number: int, line: str) -> Row:
    fields = line.rsplit(";", 1) if ";" in line else line.rsplit(None, 1)
    clip, label = [field.strip() for field in fields] if len(fields) == 2 else ("", "")
    if not clip or not label:
        raise ValueError(
            f"manifest {path}, line {number}: {line!r} is neither 'path;label' nor 'path label'; "
            "a CSV needs the header 'path,label'"
        )
    return Row(clip, label, "", "")
