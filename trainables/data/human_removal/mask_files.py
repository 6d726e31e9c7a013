"""Masks of a clip: a folder of 8-bit PNG files, one a frame, in the order of names, or a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.human_removal.clip_files import read_whole
from trainables.data.video_files import ClipUnreadable


def read_masks(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [T, H, W] for a clip of `shape` [T, H, W, ...].

    Grey values are how sure a person is there; 1 counts as sure where nothing is above it, and so
    does every entry of a palette but the first.

    Raises:
        ClipUnreadable: they are missing, no images, or of another length or size than the clip.
    """
    images = _of_video(path) if path.is_file() else _of_folder(path)
    if len(images) != shape[0]:
        raise ClipUnreadable(path, f"holds {len(images)} masks for {shape[0]} frames")
    masks = np.zeros(shape[:3], np.uint8)
    for mask, (name, image) in zip(masks, images.items(), strict=True):
        if image.shape != shape[1:3]:
            found, wanted = (f"{w}x{h}" for h, w in (image.shape, shape[1:3]))
            raise ClipUnreadable(path, f"{name} is {found}, the frames are {wanted}")
        mask[:] = image
    return masks * 255 if masks.max() == 1 else masks


def _of_folder(folder: Path) -> dict[str, np.ndarray]:
    """Name -> mask, in order."""
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        raise ClipUnreadable(folder, "holds no masks (PNG files, one a frame, or a video)")
    return {file.name: _read(file) for file in files}


def _of_video(file: Path) -> dict[str, np.ndarray]:
    frames, _ = read_whole(file)
    return {f"frame {t}": frame.max(axis=-1) for t, frame in enumerate(frames)}


def _read(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.mode == "P":  # objects are numbered, as in DAVIS
                return np.uint8(255) * (np.asarray(image) > 0)
            return np.asarray(image.convert("L"))
    except OSError:  # PIL's error of a file that is no image is one of them
        raise ClipUnreadable(file.parent, f"{file.name} is no image") from None
