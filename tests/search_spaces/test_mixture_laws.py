from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from search_spaces import gaussian_process
from search_spaces.gaussian_process import fit_gaussian_process
from search_spaces.mixture_laws import (
    Array,
    fit_exponential,
    fit_quadratic,
    fit_scaled,
    scheffe,
)
from search_spaces.rank_correlation import spearman

NOISE = np.random.default_rng(0)


def two(shares: list[float]) -> Array:
    first = np.array(shares)
    return np.column_stack([first, 1 - first])


MIXES = two([0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0])
THREE = np.random.default_rng(1).dirichlet(np.ones(3), size=20)


def test_the_exponential_law_finds_its_own_parameters() -> None:
    t = np.array([[-4.0, -1.5, 0.3], [0.1, -3.0, -2.0]])
    losses = np.array([[0.4], [0.2]]) + 0.2 * np.exp(t @ THREE.T)
    law = fit_exponential(THREE, losses)
    assert law(THREE) == pytest.approx(losses, abs=1e-4)
    assert law.c == pytest.approx([0.4, 0.2], abs=0.01)
    assert law.t - np.log(0.2) == pytest.approx(t, abs=0.2)


def test_the_exponential_law_agrees_with_scipy_on_noisy_losses() -> None:
    losses = 0.5 + 0.15 * np.exp(-5 * MIXES[:, 0]) + NOISE.normal(0, 0.003, len(MIXES))

    def residuals(p: Array) -> Array:
        return losses - p[0] - np.exp(MIXES @ p[1:])

    reference = least_squares(residuals, [0.5, -5.0, -2.0])
    ours = losses - fit_exponential(MIXES, losses[None])(MIXES)[0]
    # The weak prior costs a little of the fit, and no more.
    assert (ours**2).sum() == pytest.approx((reference.fun**2).sum(), rel=0.05)


def test_many_series_are_fitted_as_each_alone() -> None:
    losses = 0.5 + NOISE.normal(0, 0.05, (3, 2, len(MIXES)))
    for fit in (fit_exponential, fit_quadratic, fit_gaussian_process):
        together = fit(MIXES, losses)(MIXES)
        assert together.shape == losses.shape
        assert fit(MIXES, losses[1])(MIXES) == pytest.approx(together[1], abs=1e-6)


def test_an_outlier_moves_the_laws_little() -> None:
    many = two(np.linspace(0, 1, 21).tolist())
    clean = 0.5 + 0.15 * np.exp(-5 * many[:, 0]) + NOISE.normal(0, 0.002, 21)
    spoilt = clean.copy()
    spoilt[10] += 0.2
    least_squares_moves = np.abs(
        scheffe(many) @ np.linalg.lstsq(scheffe(many), spoilt - clean, rcond=None)[0]
    ).max()
    assert least_squares_moves > 0.02
    for fit in (fit_exponential, fit_quadratic):
        moved = fit(many, spoilt[None])(many) - fit(many, clean[None])(many)
        assert np.abs(moved).max() < 0.008


def test_a_mean_of_laws_may_be_best_between_where_each_law_is_best_at_an_end() -> None:
    losses = np.stack([0.5 + 0.2 * np.exp(-6 * MIXES[:, i]) for i in (0, 1)])
    fine = two(np.linspace(0, 1, 21).tolist())
    curves = fit_exponential(MIXES, losses)(fine)
    assert curves.argmin(axis=1).tolist() == [20, 0]
    assert curves.mean(axis=0).argmin() == 10


def test_a_law_of_losses_that_are_all_the_same_is_that_constant() -> None:
    losses = np.full((1, len(MIXES)), 0.5)
    for fit in (fit_exponential, fit_quadratic, fit_gaussian_process):
        assert fit(MIXES, losses)(MIXES) == pytest.approx(losses, abs=1e-3)


