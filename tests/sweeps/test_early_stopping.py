from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.study import RungPoint
from sweeps.search_settings import EarlyStopping
from sweeps.searching.early_stopping import reason_to_stop
from tests.sweeps.test_plan import finish
from tests.sweeps.test_search import make_search
from tests.toy import STOPPING, at_rung, toy_data, toy_trial
from trainables.intermediate_probes import IntermediateProbes
from trainables.settings import parse
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

TWO = toy_trial(downstream=["low", "high"])


def stops(
    own: tuple[float, float],
    *others: tuple[float, float],
    by: str = "score",
    factor: int = 2,
    seconds: tuple[float, ...] = (),
    objectives: tuple[Any, ...] = ("score",),
) -> bool:
    """Whether a trial with these accuracies on two datasets stops after `others`."""
    settings = parse(EarlyStopping, {**STOPPING, "by": by, "reduction_factor": factor}, "")
    points = [
        RungPoint(
            rung=0.25,
            accuracies={"low": low, "high": high},
            device_seconds=seconds[index] if seconds else 1.0,
        )
        for index, (low, high) in enumerate((own, *others))
    ]
    earlier = [(TWO, point) for point in points[1:]]
    return reason_to_stop(settings, objectives, TWO, points[0], earlier) is not None


def test_the_first_at_a_rung_goes_on_and_of_two_the_worse_stops() -> None:
    assert not stops((0.1, 0.1))
    assert stops((0.1, 0.1), (0.2, 0.2))
    assert not stops((0.3, 0.3), (0.2, 0.2))


@pytest.mark.parametrize(("factor", "kept"), [(2, 4), (4, 2), (8, 1)])
def test_one_in_so_many_goes_on_rounded_up(factor: int, kept: int) -> None:
    others = [(k / 10, k / 10) for k in range(1, 8)]  # with itself, eight
    going_on = [k for k in range(8) if not stops((k / 10 + 0.05,) * 2, *others, factor=factor)]
    assert len(going_on) == kept and going_on == list(range(8 - kept, 8))


def test_equals_go_on_together() -> None:
    assert not stops((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5), factor=4)


def test_by_datasets_a_trial_that_no_other_beats_on_all_of_them_goes_on() -> None:
    others = [(0.9, 0.1), (0.8, 0.2), (0.7, 0.3)]
    weak_on_the_mean = (0.1, 0.35)
    assert stops(weak_on_the_mean, *others, by="score")
    assert not stops(weak_on_the_mean, *others, by="datasets")
    assert stops((0.6, 0.1), *others, by="datasets")


def test_by_objectives_a_cheap_trial_goes_on_and_a_dear_one_that_is_no_better_stops() -> None:
    both: dict[str, Any] = {"by": "objectives", "objectives": ("score", "gpu_hours")}
    strong = [(0.8, 0.8), (0.7, 0.7)]
    assert not stops((0.5, 0.5), *strong, **both, seconds=(10.0, 100.0, 90.0))
    assert stops((0.5, 0.5), *strong, **both, seconds=(200.0, 100.0, 90.0))


def test_trials_of_another_average_or_at_another_rung_are_not_compared_with() -> None:
    settings = parse(EarlyStopping, STOPPING, "")
    averaged = toy_trial(average__method="uniform")
    weak, strong = at_rung(0.25, 0.1), at_rung(0.25, 0.9)
    assert reason_to_stop(settings, ("score",), toy_trial(), weak, [(averaged, strong)]) is None
    later = at_rung(0.5, 0.9)
    assert reason_to_stop(settings, ("score",), toy_trial(), weak, [(toy_trial(), later)]) is None
    reason = reason_to_stop(settings, ("score",), toy_trial(), weak, [(toy_trial(), strong)])
    assert reason is not None and "1 of 2 trials stood better by their score when 25%" in reason


def test_rungs_are_equal_parts_of_runs_of_any_length_and_never_their_end() -> None:
    probes = IntermediateProbes(
        rungs=(0.1, 0.25, 0.55),
        downstream=("low",),
        train_clips=1,
        selection_clips=1,
        l2_grid=(1.0,),
        max_unreadable=0.0,
        precision="fp32",
    )
    assert probes.steps(1000) == {0.1: 100, 0.25: 250, 0.55: 550}
    assert probes.steps(100) == {0.1: 10, 0.25: 25, 0.55: 55}  # 0.55 * 100 is above 55 in binary
    assert probes.steps(90) == {0.1: 9, 0.25: 23, 0.55: 50}
    assert probes.steps(3) == {0.1: 1, 0.25: 1, 0.55: 2}
    assert probes.steps(1) == {}


