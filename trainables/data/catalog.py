"""What data there is: the catalog YAML, read into datasets that are known to be sound."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trainables.data.catalog_entries import DatasetSettings, Entry, expanded, read_entries
from trainables.data.generators.generator import Sample, version_of
from trainables.data.generators.on_the_fly import GeneratedSettings, program_of
from trainables.data.labels import index_labels, read_class_list
from trainables.data.manifests import (
    SPLITS,
    Humans,
    Row,
    path_inside,
    read_lists,
    read_manifest,
)
from trainables.data.splits import assign_splits, group_in
from trainables.data.subsets import SubsetSettings, take_subset
from trainables.data.suite import (
    FRAME_RATE,
    SELECTION,
    SUITE,
    SuiteSettings,
    check_labels,
    rows_on_disk,
    suite_lists,
)
from trainables.settings import nearest, parse

if TYPE_CHECKING:
    from trainables.data.generators.exported import ExportedProgram


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
    version: str | None = None  # as the catalog gives it: how the clips were made, say
    licence: str | None = None  # as the catalog gives it, for who gets the weights
    leak_rate: float | None = None  # of removed humans: share of frames where some are still found
    masks: Path | None = None  # of the people in its clips; see data/single_frames.py
    # Of a generator's clips G(z): scale of w -> folder of G(z + w), under the same paths.
    views: Mapping[float, Path] = field(default_factory=dict)
    latents: Path | None = None  # of its clips, in the order of `clips`: see data/latents.py
    program: ExportedProgram | None = None  # draws its clips and their views; then no file is there
    notes: tuple[str, ...] = ()  # what the user should know of it

    def split(self, name: str) -> tuple[Clip, ...]:
        return tuple(clip for clip in self.clips if clip.split == name)

    def sample(self, clip: Clip) -> Sample:
        """What its program is asked for."""
        assert self.program is not None
        return self.program.sample(int(PurePosixPath(clip.path).stem), self.classes[clip.label])

    @property
    def has_views(self) -> bool:
        return self.program is not None or bool(self.views)

    def require_files(self) -> None:
        """Raises ValueError where its clips are drawn on the fly."""
        if self.program is not None:
            raise ValueError(
                f"dataset {self.name!r}: its clips are no files, for a program draws them; sample "
                "it to files by `python -m trainables.data.generators program`"
            )


def load_catalog(path: Path, names: Collection[str] | None = None) -> dict[str, Dataset]:
    """The datasets of a catalog YAML, their manifests read and checked; all without `names`.

    Every entry is checked, but no file is touched of those that are not among `names`. Relative
    paths start at the catalog's folder and $VARIABLES are expanded. Whether the clips exist on
    disk is files.py's to say.

    Raises:
        ValueError: anything wrong in the catalog or a manifest, naming where and what to do.
    """
    entries = read_entries(path)
    for name in names or ():
        if name not in entries:
            raise ValueError(f"{path}: {name!r} is not in it{nearest(name, list(entries))}")
    wanted = [name for name in entries if names is None or name in names]
    return {name: _load(name, entries, path.resolve().parent) for name in wanted}


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


def _load(name: str, entries: Mapping[str, Entry], folder: Path) -> Dataset:
    match entries[name]:
        case SuiteSettings() as entry:
            return _from_suite(name, entry, folder)
        case SubsetSettings() as entry:
            return _from_parent(name, entry, entries, folder)
        case GeneratedSettings() as entry:
            return _generated(name, entry, folder)
        case entry:
            rows = _rows(name, entry, folder)
            root = expanded(name, entry.root, folder)
            return _dataset(name, entry, rows, root, folder)


def _rows(name: str, entry: DatasetSettings, folder: Path) -> list[Row]:
    if isinstance(entry.clips, str):
        return read_manifest(expanded(name, entry.clips, folder))
    lists = {str(split): expanded(name, file, folder) for split, file in entry.clips.items()}
    return read_lists(name, lists)


def _from_suite(name: str, entry: SuiteSettings, folder: Path) -> Dataset:
    known, root = SUITE[entry.suite], expanded(name, entry.root, folder)
    lists = suite_lists(name, entry.suite, root)
    rows = rows_on_disk(name, entry.suite, read_lists(name, lists), root)
    notes = check_labels(name, entry.suite, rows)
    written_out = {
        "clips": {split: str(path) for split, path in lists.items()},
        "root": str(root),
        "humans": "real",
        "split": {"selection": SELECTION},
        "group": known.group,
        "classes": [str(index) for index in range(known.classes)],
        "frame_rate": FRAME_RATE,
        "version": entry.version,
        "licence": entry.licence,
        "masks": entry.masks,
    }
    # Cut by the suite's name: whatever an entry is called, its selection split is the same.
    plain = parse(DatasetSettings, written_out, name)
    dataset = _dataset(entry.suite, plain, rows, root, folder)
    return replace(dataset, name=name, notes=tuple(notes))


def _from_parent(
    name: str, entry: SubsetSettings, entries: Mapping[str, Entry], folder: Path
) -> Dataset:
    whole = entries.get(entry.subset_of)
    if whole is None:
        raise ValueError(
            f"dataset {name!r}: subset_of {entry.subset_of!r} is not in the catalog"
            f"{nearest(entry.subset_of, list(entries))}"
        )
    if isinstance(whole, SubsetSettings):
        raise ValueError(
            f"dataset {name!r}: subset_of {entry.subset_of!r} is itself a subset; take it of "
            f"{whole.subset_of!r}"
        )
    parent = _load(entry.subset_of, entries, folder)
    classes, clips = take_subset(name, entry, parent.classes, parent.clips)
    return replace(
        parent,
        name=name,
        classes=classes,
        clips=clips,
        content_hash=_hash(clips, classes, parent.humans, parent.frame_rate, parent.version),
        licence=entry.licence or parent.licence,
        latents=None,  # they are in the order of the parent's clips
    )


def _generated(name: str, entry: GeneratedSettings, folder: Path) -> Dataset:
    program, humans = program_of(name, entry, expanded(name, entry.generator, folder))
    classes = program.classes
    clips = tuple(
        Clip(path=each.path, label=classes.index(each.label), group=each.group, split=each.split)
        for each in program.samples()
    )
    return Dataset(
        name=name,
        root=program.path.parent,
        humans=humans,
        classes=classes,
        clips=clips,
        frame_rate=None,
        content_hash=_hash(clips, classes, humans, None, version_of(program)),
        version=version_of(program),
        licence=entry.licence or program.licence,
        program=program,
    )


def _dataset(
    name: str, entry: DatasetSettings, rows: Sequence[Row], root: Path, folder: Path
) -> Dataset:
    rows = [row._replace(path=path_inside(name, row.path, root)) for row in rows]
    rows = [row._replace(group=group_in(name, row, entry.group)) for row in rows]
    seen: set[str] = set()
    for row in rows:
        if row.path in seen:
            raise ValueError(f"dataset {name!r}: {row.path} is listed twice; keep one line")
        seen.add(row.path)
    listed = entry.classes
    if isinstance(listed, str):
        listed = read_class_list(expanded(name, listed, folder))
    classes, labels = index_labels([row.label for row in rows], listed, name)
    asked: dict[str, float] = dict((entry.split or {}).items())
    splits = assign_splits(name, rows, labels, asked)
    clips = tuple(
        Clip(path=row.path, label=label, group=row.group, split=split)
        for row, label, split in zip(rows, labels, splits, strict=True)
    )
    return Dataset(
        name=name,
        root=root,
        humans=entry.humans,
        classes=classes,
        clips=clips,
        frame_rate=entry.frame_rate,
        content_hash=_hash(clips, classes, entry.humans, entry.frame_rate, entry.version),
        version=entry.version,
        licence=entry.licence,
        leak_rate=entry.leak_rate,
        masks=None if entry.masks is None else expanded(name, entry.masks, folder),
        views={scale: expanded(name, path, folder) for scale, path in (entry.views or {}).items()},
        latents=None if entry.latents is None else expanded(name, entry.latents, folder),
    )


def _hash(
    clips: Sequence[Clip],
    classes: Sequence[str],
    humans: Humans,
    frame_rate: float | None,
    version: str | None,
) -> str:
    content = {
        "clips": [[clip.path, clip.label, clip.group, clip.split] for clip in clips],
        "classes": classes,
        "humans": humans,
        "frame_rate": frame_rate,
        "version": version,
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
