"""What a catalog file says: one entry a dataset, of four kinds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from trainables.data.generators.on_the_fly import GeneratedSettings
from trainables.data.manifests import Humans, Split
from trainables.data.subsets import SubsetSettings
from trainables.data.suite import SuiteSettings
from trainables.settings import Settings, load_yaml, nearest, parse


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
    licence: str | None = None
    leak_rate: float | None = None  # as measured by data.human_removal
    masks: str | None = None
    views: dict[Annotated[float, Field(gt=0)], str] | None = None  # written by data.generators
    latents: str | None = None  # likewise


Entry = DatasetSettings | SuiteSettings | SubsetSettings | GeneratedSettings


class CatalogSettings(Settings):
    datasets: dict[str, dict[str, Any]]  # each an Entry


def catalog_names(path: Path) -> list[str]:
    """The names of a catalog's datasets. Raises ValueError for an entry that is malformed."""
    return list(read_entries(path))


def written_out(path: Path, name: str) -> DatasetSettings | SuiteSettings:
    """The catalog's entry of a dataset, with absolute paths. Raises ValueError for a subset."""
    entry, folder = read_entries(path).get(name), path.resolve().parent
    if entry is None:
        raise ValueError(f"{path}: {name!r} is not in it{nearest(name, catalog_names(path))}")
    if isinstance(entry, SubsetSettings):
        raise ValueError(f"{name!r} is a subset; give {entry.subset_of!r}, whose clips it has")
    if isinstance(entry, GeneratedSettings):
        raise ValueError(f"{name!r} has no files to prepare, for a program draws its clips")

    def absolute(file: str) -> str:
        return str(expanded(name, file, folder))

    found: dict[str, Any] = {"root": absolute(entry.root)}
    if entry.masks is not None:
        found["masks"] = absolute(entry.masks)
    if isinstance(entry, DatasetSettings):
        if entry.latents is not None:
            found["latents"] = absolute(entry.latents)
        if entry.views is not None:
            found["views"] = {scale: absolute(path) for scale, path in entry.views.items()}
        if isinstance(entry.clips, str):
            found["clips"] = absolute(entry.clips)
        else:
            found["clips"] = {split: absolute(file) for split, file in entry.clips.items()}
        if isinstance(entry.classes, str):
            found["classes"] = absolute(entry.classes)
    return entry.model_copy(update=found)


def read_entries(path: Path) -> dict[str, Entry]:
    """By name. Raises ValueError for one that is malformed."""
    entries: dict[str, Entry] = {}
    for name, data in parse(CatalogSettings, load_yaml(path), str(path)).datasets.items():
        kind: type[Entry] = DatasetSettings
        if "suite" in data:
            kind = SuiteSettings
        elif "subset_of" in data:
            kind = SubsetSettings
        elif "generator" in data:
            kind = GeneratedSettings
        entries[name] = parse(kind, data, f"{path}: datasets.{name}")
    return entries


def expanded(name: str, text: str, folder: Path) -> Path:
    """A path of the entry `name`. Raises ValueError for a variable that is not set."""
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ValueError(f"dataset {name!r}: {text!r} names an unset variable; export it")
    return folder / expanded
