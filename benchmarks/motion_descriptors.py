"""A small model that learns from few clips: edges of what moves, and a logistic regression.

A descriptor of a clip is made of its foreground, what stands out from each pixel's median over
time: in CELLS x CELLS places the energy of DIRECTIONS edge directions (as in HOG, Dalal and Triggs
2005), as its mean and spread over time and as its change from the first half to the second; how
much moves there from frame to frame; and where the foreground's middle goes.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from trainables.data.augment import augment, square_crops
from trainables.data.catalog import Dataset
from trainables.data.clips import ClipReader
from trainables.logistic_regression import fit
from trainables.training_settings import AugmentSettings

FRAMES, SIDE, CELLS, DIRECTIONS = 8, 48, 8, 8
VIEWS = 2  # of each training clip, each a window and a crop of its own
L2 = 0.3
STANDS_OUT = 0.3  # deviations of the clip's grey values; less is noise
CROPS = AugmentSettings(
    crop_scale=(0.7, 1.0),
    crop_ratio=(0.9, 1.1),
    flip=False,  # left is not right
    jitter=0.0,
    rand_augment=None,
    erasing=0.0,
)


def heldout_predictions(dataset: Dataset, seconds: float, seed: int) -> tuple[Tensor, Tensor]:
    """int64 [N] of the held-out clips (`selection`): their labels, and what the model says.

    It learns from the training clips alone, from windows of `seconds`.
    """
    reader = ClipReader(
        frames=FRAMES, seconds=seconds, short_side=2 * SIDE, keep_bytes=0, video_reader="pyav"
    )

    def training() -> Iterator[tuple[np.ndarray, int]]:
        for number, clip in enumerate(dataset.split("train")):
            for view in range(VIEWS):
                rng = np.random.default_rng([seed, number, view])
                frames = reader.read(dataset.root / clip.path, rng.random(), dataset.frame_rate)
                yield descriptor(augment(frames, CROPS, SIDE, rng)), clip.label

    def heldout() -> Iterator[tuple[np.ndarray, int]]:
        for clip in dataset.split("selection"):
            frames = reader.read(dataset.root / clip.path, 0.5, dataset.frame_rate)
            yield descriptor(square_crops(frames, SIDE, 1)[0]), clip.label

    (model,) = fit(*_stacked(training()), [L2], len(dataset.classes))
    values, label = _stacked(heldout())
    return label, model.logits(values).argmax(dim=1)


def _stacked(described: Iterator[tuple[np.ndarray, int]]) -> tuple[Tensor, Tensor]:
    values, labels = zip(*described, strict=True)
    return torch.from_numpy(np.stack(values)), torch.tensor(labels)


def descriptor(frames: np.ndarray) -> np.ndarray:
    """float32 [D] of uint8 [T, SIDE, SIDE, 3]."""
    grey = frames.mean(axis=3, dtype=np.float32)
    grey = (grey - grey.mean()) / max(float(grey.std()), 1.0)
    foreground = grey - np.median(grey, axis=0)
    edges = np.stack([_edges(frame) for frame in foreground])
    half = len(edges) // 2
    moved = _in_cells(np.abs(np.diff(foreground, axis=0)))
    parts = [
        edges.mean(axis=0),
        edges.std(axis=0),
        edges[:half].mean(axis=0) - edges[half:].mean(axis=0),
        np.sqrt(moved.mean(axis=0)),
        moved.std(axis=0),
        _way(foreground),
    ]
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def _edges(frame: np.ndarray) -> np.ndarray:
    """[DIRECTIONS, CELLS, CELLS]: each pixel's gradient, shared between the two directions that
    are nearest; the root, so that one edge of high contrast does not outdo all others."""
    across = cv2.Sobel(frame, cv2.CV_32F, 1, 0, ksize=1)
    down = cv2.Sobel(frame, cv2.CV_32F, 0, 1, ksize=1)
    size, angle = cv2.cartToPolar(across, down)
    place = angle * np.float32(DIRECTIONS / np.pi)
    below = np.floor(place)
    part, lower = place - below, below.astype(int) % DIRECTIONS
    rows, columns = np.ogrid[: frame.shape[0], : frame.shape[1]]
    energy = np.zeros((DIRECTIONS, *frame.shape), np.float32)
    energy[lower, rows, columns] = size * (1 - part)
    energy[(lower + 1) % DIRECTIONS, rows, columns] = size * part
    return np.asarray(np.sqrt(_in_cells(energy)))


def _in_cells(values: np.ndarray) -> np.ndarray:
    """[N, CELLS, CELLS]: the mean of [N, SIDE, SIDE] in each place."""
    step = SIDE // CELLS
    return np.asarray(values.reshape(-1, CELLS, step, CELLS, step).mean(axis=(2, 4)))


def _way(foreground: np.ndarray) -> np.ndarray:
    """[2, T]: the middle of the foreground in each frame, in cells from that of the frame."""
    weight = np.maximum(np.abs(foreground) - STANDS_OUT, 0) + 1e-6
    place = np.arange(SIDE) - (SIDE - 1) / 2
    total = weight.sum(axis=(1, 2))
    across = (weight.sum(axis=1) * place).sum(axis=1) / total
    down = (weight.sum(axis=2) * place).sum(axis=1) / total
    return np.stack([across, down]) * CELLS / SIDE
