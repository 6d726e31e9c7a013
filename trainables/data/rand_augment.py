# ruff: noqa: NPY002 -- timm draws from NumPy's global state
"""RandAugment: timm draws once a clip, OpenCV does it. Beside models, the only import of timm."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

from trainables.data.image_operations import OPERATIONS
from trainables.models.timm_models import import_torchvision
from trainables.training_settings import RandAugmentSettings

MAGNITUDE_STD = 0.5  # of the normal that each operation's magnitude is drawn from (VideoMAE)


def rand_augment(
    frames: np.ndarray, settings: RandAugmentSettings, rng: np.random.Generator
) -> np.ndarray:
    """uint8 [T, H, W, 3] of the same shape: each frame changed by the same operations.

    RandAugment (Cubuk et al. 2020) as in timm's `rand-mM-nN-mstd0.5-inc1`: `layers` operations of
    the 15 that grow with the magnitude, drawn with replacement, each done with `probability`.
    """
    transform = _transform(settings.magnitude, settings.layers, settings.probability)
    with _seeded(int(rng.integers(2**32))):
        return transform(frames)


@lru_cache
def _transform(
    magnitude: float, layers: int, probability: float
) -> Callable[[np.ndarray], np.ndarray]:
    import_torchvision()
    from timm.data.auto_augment import rand_augment_transform

    transform = rand_augment_transform(f"rand-n{layers}-mstd{MAGNITUDE_STD}-inc1", {})
    for operation in transform.ops:
        # The string takes no number like 7.5 or 1e-05.
        operation.magnitude, operation.prob = magnitude, probability
        operation.aug_fn, operation.kwargs = OPERATIONS[operation.name], {}
    randomly: Callable[[np.ndarray], np.ndarray] = transform
    return randomly


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, the global random states of Python and NumPy follow from `seed`."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
