"""Spearman's rank correlation with its interval."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from scipy.stats import spearmanr

from search_spaces.mixture_laws import Array

LEVEL = 0.9


def spearman(one: Array, other: Array) -> tuple[float | None, tuple[float, float] | None]:
    """rho of two [N], and its 90 % interval.

    Fisher's z with the standard error sqrt((1 + rho^2 / 2) / (N - 3)) (Bonett and Wright 2000).
    rho is None where one of them is constant; the interval also where N is less than 4.
    """
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None, None
    rho = float(spearmanr(one, other).statistic)
    if len(one) < 4:
        return rho, None
    error = math.sqrt((1 + rho**2 / 2) / (len(one) - 3))
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    z = math.atanh(min(max(rho, -0.999999), 0.999999))
    return rho, (math.tanh(z - half), math.tanh(z + half))
