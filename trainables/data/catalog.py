"""What data there is: the catalog YAML, read into datasets that are known to be sound."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import stat
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainables.data.labels import index_labels, read_class_list
from trainables.data.manifests import SPLITS, Row, read_manifest
from trainables.data.splits import cut_by_group
from trainables.settings import Settings, load_yaml, parse

Humans = Literal["virtual", "removed", "none", "real"]
Split = Literal["train", "selection", "report"]

SHOWN = 5  # examples in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    path: str  # relative to the root, with forward slashes
    label: int  # index into the dataset's classes
    group: str  # person, film or session; "" when unknown
    split: str  # train, selection or report


@dataclass(frozen=True, kw_only=True)
class Dataset:
    name: str
    root: Path
    humans: Humans
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    frame_rate: float | None  # of frame folders, in frames per second
    content_hash: str  # of all that a result depends on; not the name and not the root

    def split(self, name: str) -> tuple[Clip, ...]:
        return tuple(clip for clip in self.clips if clip.split == name)


class DatasetSettings(Settings):
    """One entry of a catalog; the design's "Datasets" says what each means."""

    clips: str | dict[Split, str]
    root: str
    humans: Humans
    split: dict[Split, float] | None = None
    group: str | None = None
    classes: str | list[str] | None = None
    frame_rate: float | None = None
    version: str | None = None


class CatalogSettings(Settings):
    datasets: dict[str, dict[str, Any]]  # each a DatasetSettings


def load_catalog(path: Path) -> dict[str, Dataset]:
    """All datasets of a catalog YAML, their manifests read and checked.

    Relative paths in it start at its folder and $VARIABLES are expanded. Whether the clips exist
    on disk is `check_files`'s to say.

    Raises:
        ValueError: anything wrong in the catalog or a manifest, naming where and what to do.
    """
    datasets = {}
    for name, data in parse(CatalogSettings, load_yaml(path), str(path)).datasets.items():
        entry = parse(DatasetSettings, data, f"{path}: datasets.{name}")
        datasets[name] = _dataset(name, entry, path.resolve().parent)
    return datasets


def require_splits(dataset: Dataset, names: Collection[str]) -> None:
    """Raises ValueError when one of the splits has no clips."""
    missing = [name for name in names if not dataset.split(name)]
    if missing:
        example = "{train: 0.6, selection: 0.2, report: 0.2}"
        if missing == ["selection"]:
            example = "{selection: 0.2}"
        counts = ", ".join(f"{name} {len(dataset.split(name))}" for name in SPLITS)
        raise ValueError(
            f"dataset {dataset.name!r} has no {' and no '.join(missing)} clips ({counts}); give "
            f"its manifest a split column or its catalog entry a `split`, e.g. {example}"
        )


def check_files(dataset: Dataset) -> None:
    """Raises ValueError when the root or a clip does not exist, or a folder has no frame rate."""
    if not dataset.root.is_dir():
        raise ValueError(
            f"dataset {dataset.name!r}: root {dataset.root} is not a folder; correct `root`"
        )
    with ThreadPoolExecutor(16) as pool:  # network file systems answer slowly, but in parallel
        modes = list(pool.map(lambda clip: _mode(dataset.root / clip.path), dataset.clips))
    missing = [clip.path for clip, mode in zip(dataset.clips, modes, strict=True) if mode is None]
    if missing:
        raise ValueError(
            f"dataset {dataset.name!r}: {len(missing)} of {len(dataset.clips)} clips do not exist "
            f"under {dataset.root}: {_some(missing)}; correct `root` or the manifest"
        )
    if dataset.frame_rate is None and any(mode and stat.S_ISDIR(mode) for mode in modes):
        raise ValueError(
            f"dataset {dataset.name!r} has frame folders; give its catalog entry a `frame_rate`"
        )


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except OSError:
        return None


def _some(items: list[str]) -> str:
    return ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")