def stopping_search(folder: Path, **overrides: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return make_search(folder, search__early_stopping=STOPPING, search__trials=9, **overrides)


def test_baselines_are_never_stopped_but_others_are_compared_with_them(tmp_path: Path) -> None:
    search = stopping_search(tmp_path)
    while search.ask().number < 5:
        pass
    for number, height in ((1, 0.9), (2, 0.8), (3, 0.1)):
        assert search.reached(number, at_rung(0.25, height))
    assert not search.reached(5, at_rung(0.25, 0.2))
    assert search.records[5].state == "pruned"
    assert "2 of 4 trials stood better" in search.records[5].reason
    assert search.records[5].score is None and search.records[5].rungs[0].accuracies == {"low": 0.2}


@pytest.mark.parametrize("lacking", ["w0", "w1", None])
def test_a_trial_whose_training_is_all_paid_is_never_stopped(
    tmp_path: Path, lacking: str | None
) -> None:
    # Of a later coefficient between the same two endpoints nothing but a probe is left.
    coefficient = {"type": "float", "low": 0.1, "high": 0.9}
    settings = {"space": {"parameters": {"average.coefficient": coefficient}},
                "trial__average__method": "interpolate", "search__baselines": False}  # fmt: skip
    search = stopping_search(tmp_path, **settings)
    store = StageStore(tmp_path / "runs" / "stages")
    assert [search.ask().number for _ in range(2)] == [0, 1]
    average = trial_stages(search.config(search.records[1]), toy_data()).weights
    assert average.kind == "average" and set(average.inputs) == {"w0", "w1"}
    for role, endpoint in average.inputs.items():
        if role != lacking:  # and of what they stand on nothing is there: nothing needs it
            finish(endpoint, store)
    assert search.reached(0, at_rung(0.5, 0.9))
    assert search.reached(1, at_rung(0.5, 0.1)) == (lacking is None)
    assert search.records[1].state == ("running" if lacking is None else "pruned")
    assert len(search.records[1].rungs) == 1  # it is compared with all the same


def test_a_trial_that_is_handed_out_again_goes_on_where_it_went_on(tmp_path: Path) -> None:
    def ask_six(search: Any) -> None:
        while search.ask().number < 6:
            pass

    search = stopping_search(tmp_path)
    ask_six(search)
    assert search.reached(5, at_rung(0.25, 0.2))  # the first there
    assert search.reached(6, at_rung(0.25, 0.9))
    again = stopping_search(tmp_path)
    ask_six(again)
    assert again.reached(5, at_rung(0.25, 0.2)), "by what it knew then, not by who came after"
    assert [len(record.rungs) for record in again.records[5:7]] == [1, 1]


def test_one_at_a_time_an_interrupted_search_stops_the_same_trials(tmp_path: Path) -> None:
    def outcome(folder: Path, restart: bool) -> list[Any]:
        search = stopping_search(folder, search__sampler="tpe", search__objectives=["score"])
        while (assignment := search.ask()) is not None:
            number = assignment.number
            height = float(assignment.trial["align"]["mixture"]["shares"]["scenes"])
            if search.reached(number, at_rung(0.25, height)):
                if restart:
                    search = stopping_search(folder, search__sampler="tpe")
                    assert search.ask().number == number
                    assert search.reached(number, at_rung(0.25, height))
                if search.reached(number, at_rung(0.5, 1 - height)):
                    search.complete(number, {"low": height}, {})
        return [(record.values, record.state, record.reason) for record in search.records]

    whole = outcome(tmp_path / "whole", False)
    assert outcome(tmp_path / "cut", True) == whole
    assert {"pruned", "complete"} <= {state for _, state, _ in whole}


def test_with_several_objectives_stopped_trials_are_told_too(tmp_path: Path) -> None:
    """Optuna's own trial.report refuses them (optuna#3450)."""
    search = stopping_search(
        tmp_path, search__sampler="tpe", search__objectives=["score", "gpu_hours"]
    )
    states = []
    while (assignment := search.ask()) is not None:
        number = assignment.number
        height = float(assignment.trial["align"]["mixture"]["shares"]["scenes"])
        if search.reached(number, at_rung(0.25, height)):
            search.complete(number, {"low": height}, {})
        states.append(search.records[number].state)
    assert len(states) == 9 and {"pruned", "complete"} <= set(states)
