"""Whether the clips of a dataset are on disk; check_dataset.py looks inside them too."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainables.data.catalog import Dataset

SHOWN = 5  # examples in a message


def check_files(dataset: Dataset) -> None:
    """Raises ValueError when root, masks, latents, a clip or its view does not exist, or a folder
    has no frame rate; or when the program that draws the clips gives none."""
    if dataset.program is not None:
        dataset.program.check()
        return
    if not dataset.root.is_dir():
        raise ValueError(
            f"dataset {dataset.name!r}: root {dataset.root} is not a folder; correct `root`"
        )
    if dataset.masks is not None and not dataset.masks.is_dir():
        raise ValueError(
            f"dataset {dataset.name!r}: masks {dataset.masks} is not a folder; correct `masks`"
        )
    if dataset.latents is not None and not dataset.latents.is_file():
        raise ValueError(
            f"dataset {dataset.name!r}: latents {dataset.latents} is not a file; correct "
            "`latents`, or let the generator's command write it again"
        )
    modes = _modes(dataset, dataset.root)
    missing = [clip.path for clip, mode in zip(dataset.clips, modes, strict=True) if mode is None]
    if missing:
        raise ValueError(
            f"dataset {dataset.name!r}: {len(missing)} of {len(dataset.clips)} clips do not exist "
            f"under {dataset.root}: {_some(missing)}; correct `root` or the manifest"
        )
    for scale, folder in dataset.views.items():
        there = zip(dataset.clips, _modes(dataset, folder), strict=True)
        missing = [clip.path for clip, mode in there if mode is None]
        if missing:
            raise ValueError(
                f"dataset {dataset.name!r}: {len(missing)} of {len(dataset.clips)} clips have no "
                f"view of scale {scale} under {folder}: {_some(missing)}; correct `views`, or "
                "let the generator's command go on"
            )
    if dataset.frame_rate is None and any(mode and stat.S_ISDIR(mode) for mode in modes):
        raise ValueError(
            f"dataset {dataset.name!r} has frame folders; give its catalog entry a `frame_rate`"
        )


def _modes(dataset: Dataset, folder: Path) -> list[int | None]:
    """Of each clip's path under `folder`, None where nothing is."""
    with ThreadPoolExecutor(16) as pool:  # network file systems answer slowly, but in parallel
        return list(pool.map(lambda clip: _mode(folder / clip.path), dataset.clips))


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except OSError:
        return None


def _some(items: list[str]) -> str:
    return ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")
