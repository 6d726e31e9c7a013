"""Intervals of an accuracy."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
COVERAGE = 0.9


def bootstrap_interval(correct: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """The 90 % percentile interval of accuracy under resampling of whole groups.

    `correct` bool [N], `group` int [N]. The clips of a group (a person, a film) resemble each
    other, so groups are what is drawn. One group alone gives an interval of no width.
    """
    _, member = np.unique(group, return_inverse=True)
    clips = np.bincount(member)
    right = np.bincount(member, weights=correct)
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(clips), size=len(clips)) for _ in range(RESAMPLES))
    accuracy = [right[drawn].sum() / clips[drawn].sum() for drawn in draws]
    low, high = np.quantile(accuracy, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
