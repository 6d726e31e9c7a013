"""Averages of the weights over training whose length is chosen afterwards.

Post-hoc EMA of Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion
Models", section 3. A power-function average of the weights W(s) up to time t is

    integral over s from 0 to t of p(s) W(s),   p(s) = (gamma + 1) s^gamma / t^(gamma + 1).

Its length `sigma_rel` is the standard deviation of p over t; it is the same at every t, so that an
average's length is a share of the training so far. Two of them, kept after each epoch, are a basis
in which the profile of any other length is fitted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LENGTHS = (0.05, 0.10)  # sigma_rel of the two averages that are kept
LONGEST = 1 / math.sqrt(12)  # gamma = 0, the mean of all weights so far
MAX_ERROR = 0.1  # of a fitted profile, as a share of the profile's norm

Array = NDArray[np.float64]


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the profile of this length, which is in (0, 1 / sqrt(12)].

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), the variance of the Beta distribution
    with parameters gamma + 1 and 1, is a cubic in gamma; one root is positive where its constant
    term is negative.
    """
    assert 0 < sigma_rel <= LONGEST
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots.real.max())


def sigma_rel_of(gamma: float) -> float:
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def beta(step: int, gamma: float) -> float:
    """What the average keeps of itself in optimizer step `step`, which counts from 1.

    (1 - 1 / t)^(gamma + 1): the share of the profile up to t that lies before t - 1. So the weights
    after step s get the profile's integral from s - 1 to s, and those after the first step all.
    """
    return float((1 - 1 / step) ** (gamma + 1))


def reconstruction(epochs: int, sigma_rel: float) -> tuple[Array, float]:
    """How the averages kept after each of `epochs` epochs make the one of length `sigma_rel`.

    Returns:
        Coefficients [2, epochs], of `LENGTHS` and epochs, that sum to 1; and the norm of what their
        profile lacks of the wanted one, as a share of that one's norm. The fit is least squares
        over continuous time, with the sum fixed, which the paper leaves free.

    Raises:
        ValueError: what was kept cannot make an average of this length.
    """
    if sigma_rel > LONGEST:
        raise ValueError(
            f"average.ema_length {sigma_rel} is longer than the mean of all weights, "
            f"{LONGEST:.4f}; choose less"
        )
    gamma, end = np.array([gamma_of(sigma_rel)]), np.ones(1)
    gammas = np.repeat([gamma_of(length) for length in LENGTHS], epochs)
    times = np.tile(np.arange(1, epochs + 1) / epochs, len(LENGTHS))

    wanted = float(_inner(gamma, end, gamma, end)[0, 0])
    kept = _inner(gammas, times, gammas, times)
    towards = _inner(gammas, times, gamma, end)[:, 0]
    scale = 1 / np.sqrt(np.diag(kept))  # to profiles of norm 1, for the condition of the system
    system = np.block([[kept * np.outer(scale, scale), scale[:, None]], [scale, np.zeros(1)]])
    solved = np.linalg.solve(system, np.append(towards * scale, 1.0))
    coefficients = solved[:-1] * scale

    lacking = float(coefficients @ kept @ coefficients - 2 * coefficients @ towards) + wanted
    error = math.sqrt(max(lacking, 0.0) / wanted)
    if error > MAX_ERROR:
        raise ValueError(
            f"average.ema_length {sigma_rel} cannot be made from the averages of {epochs} epochs: "
            f"its profile would be off by {error:.0%} (at most {MAX_ERROR:.0%}); more epochs reach "
            f"further, {LENGTHS[0]} to {LENGTHS[1]} can always be made"
        )
    return coefficients.reshape(len(LENGTHS), epochs), error


def _inner(gammas_a: Array, times_a: Array, gammas_b: Array, times_b: Array) -> Array:
    """Integrals [A, B] of the products of two sets of profiles, in closed form.

    (a + 1) (b + 1) / (a + b + 1) * (earlier / later)^(gamma of the later) / later.
    """
    a, b = gammas_a[:, None], gammas_b[None, :]
    at, bt = times_a[:, None], times_b[None, :]
    earlier, later = np.minimum(at, bt), np.maximum(at, bt)
    of_later = np.where(at > bt, a, b)
    product: Array = (a + 1) * (b + 1) / (a + b + 1) * (earlier / later) ** of_later / later
    return product
