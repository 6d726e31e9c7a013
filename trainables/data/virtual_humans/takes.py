"""The motions that clips are made of: BVH files, each with a label and a group."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from trainables.data.clip_jobs import in_parallel, with_progress
from trainables.data.manifests import path_inside, read_manifest
from trainables.data.splits import cut_by_group
from trainables.data.virtual_humans.bvh import read_bvh
from trainables.data.virtual_humans.settings import Split
from trainables.data.virtual_humans.skeleton import Motion, read_motion

LIST = "clips.csv"


class Take(NamedTuple):
    path: Path
    label: str
    group: str  # what must not be on both sides of a split: an actor, a session, a style


def find_takes(folder: Path, pattern: str | None) -> list[Take]:
    """The motions in `folder`, by its clips.csv, or all its .bvh files by `pattern`.

    Args:
        pattern: a regex over the path below the folder with a group (?P<label>...), and maybe
            (?P<group>...); None: the labels stand in clips.csv (path,label[,group]).

    Raises:
        ValueError: no folder, no motions, no labels, fewer than two classes, a missing file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder; give the one that holds the BVH files")
    takes = _listed(folder) if pattern is None else _named(folder, pattern)
    missing = [take.path for take in takes if not take.path.is_file()]
    if missing:
        raise ValueError(
            f"{folder / LIST}: {len(missing)} of its {len(takes)} files are not there, for example "
            f"{missing[0]}; correct the list"
        )
    if len({take.path for take in takes}) < len(takes):
        raise ValueError(f"{folder / LIST}: lists a motion twice; keep one line")
    if len({take.label for take in takes}) < 2:
        raise ValueError(f"{folder}: all motions are {takes[0].label!r}; labels need two classes")
    return takes


def _listed(folder: Path) -> list[Take]:
    if not (folder / LIST).exists():
        found = len(list(folder.rglob("*.bvh")))
        if not found:
            raise ValueError(f"{folder}: holds no .bvh file; give the folder of the motions")
        raise ValueError(
            f"{folder}: holds {found} .bvh files and no {LIST}; write one (path,label,group), or "
            "say how names tell the label: --labels '(?P<label>[a-z]+)_'"
        )
    return [
        Take(folder / path_inside(LIST, row.path, folder), row.label, row.group or row.path)
        for row in read_manifest(folder / LIST)
    ]


def _named(folder: Path, pattern: str) -> list[Take]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--labels {pattern!r} is no regex: {error}") from None
    if "label" not in regex.groupindex:
        raise ValueError(f"--labels {pattern!r} captures no label; it needs (?P<label>...)")
    takes = []
    for path in sorted(folder.rglob("*.bvh")):
        name = path.relative_to(folder).as_posix()
        match = regex.search(name)
        if not match or not match["label"]:
            raise ValueError(f"--labels {pattern!r} finds no label in {name}; widen it")
        takes.append(Take(path, match["label"], match.groupdict().get("group") or name))
    if not takes:
        raise ValueError(f"{folder}: holds no .bvh file; give the folder of the motions")
    return takes


class Checked(NamedTuple):
    take: Take
    digest: str  # of what the file holds
    error: str  # "" where a person can make this motion


def check_takes(takes: Sequence[Take]) -> list[Checked]:
    """Reads every motion once, so that a bad one is known before anything is drawn."""
    checked = []
    for take in takes:
        try:
            motion_of(take.path)
            checked.append(Checked(take, hashlib.sha256(take.path.read_bytes()).hexdigest(), ""))
        except ValueError as error:
            checked.append(Checked(take, "", str(error)))
    return checked


def unreadable(take: Take) -> Checked:
    return Checked(take, "", f"{take.path}: the process that read it died; leave the file out")


def motions_hash(checked: Sequence[Checked]) -> str:
    """A hash of the motions, their labels and groups, in the order of their paths.

    Clips draw from them in that order. Where the folder lies does not matter.

    Raises:
        ValueError: motions that cannot be used, the first of them with their reasons.
    """
    wrong = [each.error for each in checked if each.error]
    if wrong:
        more = f"\nand {len(wrong) - 5:,} more files" if len(wrong) > 5 else ""
        raise ValueError("\n".join(wrong[:5]) + more)
    lines = [
        f"{take.path.name}\0{take.label}\0{take.group}\0{digest}"
        for take, digest, _ in sorted(checked)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def checked_motions(takes: Sequence[Take], workers: int, console: Console) -> str:
    """The hash of the motions, all of which have been read. Raises as `motions_hash`."""
    checked: list[Checked] = []
    chunks = in_parallel(check_takes, takes, workers, unreadable)
    for chunk in with_progress(chunks, "motions", len(takes), str, console):
        checked += chunk
    return motions_hash(checked)


@lru_cache(maxsize=4096)  # 100 kB each; a clip is drawn of any of them
def motion_of(path: Path) -> Motion:
    return read_motion(read_bvh(path))


def split_takes(takes: Sequence[Take], heldout_share: float, seed: int) -> list[Split]:
    """The split of each motion: about `heldout_share` of every class held out, by whole groups.

    Raises:
        ValueError: fewer groups than splits.
    """
    names = sorted({take.label for take in takes})
    split = cut_by_group(
        [take.group for take in takes],
        [names.index(take.label) for take in takes],
        {"train": 1 - heldout_share, "selection": heldout_share},
        f"motions, seed {seed}",
    )
    return ["train" if each == "train" else "selection" for each in split]
