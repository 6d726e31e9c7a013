from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial
from scipy.integrate import quad
from scipy.stats import norm

from search_spaces.candidates import random_points
from search_spaces.cost_aware import log_expected_improvement, told_scores
from search_spaces.space import Space, parse_space
from search_spaces.study import Study

STAGED = parse_space(
    {
        "parameters": {
            "mae.epochs": {"type": "choice", "values": [0, 100, 200, 400]},
            "average.method": {"type": "choice", "values": ["none", "interpolate"]},
            "align.mixture.shares": {
                "type": "simplex",
                "over": ["a", "b", "c"],
                "when": {"average.method": "none"},
            },
            "average.coefficient": {
                "type": "float",
                "low": 0.0,
                "high": 1.0,
                "when": {"average.method": "interpolate"},
            },
        }
    },
    where="staged.yaml",
)


def score_of(values: dict[str, Any]) -> float:
    best = {"a": 0.6, "b": 0.4, "c": 0.0}
    shares = values.get("align.mixture.shares")
    off = 0.3 if shares is None else sum((shares[s] - best[s]) ** 2 for s in best)
    return 0.6 - off - 0.05 * (values["average.method"] == "interpolate")


class StageTree:
    """Stage 1 costs its epochs, alignment 50, scoring 1; each is paid once."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    def stages(self, values: dict[str, Any]) -> dict[str, float]:
        shares = str(values.get("align.mixture.shares", "ends"))
        mae = f"mae {values['mae.epochs']}"
        return {mae: values["mae.epochs"], f"{mae} align {shares}": 50, f"{values}": 1}

    def left(self, points: Sequence[dict[str, Any]]) -> list[float]:
        return [
            sum(cost for stage, cost in self.stages(point).items() if stage not in self.there)
            for point in points
        ]


def search(
    trials: int, *, spent: float = 0.0, costly: bool = True, seed: int = 0, space: Space = STAGED
) -> tuple[list[dict[str, Any]], float]:
    """What was suggested one after another, and what all of it cost."""
    tree, paid, points = StageTree(), 0.0, []
    costs = {"costs": tree.left} if costly else {}
    study = Study(space, sampler="cost_aware", seed=seed, startup_trials=4, **costs)
    for _ in range(trials):
        trial = study.ask(spent=spent)
        assert trial is not None
        paid += tree.left([trial.values])[0]
        tree.there |= set(tree.stages(trial.values))
        points.append(trial.values)
        study.tell(trial.number, "complete", [score_of(trial.values)])
    return points, paid


def test_what_is_paid_for_already_is_used_while_the_budget_lasts() -> None:
    _, paid = search(20)
    _, blind = search(20, costly=False)
    assert paid < 0.6 * blind


def test_as_the_budget_ends_costs_no_longer_decide() -> None:
    points, _ = search(14, spent=1.0)
    blind, _ = search(14, costly=False)
    # Costs still choose among what promises the same, so the two part, but not towards the cheap.
    costly = sum(point["mae.epochs"] == 400 for point in points)
    assert costly >= sum(point["mae.epochs"] == 400 for point in blind) - 2


def test_it_finds_a_mixture_inside_the_simplex_among_conditions() -> None:
    points, _ = search(30)
    best = max(points, key=score_of)
    assert score_of(best) > 0.57  # a hundredth of the space: c under a tenth, a near 0.6
    assert Counter(point["average.method"] for point in points[15:])["none"] > 10


def test_failed_regions_are_avoided() -> None:
    space = parse_space(
        {
            "parameters": {
                "lr": {"type": "float", "low": 0.0, "high": 1.0},
                "x": {"type": "float", "low": 0.0, "high": 1.0},
            }
        },
        where="f.yaml",
    )
    study = Study(space, sampler="cost_aware", seed=0, startup_trials=4)
    failed = []
    for _ in range(24):
        trial = study.ask()
        assert trial is not None
        lr = trial.values["lr"]  # the score grows up to where trials fail
        failed.append(lr > 0.5)
        study.tell(trial.number, "failed" if lr > 0.5 else "complete", [lr])
    assert sum(failed[12:]) < 5  # half the space fails


def test_points_that_run_are_not_suggested_again_nor_their_neighbours() -> None:
    space = parse_space(
        {"parameters": {"x": {"type": "float", "low": 0.0, "high": 1.0}}}, where="x.yaml"
    )
    study = Study(space, sampler="cost_aware", seed=0, startup_trials=3)
    for _ in range(3):
        trial = study.ask()
        assert trial is not None
        study.tell(trial.number, "complete", [-((trial.values["x"] - 0.4) ** 2)])
    at_once = [trial.values["x"] for _ in range(4) if (trial := study.ask())]
    apart = np.diff(np.sort(at_once))
    assert len(at_once) == 4 and apart.min() > 0.003


def frozen(state: TrialState, score: float | None, steps: dict[int, float]) -> Any:
    return create_trial(state=state, value=score, intermediate_values=steps)


def test_a_pruned_trial_counts_by_its_rank_at_its_stop_and_a_failed_one_as_the_worst() -> None:
    complete = [
        frozen(TrialState.COMPLETE, score, {1: score / 2, 2: score}) for score in (0.2, 0.4, 0.6)
    ]
    stopped = [
        frozen(TrialState.PRUNED, None, steps)
        for steps in ({1: 0.05}, {1: 0.15}, {1: 0.9}, {1: 0.9, 2: 0.1}, {})
    ]
    stopped.append(frozen(TrialState.FAIL, None, {1: 0.9}))
    told = told_scores([*complete, *stopped], 1.0)[3:]
    assert told == pytest.approx([0.2, 1 / 3, 0.4, 0.2, 0.2, 0.2], abs=1e-9)


@pytest.mark.parametrize("z", [3.0, 0.0, -1.5, -6.0, -20.0])
def test_expected_improvement_is_right_far_below_the_best_too(z: float) -> None:
    found = log_expected_improvement(np.array([z * 0.1]), np.array([0.1]), 0.0)[0]
    exact, _ = quad(lambda u: u * norm.pdf(u - z), 0, max(z, 0) + 12, epsabs=0, epsrel=1e-10)
    assert found == pytest.approx(math.log(exact * 0.1), rel=1e-4)


def test_a_thousand_trials_of_all_kinds_are_modelled() -> None:
    draw = random.Random(0)
    study = Study(STAGED, sampler="cost_aware", seed=0, startup_trials=4)
    for values in random_points(STAGED, 1000, np.random.default_rng(0)):
        trial = study.add(values)
        study.report(trial.number, 1, draw.random())
        ended = draw.choice(["complete", "complete", "pruned", "failed"])
        study.tell(trial.number, ended, [score_of(trial.values)])
    suggested = study.ask()
    assert suggested is not None and score_of(suggested.values) > 0.5
