"""Whether the intervals of the mixture laws hold the truth, on simulated sweeps of known truth.

    python benchmarks/law_coverage.py [--sweeps 200] [--kinds law_interior,kink]

Each simulated sweep scores two datasets: baselines, random mixes, then those that the laws ask for.
Coverage: how often the 90 % interval of the proposed mix's mean error holds its true one, and how
often it holds the true error of the best mix there is. One JSON line, per kind of truth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from search_spaces.law_comparison import compare  # noqa: E402
from search_spaces.law_decision import (  # noqa: E402
    Decision,
    decide,
    even_mixes,
    interval,
)
from search_spaces.mixture_laws import Array  # noqa: E402

Truth = Callable[[Array], Array]  # shares [M, K] -> errors [2, M]
NOISE, TOGETHER = 0.01, 0.3  # of one training run's error; its correlation between the datasets


def law_interior(rng: np.random.Generator) -> Truth:
    """Each dataset wants another source: the mean is best between."""
    sizes, rates = rng.uniform(0.08, 0.2, 2), rng.uniform(2, 8, 2)
    return lambda x: np.stack([0.5 + sizes[i] * np.exp(-rates[i] * x[:, i]) for i in (0, 1)])


def law_end(rng: np.random.Generator) -> Truth:
    """Both want the same source."""
    sizes, rates = rng.uniform(0.08, 0.2, 2), rng.uniform(1, 5, 2)
    return lambda x: np.stack([0.5 + sizes[i] * np.exp(-rates[i] * x[:, 0]) for i in (0, 1)])


def law_three(rng: np.random.Generator) -> Truth:
    sizes, rates = rng.uniform(0.08, 0.2, 2), rng.uniform(2, 8, 2)
    third = rng.uniform(-1, 2, 2)
    return lambda x: np.stack(
        [0.5 + sizes[i] * np.exp(-rates[i] * x[:, i] - third[i] * x[:, 2]) for i in (0, 1)]
    )


def quadratic(rng: np.random.Generator) -> Truth:
    tops, bends = rng.uniform([0.4, 0.0], [1.0, 0.6]), rng.uniform(0.08, 0.25, 2)
    return lambda x: 0.4 + bends[:, None] * (x[:, 0] - tops[:, None]) ** 2


def a_little_helps(rng: np.random.Generator) -> Truth:
    """Steep where a source first comes in, flat after: no law here bends so."""
    sizes, powers = rng.uniform(0.08, 0.2, 2), rng.uniform(0.2, 0.5, 2)
    return lambda x: np.stack([0.6 - sizes[i] * x[:, i] ** powers[i] for i in (0, 1)])


def kink(rng: np.random.Generator) -> Truth:
    tops, slopes = rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.3, 2)
    return lambda x: 0.4 + slopes[:, None] * np.abs(x[:, 0] - tops[:, None])


def threshold(rng: np.random.Generator) -> Truth:
    """One dataset falls at a threshold, the other rises slowly: a trough beside a step."""
    at, size = rng.uniform(0.2, 0.7), rng.uniform(0.08, 0.2)
    slope = rng.uniform(0.02, 0.1)
    return lambda x: np.stack(
        [0.6 - size / (1 + np.exp(-12 * (x[:, 0] - at))), 0.3 + slope * x[:, 0] ** 2]
    )


def flat(rng: np.random.Generator) -> Truth:
    return lambda x: np.full((2, len(x)), 0.5)


def outliers(rng: np.random.Generator) -> Truth:
    """The first kind of truth, its noise Student's t with 3 degrees of freedom."""
    return law_interior(rng)


def two_bends(rng: np.random.Generator) -> Truth:
    """Straight between four heights: sharp, and no law here bends twice."""
    at = np.stack([np.zeros(2), rng.uniform(0.2, 0.4, 2), rng.uniform(0.6, 0.8, 2), np.ones(2)])
    heights = 0.4 + rng.uniform(0.0, 0.15, (4, 2))
    return lambda x: np.stack([np.interp(x[:, 0], at[:, i], heights[:, i]) for i in (0, 1)])


KINDS: dict[str, Callable[[np.random.Generator], Truth]] = {
    kind.__name__: kind
    for kind in (
        *(law_interior, law_end, law_three, quadratic),
        *(a_little_helps, kink, threshold, flat, outliers, two_bends),
    )
}


def run_sweep(kind: str, number: int, trials: int, last: int) -> tuple[Decision, Truth]:
    """One simulated sweep: what the laws decide at its end, and the truth."""
    rng = np.random.default_rng([number, list(KINDS).index(kind)])
    truth = KINDS[kind](rng)
    sources = 3 if kind == "law_three" else 2
    units = 10 if sources == 3 else 20
    candidates = even_mixes(sources, units)
    weights, penalty = np.full(2, 0.5), np.zeros(len(candidates))
    natural = rng.dirichlet(np.ones(sources))
    shares = np.concatenate([np.eye(sources), np.full((1, sources), 1 / sources), [natural]])
    asked = rng.choice(len(candidates), size=trials - last - len(shares), replace=False)
    shares = np.concatenate([shares, candidates[asked]])
    root = np.linalg.cholesky([[1.0, TOGETHER], [TOGETHER, 1.0]])

    def score(mixes: Array) -> Array:
        noise = rng.standard_normal((2, len(mixes)))
        if kind == "outliers":
            noise = rng.standard_t(3, (2, len(mixes))) / np.sqrt(3.0)
        return truth(mixes) + NOISE * root @ noise

    losses = score(shares)
    for place in range(last + 1):
        comparison = compare(shares, losses)
        drawn = comparison.draws(candidates, seed=place)
        decision = decide(comparison, candidates, drawn, weights, penalty)
        if place < last:
            mix = candidates[[decision.next_trial()]]
            shares = np.concatenate([shares, mix])
            losses = np.concatenate([losses, score(mix)], axis=1)
    return decision, truth


def coverage(kind: str, sweeps: int, trials: int, last: int) -> dict[str, float]:
    """Fractions over the simulated sweeps, and means in points of error."""
    rows = []
    for number in range(sweeps):
        decision, truth = run_sweep(kind, number, trials, last)
        means = truth(decision.candidates).mean(axis=0)
        low, high = interval(decision.drawn_losses[:, decision.proposed])
        true = means[decision.proposed]
        rows.append(
            (
                low <= true <= high,
                low <= means.min() <= high,
                100 * (high - low),
                100 * (true - means.min()),
                100 * decision.regret(),
                true > high,
            )
        )
    names = ("proposed", "best", "width", "regret", "expected_regret", "above")
    return {
        n: round(float(v), 3) for n, v in zip(names, np.mean(np.array(rows), axis=0), strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--trials", type=int, default=12, help="of each sweep, all its mixes")
    parser.add_argument("--last", type=int, default=3, help="of them, those that the laws choose")
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in arguments.kinds.split(","):
        found[kind] = coverage(kind, arguments.sweeps, arguments.trials, arguments.last)
        print(kind, json.dumps(found[kind]), file=sys.stderr, flush=True)
    print(json.dumps({"sweeps": arguments.sweeps, "trials": arguments.trials, "coverage": found}))


if __name__ == "__main__":
    main()
