"""The latents of a generator's clips, on disk: what its inverter learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from trainables.data.catalog import Dataset
from trainables.data.whole_files import write_whole

NAME = "z"


def write_latents(path: Path, latents: np.ndarray) -> None:
    """float [clips, D], in the order of the manifest."""
    write_whole(path, save({NAME: np.ascontiguousarray(latents, np.float32)}))


def training_latents(dataset: Dataset) -> np.ndarray:
    """float32 [training clips, D].

    Raises:
        ValueError: the file cannot be read, or is of another number of clips, or not finite.
    """
    if dataset.program is not None:
        clips = dataset.split("train")
        drawn = [dataset.program.latent(dataset.sample(clip)) for clip in clips]
        return np.stack(drawn).astype(np.float32)
    assert dataset.latents is not None, "checked when the stage was described"
    try:
        latents = load_file(dataset.latents)[NAME]
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(
            f"dataset {dataset.name!r}: latents {dataset.latents} cannot be read ({error}); let "
            "the generator's command write them again"
        ) from None
    if latents.ndim != 2 or len(latents) != len(dataset.clips) or not np.isfinite(latents).all():
        raise ValueError(
            f"dataset {dataset.name!r}: latents {dataset.latents} are {list(latents.shape)}, and "
            f"must be finite and [{len(dataset.clips)}, D], a row for each clip of the manifest"
        )
    train = [place for place, clip in enumerate(dataset.clips) if clip.split == "train"]
    selected: np.ndarray = latents[train]
    return selected
