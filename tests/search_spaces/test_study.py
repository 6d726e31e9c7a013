from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces import told
from search_spaces.points import grid
from search_spaces.space import encode, load_space, parse_space
from search_spaces.study import Observation, Study, Suggestion

MIXING = load_space(Path(__file__).parents[2] / "search_spaces" / "mixing.yaml")
LINE = parse_space(
    {"parameters": {"x": {"type": "float", "low": 0.0, "high": 1.0}}}, where="line.yaml"
)


def baseline(shares: float) -> dict[str, Any]:
    return {
        "mae.epochs": 0,
        "average.method": "none",
        "align.mixture.shares": {"synthetic": shares, "scenes": 1 - shares},
    }


def score_of(values: dict[str, Any]) -> float:
    shares = values.get("align.mixture.shares", {"synthetic": 0.3})
    return (
        0.1 * values.get("mae.epochs", 0)
        - (shares["synthetic"] - 0.7) ** 2
        - (values.get("average.coefficient", 0.5) - 0.2) ** 2
    )


def run(sampler: str, trials: int, seed: int = 3, *, interrupt: bool = False) -> list[Suggestion]:
    """A sweep one trial at a time; `interrupt` rebuilds the study before every trial."""

    def build() -> Study:
        return Study(MIXING, sampler=sampler, seed=seed, startup_trials=4, past=past)

    past: list[Observation] = []
    done: list[Suggestion] = []
    study = build()
    for number in range(trials):
        if interrupt:
            study = build()
        given = [baseline(1.0), baseline(0.0), {"align.epochs": 0}]
        trial = study.add(given[number]) if number < len(given) else study.ask()
        assert trial is not None
        done.append(trial)
        record = Observation(values=trial.values, state="running")
        past.append(record)
        if interrupt:  # killed while the trial runs, which is then handed out again
            study = build()
        score = score_of(trial.values)
        study.report(number, 1, score / 2)
        record = replace(record, intermediate={1: score / 2})
        if number == 5:
            study.tell(number, "failed")
            past[-1] = replace(record, state="failed")
        elif number % 4 == 3:
            study.tell(number, "pruned")
            past[-1] = replace(record, state="pruned")
        else:
            study.tell(number, "complete", [score])
            past[-1] = replace(record, state="complete", objectives=(score,))
    return done


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "gp", "random", "grid"])
def test_an_interrupted_sweep_asks_the_points_of_an_uninterrupted_one(sampler: str) -> None:
    whole = run(sampler, 10)
    assert run(sampler, 10, interrupt=True) == whole
    assert [trial.number for trial in whole] == list(range(10))


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "gp", "random"])
def test_another_seed_asks_other_points(sampler: str) -> None:
    assert run(sampler, 8)[3:] != run(sampler, 8, seed=4)[3:]


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "gp", "random"])
def test_successive_points_differ_though_nothing_was_told(sampler: str) -> None:
    study = Study(LINE, sampler=sampler, seed=0, startup_trials=5)
    points = [study.ask() for _ in range(20)]
    assert len({point.values["x"] for point in points if point}) == 20


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "gp", "random"])
def test_the_draw_depends_on_the_number_of_the_trial(sampler: str) -> None:
    def first(number: int) -> Suggestion | None:
        past = [Observation(values={}, state="failed") for _ in range(number)]
        return Study(LINE, sampler=sampler, seed=0, startup_trials=5, past=past).ask()

    assert len({trial.values["x"] for number in range(5) if (trial := first(number))}) == 5


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_a_pruned_trial_is_told_to_optuna_as_pruned_with_its_height_at_each_rung(
    monkeypatch: pytest.MonkeyPatch, directions: list[told.Direction]
) -> None:
    made: list[optuna.Study] = []

    def keep(*asked: Any) -> optuna.Study:
        made.append(told.as_study(*asked))
        return made[-1]

    monkeypatch.setattr("search_spaces.study.as_study", keep)
    study = Study(LINE, sampler="tpe", seed=0, startup_trials=5, directions=directions)
    study.add({"x": 0.25})
    study.report(0, 250, 0.1)
    study.report(0, 500, 0.2)
    study.tell(0, "pruned")
    study.ask()
    trial = made[0].trials[0]
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.params == {"x": 0.25} and trial.values is None  # never as a finished value
    # With several objectives Optuna takes none.
    expected = {250: 0.1, 500: 0.2} if len(directions) == 1 else {}
    assert trial.intermediate_values == expected


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "gp"])
def test_a_modelling_sampler_closes_in_on_the_best_point(sampler: str) -> None:
    study = Study(LINE, sampler=sampler, seed=0, startup_trials=6)
    for _ in range(12):
        trial = study.ask()
        assert trial is not None
        study.tell(trial.number, "complete", [-((trial.values["x"] - 0.7) ** 2)])
    later = [trial.values["x"] for _ in range(4) if (trial := study.ask())]
    assert sum(abs(x - 0.7) < 0.2 for x in later) >= 3


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "gp"])
def test_a_conditional_parameter_is_modelled_too(sampler: str) -> None:
    branches = parse_space(
        {
            "parameters": {
                "m": {"type": "choice", "values": ["a", "b"]},
                "x": {"type": "float", "low": 0, "high": 1, "when": {"m": "a"}},
                "y": {"type": "float", "low": 0, "high": 1, "when": {"m": "b"}},
            }
        },
        where="branches.yaml",
    )
    study = Study(branches, sampler=sampler, seed=1, startup_trials=8)
    drawn = []
    for number in range(16):
        trial = study.ask()
        assert trial is not None
        drawn.append(trial.values)
        assert set(trial.params) == set(trial.values)
        study.tell(number, "complete", [-abs(trial.values.get("x", 5.0) - 0.8)])
    near = sum(abs(values.get("x", 5.0) - 0.8) < 0.15 for values in drawn[-5:])
    assert near >= 3  # by chance: one in seven


