"""A Gaussian process over the shares of a mixture, its settings averaged over, not chosen."""

# Not the process of surrogate.py, which cannot stand in for it, nor it for that one: here a dozen
# trials do not tell length and noise, so both are averaged over, for many series at once, and whole
# curves are drawn. There a thousand points of mixed parameters have a length each, chosen by
# gradient, each score its own noise, and only mean and deviation are asked for.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.mixture_laws import Array

LENGTHS = (0.15, 0.3, 0.6, 1.2, 2.4)  # between two sources alone lies a distance of 1
NOISES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # variance of the noise over the signal's


@dataclass(frozen=True)
class _Cell:
    """One length and noise: what turns losses into the curve."""

    length: float
    noise: float
    root: Array  # [N, N], lower Cholesky factor of kernel + noise
    precision: Array  # [N, N], its inverse with the constant mean projected out


@dataclass(frozen=True)
class GaussianProcess:
    """Matérn 5/2 on the distance between mixes, a flat prior on the mean.

    `weights` [..., G]: of each of the G settings, by their restricted likelihood.
    """

    shares: Array
    losses: Array
    cells: list[_Cell]
    weights: Array
    variance: Array  # [..., G], of the signal

    def __call__(self, shares: Array) -> Array:
        total = np.zeros((*self.losses.shape[:-1], len(shares)))
        for index, cell in enumerate(self.cells):
            total += self.weights[..., index, None] * (self.losses @ self._smoother(cell, shares).T)
        return total

    def degrees(self) -> Array:
        """Of freedom that the curve takes up, [...]: the trace of its smoother."""
        traces = [np.trace(self._smoother(cell, self.shares)) for cell in self.cells]
        return self.weights @ np.array(traces)

    def draws(self, shares: Array, noise: Array, rng: np.random.Generator) -> Array:
        """Curves [B, D, M] from the posterior of D series.

        `noise` [B, D, N] are standard normal draws of the noise of each trial, which may go
        together over the series: a curve drawn from the prior is bent to the losses less this
        noise (Wilson et al. 2021, "Pathwise conditioning").
        """
        count, series, trials = noise.shape
        places = np.concatenate([self.shares, shares])
        drawn = np.empty((count, series, len(shares)))
        for d in range(series):
            chosen = rng.choice(len(self.cells), size=count, p=self.weights[d])
            # The signal's variance has a scaled inverse chi-square posterior.
            chi = rng.chisquare(trials - 1, size=count) / (trials - 1)
            for index in np.unique(chosen):
                cell, those = self.cells[index], np.flatnonzero(chosen == index)
                size = np.sqrt(self.variance[d, index] / chi[those])[:, None]
                kernel = _kernel(places, places, cell.length) + 1e-8 * np.eye(len(places))
                prior = (
                    rng.standard_normal((len(those), len(places))) @ np.linalg.cholesky(kernel).T
                )
                at_trials, at_shares = prior[:, :trials], prior[:, trials:]
                missing = at_trials + np.sqrt(cell.noise) * noise[those, d]
                smoother = self._smoother(cell, shares)
                drawn[those, d] = self.losses[d] @ smoother.T + size * (
                    at_shares - missing @ smoother.T
                )
        return drawn

    def _smoother(self, cell: _Cell, shares: Array) -> Array:
        """[M, N]: the curve at `shares` is this times the losses."""
        cross = _kernel(shares, self.shares, cell.length)
        inverse = np.linalg.inv(cell.root @ cell.root.T)
        mean = inverse.sum(axis=0) / inverse.sum()
        return mean + cross @ cell.precision


def fit_gaussian_process(shares: Array, losses: Array) -> GaussianProcess:
    """The restricted likelihood of every length and noise of a grid."""
    count = len(shares)
    cells, logs, variances = [], [], []
    for length in LENGTHS:
        kernel = _kernel(shares, shares, length)
        for noise in NOISES:
            root = np.linalg.cholesky(kernel + noise * np.eye(count))
            inverse = np.linalg.inv(root @ root.T)
            ones = inverse.sum(axis=0)
            precision = inverse - np.outer(ones, ones) / ones.sum()
            squares = ((losses @ precision) * losses).sum(axis=-1)
            variance = np.maximum(squares / (count - 1), 1e-16)
            cells.append(_Cell(length, noise, root, precision))
            variances.append(variance)
            logs.append(
                -(count - 1) / 2 * np.log(variance)
                - np.log(np.diag(root)).sum()
                - np.log(ones.sum()) / 2
            )
    log = np.stack(logs, axis=-1)
    weights = np.exp(log - log.max(axis=-1, keepdims=True))
    return GaussianProcess(
        shares,
        losses,
        cells,
        weights / weights.sum(axis=-1, keepdims=True),
        np.stack(variances, -1),
    )


def _kernel(one: Array, other: Array, length: float) -> Array:
    apart = np.linalg.norm(one[:, None] - other[None], axis=-1) / np.sqrt(2.0)
    scaled = np.sqrt(5.0) * apart / length
    kernel: Array = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return kernel
