from __future__ import annotations

import numpy as np
import pytest

from trainables.bootstrap import bootstrap_interval


def test_the_interval_of_single_clips_is_the_binomial_one() -> None:
    correct = np.arange(400) % 4 > 0  # 75 %
    low, high = bootstrap_interval(correct, np.arange(400))
    half = 1.645 * (0.75 * 0.25 / 400) ** 0.5
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)


def test_clips_that_stand_or_fall_together_widen_it() -> None:
    correct = np.repeat(np.arange(40) % 4 > 0, 10)
    group = np.repeat(np.arange(40), 10)
    low, high = bootstrap_interval(correct, group)
    alone = bootstrap_interval(correct, np.arange(400))
    assert high - low > 2.5 * (alone[1] - alone[0])


def test_it_is_the_same_every_time() -> None:
    correct, group = np.arange(30) % 3 > 0, np.arange(30) // 2
    assert bootstrap_interval(correct, group) == bootstrap_interval(correct, group)
