from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from trainables.posthoc_ema import (
    LENGTHS,
    LONGEST,
    beta,
    gamma_of,
    reconstruction,
    sigma_rel_of,
)

STEPS_PER_EPOCH = 20


def trained(trajectory: NDArray[np.float64], sigma_rel: float) -> NDArray[np.float64]:
    """The average as it stands after each step, updated step by step."""
    gamma, average, after = gamma_of(sigma_rel), np.full(trajectory.shape[1], np.nan), []
    for step, weights in enumerate(trajectory, start=1):
        kept = beta(step, gamma)
        average = weights if kept == 0 else kept * average + (1 - kept) * weights
        after.append(average)
    return np.stack(after)


def walk(epochs: int, values: int = 50) -> NDArray[np.float64]:
    """A random walk with a drift: [steps, values]."""
    steps = np.random.default_rng(0).normal(0.02, 0.1, (epochs * STEPS_PER_EPOCH, values))
    return steps.cumsum(axis=0)


def reconstructed(
    trajectory: NDArray[np.float64], epochs: int, sigma_rel: float
) -> NDArray[np.float64]:
    kept = [
        trained(trajectory, length)[STEPS_PER_EPOCH - 1 :: STEPS_PER_EPOCH] for length in LENGTHS
    ]
    coefficients, _ = reconstruction(epochs, sigma_rel)
    result: NDArray[np.float64] = np.einsum("le,lev->v", coefficients, np.stack(kept))
    return result


@pytest.mark.parametrize(("sigma_rel", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.25, 0.72)])
def test_the_exponent_of_a_length_is_the_paper_s(sigma_rel: float, gamma: float) -> None:
    assert gamma_of(sigma_rel) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("sigma_rel", [0.001, 0.01, 0.05, 0.1, 0.2, 0.28, LONGEST])
def test_a_length_comes_back_from_its_exponent(sigma_rel: float) -> None:
    assert sigma_rel_of(gamma_of(sigma_rel)) == pytest.approx(sigma_rel, rel=1e-9)


def test_the_longest_is_the_plain_mean() -> None:
    assert gamma_of(LONGEST) == pytest.approx(0.0, abs=1e-9)
    trajectory = walk(2)
    assert trained(trajectory, LONGEST)[-1] == pytest.approx(trajectory.mean(axis=0))


@pytest.mark.parametrize("sigma_rel", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("steps", [1000, 2000])
def test_the_width_of_the_average_is_a_share_of_the_training_so_far(
    sigma_rel: float, steps: int
) -> None:
    # The average of one-hot weights is the weight that each step has in it.
    profile = trained(np.eye(steps), sigma_rel)[-1]
    assert profile.sum() == pytest.approx(1.0)
    time = np.arange(steps) + 0.5
    mean = profile @ time
    width = math.sqrt(profile @ (time - mean) ** 2)
    assert width / steps == pytest.approx(sigma_rel, rel=1e-3)


@pytest.mark.parametrize("epochs", [1, 2, 5, 50])
@pytest.mark.parametrize("which", [0, 1])
def test_a_length_that_is_kept_is_its_own_last_average(epochs: int, which: int) -> None:
    coefficients, error = reconstruction(epochs, LENGTHS[which])
    expected = np.zeros((2, epochs))
    expected[which, -1] = 1
    assert coefficients == pytest.approx(expected, abs=1e-9)
    assert error < 1e-6


@pytest.mark.parametrize("sigma_rel", [0.02, 0.03, 0.07, 0.13, 0.2, 0.25])
def test_other_lengths_are_those_of_an_average_trained_with_them(sigma_rel: float) -> None:
    trajectory = walk(50)
    found, direct = reconstructed(trajectory, 50, sigma_rel), trained(trajectory, sigma_rel)[-1]
    others = [trained(trajectory, length)[-1] for length in LENGTHS]
    nearest = min(np.abs(other - direct).max() for other in others)
    assert np.abs(found - direct).max() < 0.02 * nearest


def test_weights_that_stand_still_stay_what_they_are() -> None:
    # The fit is poor here, but its coefficients sum to 1.
    coefficients, error = reconstruction(2, 0.12)
    assert coefficients.sum() == pytest.approx(1.0)
    assert error > 0.05


def test_the_error_is_the_norm_of_what_the_profile_lacks() -> None:
    epochs, sigma_rel = 4, 0.12
    one_hot = np.eye(epochs * STEPS_PER_EPOCH)
    found = reconstructed(one_hot, epochs, sigma_rel)
    direct = trained(one_hot, sigma_rel)[-1]
    _, error = reconstruction(epochs, sigma_rel)
    assert np.linalg.norm(found - direct) / np.linalg.norm(direct) == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 100])
def test_lengths_between_the_kept_ones_can_always_be_made(epochs: int) -> None:
    for sigma_rel in np.linspace(*LENGTHS, 20):
        assert reconstruction(epochs, float(sigma_rel))[1] < 0.1


@pytest.mark.parametrize(("epochs", "sigma_rel"), [(2, 0.2), (10, 0.25), (10, 0.02), (50, 0.288)])
def test_a_length_out_of_reach_is_refused(epochs: int, sigma_rel: float) -> None:
    with pytest.raises(ValueError, match=rf"ema_length {sigma_rel} .* {epochs} epochs: .* off by"):
        reconstruction(epochs, sigma_rel)


def test_longer_than_the_mean_of_all_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ema_length 0.289 is longer than .* 0.2887"):
        reconstruction(50, 0.289)