def _dataset(name: str, entry: DatasetSettings, folder: Path) -> Dataset:
    root = _expand(name, entry.root, folder)
    rows = [
        row._replace(path=_inside(name, row.path, root), group=_group(name, row, entry.group))
        for row in _rows(name, entry, folder)
    ]
    seen: set[str] = set()
    for row in rows:
        if row.path in seen:
            raise ValueError(f"dataset {name!r}: {row.path} is listed twice; keep one line")
        seen.add(row.path)
    listed = entry.classes
    if isinstance(listed, str):
        listed = read_class_list(_expand(name, listed, folder))
    classes, labels = index_labels([row.label for row in rows], listed, name)
    splits = _splits(name, rows, labels, entry.split)
    clips = tuple(
        Clip(path=row.path, label=label, group=row.group, split=split)
        for row, label, split in zip(rows, labels, splits, strict=True)
    )
    content = {
        "clips": [[clip.path, clip.label, clip.group, clip.split] for clip in clips],
        "classes": classes,
        "humans": entry.humans,
        "frame_rate": entry.frame_rate,
        "version": entry.version,
    }
    return Dataset(
        name=name,
        root=root,
        humans=entry.humans,
        classes=classes,
        clips=clips,
        frame_rate=entry.frame_rate,
        content_hash=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
    )


def _expand(name: str, text: str, folder: Path) -> Path:
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ValueError(f"dataset {name!r}: {text!r} names an unset variable; export it")
    return folder / expanded


def _rows(name: str, entry: DatasetSettings, folder: Path) -> list[Row]:
    if isinstance(entry.clips, str):
        return read_manifest(_expand(name, entry.clips, folder))
    rows = []
    for split, file in entry.clips.items():
        manifest = _expand(name, file, folder)
        for row in read_manifest(manifest):
            if row.split not in ("", split):
                raise ValueError(
                    f"dataset {name!r}: {row.path} is {row.split!r} in {manifest}, which the "
                    f"catalog calls {split!r}; drop one of the two"
                )
            rows.append(row._replace(split=split))
    return rows


def _inside(name: str, path: str, root: Path) -> str:
    relative = os.path.relpath(path, root) if os.path.isabs(path) else path
    normal = posixpath.normpath(relative)
    if normal == "." or normal.split("/")[0] == "..":
        raise ValueError(
            f"dataset {name!r}: {path} is outside its root {root}; paths are relative to the root"
        )
    return normal


def _group(name: str, row: Row, pattern: str | None) -> str:
    if pattern is None:
        return row.group
    if row.group:
        raise ValueError(f"dataset {name!r}: groups stand in the manifest and in `group`; keep one")
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"dataset {name!r}: group {pattern!r} is no regex: {error}") from None
    if regex.groups != 1:
        raise ValueError(f"dataset {name!r}: group {pattern!r} needs one (capture)")
    match = regex.search(row.path)
    if not match or not match[1]:
        raise ValueError(f"dataset {name!r}: group {pattern!r} finds nothing in {row.path}")
    return match[1]


def _splits(
    name: str, rows: list[Row], labels: list[int], asked: dict[Split, float] | None
) -> list[str]:
    """The split of each row: as listed, cut by group where that is `asked` for."""
    splits = [row.split or "train" for row in rows]
    if asked is None:
        return splits
    fractions: dict[str, float] = dict(asked.items())
    shown = f"dataset {name!r}: split { ({**fractions}) }"
    if any(not 0 < fraction < 1 for fraction in fractions.values()):
        raise ValueError(f"{shown} has a part that is not between 0 and 1; correct or drop it")
    if set(fractions) == {"selection"}:
        if "selection" in splits:
            raise ValueError(f"{shown}, but clips are listed as selection; drop one of the two")
        fractions = {"train": 1 - fractions["selection"], **fractions}
    elif any(row.split for row in rows):
        raise ValueError(
            f"{shown}, but the manifests list splits; only {{selection: ...}} can be cut then"
        )
    elif "train" not in fractions or abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(f"{shown} must name train and sum to 1, or be {{selection: ...}} alone")
    cut = [i for i, split in enumerate(splits) if split == "train"]
    # Without a group a clip stands for itself.
    parts = cut_by_group(
        [rows[i].group or rows[i].path for i in cut], [labels[i] for i in cut], fractions, name
    )
    for i, part in zip(cut, parts, strict=True):
        splits[i] = part
    return splits