def test_the_quadratic_is_scheffes_and_finds_its_own_coefficients() -> None:
    assert scheffe(np.array([[0.2, 0.3, 0.5]]))[0].tolist() == pytest.approx(
        [0.2, 0.3, 0.5, 0.06, 0.1, 0.15]
    )
    coefficients = np.array([0.4, 0.5, 0.6, -0.3, 0.1, 0.2])
    law = fit_quadratic(THREE, (scheffe(THREE) @ coefficients)[None])
    assert law.coefficients[0] == pytest.approx(coefficients, abs=1e-5)


def test_merged_weights_set_the_shape_and_the_trained_scores_the_scale() -> None:
    def merged(shares: Array) -> Array:
        return 0.5 + 0.1 * shares[:, 0] ** 2 + np.zeros((1, 1))

    for scale, found in ((0.5, 0.5), (-0.5, 0.0)):  # one that runs against the truth is dropped
        losses = 0.2 + scale * merged(MIXES)
        law = fit_scaled(MIXES, losses, merged)
        assert law.b[0] == pytest.approx(found, abs=1e-9)
    assert law(MIXES) == pytest.approx(np.full((1, len(MIXES)), losses.mean()))


def test_the_gaussian_process_agrees_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_process, "LENGTHS", (0.6,))
    monkeypatch.setattr(gaussian_process, "NOISES", (0.1,))
    losses = NOISE.normal(0, 1, (1, len(MIXES)))
    ours = fit_gaussian_process(MIXES, losses)
    # A flat prior on the mean is the limit of a constant kernel.
    kernel = ConstantKernel(1e6) + Matern(0.6 * np.sqrt(2), nu=2.5) + WhiteKernel(0.1)
    reference = GaussianProcessRegressor(kernel, optimizer=None).fit(MIXES, losses[0])
    fine = two([0.05, 0.33, 0.9])
    assert ours(fine)[0] == pytest.approx(reference.predict(fine), abs=1e-4)

    _, covariance = reference.predict(fine, return_cov=True)
    covariance -= 0.1 * np.eye(3)  # of the curve, without the noise of a trial
    noise = NOISE.standard_normal((20_000, 1, len(MIXES)))
    drawn = ours.draws(fine, noise, np.random.default_rng(0))[:, 0]
    free = len(MIXES) - 1  # the variance is drawn too: Student's t is wider than the normal
    expected = covariance * ours.variance[0, 0] * free / (free - 2)
    assert drawn.mean(axis=0) == pytest.approx(ours(fine)[0], abs=0.03)
    assert np.cov(drawn.T) == pytest.approx(expected, rel=0.15, abs=0.01)


def test_the_gaussian_process_weighs_short_lengths_for_a_rough_curve() -> None:
    fine = two(np.linspace(0, 1, 30).tolist())
    smooth, rough = fine[:, 0] ** 2, np.sin(25 * fine[:, 0])
    weights = fit_gaussian_process(fine, np.stack([smooth, rough])).weights
    lengths = np.repeat(gaussian_process.LENGTHS, len(gaussian_process.NOISES))
    assert weights[0] @ lengths > 0.5 > 0.25 > weights[1] @ lengths


def test_spearman_is_scipys_and_its_interval_shrinks_with_more_mixes() -> None:
    one, other = NOISE.normal(size=30), NOISE.normal(size=30)
    rho, _ = spearman(one, other)
    assert rho == pytest.approx(spearmanr(one, other).statistic)
    widths = []
    for count in (5, 10, 30):
        order = np.arange(count, dtype=float)
        swapped = order.copy()
        swapped[:2] = swapped[1::-1]
        rho, bounds = spearman(order, swapped)
        assert rho is not None and bounds is not None and bounds[0] < rho < bounds[1] <= 1
        widths.append(bounds[1] - bounds[0])
    assert all(wide > narrow for wide, narrow in pairwise(widths))


def test_spearman_of_a_constant_or_of_three_has_no_number_or_interval() -> None:
    rising = np.arange(3.0)
    assert spearman(np.ones(5), np.arange(5.0)) == (None, None)
    assert spearman(rising, rising) == (pytest.approx(1.0), None)
