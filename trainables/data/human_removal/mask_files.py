"""Masks of a clip as a folder of 8-bit PNG files, one a frame, in the order of their names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from trainables.data.video_files import ClipUnreadable


def read_masks(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [T, H, W] for a clip of `shape` [T, H, W, ...].

    Grey values are how sure a person is there; 1 counts as sure where nothing is above it, and so
    does every entry of a palette but the first.

    Raises:
        ClipUnreadable: they are missing, no images, or of another length or size than the clip.
    """
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        raise ClipUnreadable(folder, "holds no masks (PNG files, one a frame)")
    if len(files) != shape[0]:
        raise ClipUnreadable(folder, f"holds {len(files)} masks for {shape[0]} frames")
    masks = np.zeros(shape[:3], np.uint8)
    for mask, file in zip(masks, files, strict=True):
        image = _read(file)
        if image.shape != shape[1:3]:
            found, wanted = (f"{w}x{h}" for h, w in (image.shape, shape[1:3]))
            raise ClipUnreadable(folder, f"{file.name} is {found}, the frames are {wanted}")
        mask[:] = image
    return masks * 255 if masks.max() == 1 else masks


def _read(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.mode == "P":  # objects are numbered, as in DAVIS
                return np.uint8(255) * (np.asarray(image) > 0)
            return np.asarray(image.convert("L"))
    except OSError:  # PIL's error of a file that is no image is one of them
        raise ClipUnreadable(file.parent, f"{file.name} is no image") from None


def write_images(folder: Path, images: np.ndarray) -> None:
    """uint8 [T, H, W] or RGB [T, H, W, 3] as 00000.png and on. Raises OSError."""
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        done, coded = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
        assert done
        (folder / f"{index:05}.png").write_bytes(coded.tobytes())