def test_a_point_is_not_tried_twice_until_all_are_tried() -> None:
    few = parse_space(
        {"parameters": {"m": {"type": "simplex", "over": ["a", "b"], "step": 0.25}}}, where="f.yaml"
    )
    study = Study(few, sampler="tpe", seed=0, startup_trials=2)
    shares = []
    for number in range(6):
        trial = study.ask()
        assert trial is not None
        shares.append(trial.values["m"]["a"])
        study.tell(number, "complete", [shares[-1]])
    assert sorted(shares[:5]) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert shares[5] in shares[:5]


def test_the_sampler_learns_from_given_points_that_lie_in_the_space() -> None:
    def fourth(given: dict[str, Any]) -> Suggestion | None:
        study = Study(MIXING, sampler="tpe", seed=0, startup_trials=3)
        for _ in range(3):
            trial = study.add(given)
            study.tell(trial.number, "complete", [1.0])
        return study.ask()

    assert fourth(baseline(1.0)) != fourth(baseline(0.5))
    # Outside: the trials keep their numbers, and the sampler is still drawing at random.
    outside = Study(MIXING, sampler="tpe", seed=0, startup_trials=3)
    for _ in range(3):
        trial = outside.add({"align.epochs": 0, **baseline(1.0)})
        assert trial.params == {}
        assert outside.tell(trial.number, "complete", [9.0]) == "complete"
    unseen = Study(
        MIXING,
        sampler="tpe",
        seed=0,
        startup_trials=3,
        past=[Observation(values={}, state="failed") for _ in range(3)],
    )
    assert outside.ask() == unseen.ask()


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_complete_trial_without_a_finite_score_is_told_as_failed(value: float | None) -> None:
    def fourth(state: Any, value: float | None) -> Suggestion | None:
        study = Study(LINE, sampler="tpe", seed=0, startup_trials=2)
        for _ in range(2):
            trial = study.ask()
            assert trial is not None
            assert study.tell(trial.number, "complete", [1.0]) == "complete"
        trial = study.ask()
        assert trial is not None
        assert study.tell(trial.number, state, None if value is None else [value]) == "failed"
        return study.ask()

    assert fourth("complete", value) == fourth("failed", None)


def test_the_grid_ends_and_skips_points_that_were_given() -> None:
    study = Study(MIXING, sampler="grid", seed=0, startup_trials=0)
    study.add(baseline(0.5))
    asked = []
    while (trial := study.ask()) is not None:
        asked.append(trial.values)
    every = list(grid(MIXING))
    assert len(asked) == len(every) - 1
    assert [values for values in every if values not in asked] == [baseline(0.5)]


def test_a_grid_without_steps_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="x: the grid sampler needs 'step'"):
        Study(LINE, sampler="grid", seed=0, startup_trials=0)


def test_an_unknown_sampler_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'random'"):
        Study(LINE, sampler="randm", seed=0, startup_trials=0)


def test_an_ask_encodes_each_trial_at_most_once_in_each_order_of_the_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A study is made for each draw: of a thousand trials, that was most of what an ask took.
    encoded: list[Any] = []
    monkeypatch.setattr(told, "encode", lambda s, v: encoded.append(v) or encode(s, v))
    copied: list[Any] = []
    of_distribution = optuna.distributions.FloatDistribution
    monkeypatch.setattr(
        of_distribution, "__deepcopy__", lambda d, memo: copied.append(d) or d, raising=False
    )
    study = Study(MIXING, sampler="random", seed=0, startup_trials=4)
    for step in range(21):
        study.add(baseline(step / 20))
    for _ in range(12):
        study.ask()
    assert len(encoded) <= 2 * (21 + 12)  # two sources have two orders
    assert len(copied) < 21  # those of the trials that are asked for, not of all before
