from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from search_spaces.broken_line import fit_broken_line
from search_spaces.law_decision import even_mixes
from search_spaces.mixture_laws import Array

TWO = even_mixes(2, 20)


def kink(shares: Array, source: int, top: float) -> Array:
    return 0.4 + 0.2 * np.abs(shares[:, source] - top)


def test_a_kink_is_found_where_it_is_and_not_rounded_off() -> None:
    losses = np.stack([kink(TWO, 0, 0.35), kink(TWO, 0, 0.8), 0.3 + 0.1 * TWO[:, 1]])
    assert fit_broken_line(TWO, losses)(TWO) == pytest.approx(losses, abs=1e-6)
    three = even_mixes(3, 20)
    losses = np.stack([kink(three, source, 0.3) for source in range(3)])
    assert fit_broken_line(three, losses)(three) == pytest.approx(losses, abs=1e-6)


def test_many_series_are_fitted_as_each_alone() -> None:
    losses = kink(TWO, 0, 0.4) + np.random.default_rng(0).normal(0, 0.02, (3, 2, 21))
    together = fit_broken_line(TWO, losses)(TWO)
    assert together.shape == losses.shape
    assert fit_broken_line(TWO, losses[1, 0])(TWO) == pytest.approx(together[1, 0])


def test_of_one_possible_bend_the_draws_are_the_known_posterior_of_a_regression() -> None:
    # Three shares, one bend: the line goes through the mean of each share's losses.
    shares = np.repeat(even_mixes(2, 2), 5, axis=0)
    losses = np.random.default_rng(1).normal(0.5, 0.02, (1, 15))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((20_000, 1, 15))
    drawn = fit_broken_line(shares, losses).draws(even_mixes(2, 2), noise, rng)[:, 0]
    means = losses.reshape(3, 5).mean(axis=1)
    pooled = np.sqrt(((losses.reshape(3, 5) - means[:, None]) ** 2).sum() / 12)
    for place, mean in enumerate(means):
        expected = mean + pooled / np.sqrt(5) * student(12).ppf([0.05, 0.5, 0.95])
        found = np.quantile(drawn[:, place], [0.05, 0.5, 0.95])
        assert found == pytest.approx(expected, abs=0.1 * pooled)


def test_draws_bend_at_different_places_where_the_losses_do_not_say_where() -> None:
    shares = TWO[::4]
    losses = kink(shares, 0, 0.5)[None] + np.random.default_rng(0).normal(0, 0.02, (1, 6))
    rng = np.random.default_rng(0)
    drawn = fit_broken_line(shares, losses).draws(TWO, rng.standard_normal((200, 1, 6)), rng)[:, 0]
    bends = np.abs(np.diff(drawn, n=2, axis=1)).argmax(axis=1)
    assert np.ptp(bends) >= 4  # fifths of the whole range


def test_shares_that_hold_no_bend_get_a_straight_line() -> None:
    # Of four sources two each: no share lies between two others.
    shares = np.array([m for m in even_mixes(4, 2) if max(m) == 0.5])
    losses = 0.3 + shares @ np.array([0.1, 0.2, 0.0, 0.05])
    assert fit_broken_line(shares, losses)(shares) == pytest.approx(losses, abs=1e-9)
