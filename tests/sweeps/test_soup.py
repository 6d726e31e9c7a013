from __future__ import annotations

from typing import Any

import pytest

from sweeps.searching.soup import FinishedTrial, differences, soup_of
from tests.toy import MIXUP, toy_data, toy_trial
from trainables.config import TrialConfig
from trainables.settings import parse, with_overrides
from trainables.stage import Stage
from trainables.trial import trial_stages

DATA = toy_data()


def finished(*given: tuple[float | None, dict[str, Any]]) -> list[FinishedTrial]:
    return [
        FinishedTrial(number=number, trial=toy_trial(**overrides), score=score)
        for number, (score, overrides) in enumerate(given)
    ]


def shares(synthetic: float) -> dict[str, Any]:
    return {"align__mixture__shares": {"synthetic": synthetic, "scenes": 1 - synthetic}}


def aligned(trial: TrialConfig) -> Stage:
    return trial_stages(trial, DATA).weights


def test_the_soup_is_made_of_the_alignments_that_were_scored_best_first() -> None:
    trials = finished(
        (0.5, shares(0.25)),
        (0.7, {**shares(0.75), "align__epochs": 3, "align__optimizer__lr_peak": 2e-3}),
        (0.6, {**shares(0.75), "align__mixup": MIXUP, "align__keep__last": 1}),
    )
    soup = soup_of(trials, DATA)
    assert (soup.base, soup.members, soup.refused) == (1, [1, 2, 0], [])
    assert soup.values["average.endpoints"][0] == {}
    assert soup.values["average.endpoints"][1] == {
        "epochs": 2,
        "mixup": MIXUP,
        "keep.last": 1,
        "optimizer.lr_peak": 1e-3,
    }
    base = trials[1].trial.model_dump(mode="json")
    trial = parse(TrialConfig, with_overrides(base, soup.values), "")
    stage = trial_stages(trial, DATA).weights
    assert stage.kind == "greedy_soup"
    assert [stage.inputs[f"w{i}"].identity for i in range(3)] == [
        aligned(trials[number].trial).identity for number in soup.members
    ]


def test_a_soup_of_twice_the_trials_takes_twice_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    endpoint = TrialConfig.endpoint
    monkeypatch.setattr(TrialConfig, "endpoint", lambda t, i: asked.append(i) or endpoint(t, i))

    def work(count: int) -> int:
        rates = [{"align__optimizer__lr_peak": (n + 1) / 1000} for n in range(count)]
        trials = finished(*((n / count, rate) for n, rate in enumerate(rates)))
        asked.clear()
        assert len(soup_of(trials, DATA).members) == count
        return len(asked)

    assert work(20) <= 2.5 * work(10)


def test_a_trial_that_does_not_fit_is_refused_with_its_reason() -> None:
    soup = soup_of(
        finished(
            (0.9, shares(0.5)),
            (None, shares(0.25)),
            (0.5, {**shares(0.25), "mae__epochs": 2}),
            (0.5, {**shares(0.25), "seed": 1}),
            (0.5, {**shares(0.25), "average__method": "uniform"}),
            (0.5, {**shares(0.25), "model__vit__tubelet": "linear"}),
            (0.5, {**shares(0.25), "align__epochs": 0}),
            (0.8, {**shares(0.5), "probe__l2_grid": [2.0]}),
            (0.4, shares(0.75)),
        ),
        DATA,
    )
    assert soup.members == [0, 8]
    assert soup.refused == [
        (1, "did not complete"),
        (2, "another MAE ancestor"),
        (3, "another MAE ancestor"),
        (4, "already an average"),
        (5, "another model or clip"),
        (6, "was not aligned"),
        (7, "has the alignment of trial 0"),
    ]


def test_the_best_trial_s_start_decides_though_it_is_an_average_itself() -> None:
    trials = finished(
        (0.6, {**shares(0.25), "mae__epochs": 2}),
        (0.5, shares(0.25)),
        (0.9, {**shares(0.5), "average__method": "uniform"}),
        (0.7, shares(0.75)),
        (1.0, {"align__epochs": 0}),
    )
    soup = soup_of(trials, DATA)
    assert (soup.base, soup.members) == (2, [3, 1])
    assert [set(endpoint) for endpoint in soup.values["average.endpoints"]] == [
        {"mixture.shares"},
        {"mixture.shares"},
    ]


def test_of_equal_scores_the_earlier_trial_comes_first() -> None:
    soup = soup_of(finished((0.5, shares(0.25)), (0.5, shares(0.75))), DATA)
    assert (soup.base, soup.members) == (0, [0, 1])


def test_one_alignment_makes_no_soup() -> None:
    soup = soup_of(finished((0.5, {}), (0.4, {"probe__l2_grid": [2.0]})), DATA)
    assert (soup.members, soup.values) == ([0], {})
    nothing = soup_of(finished((None, {}), (0.4, {"align__epochs": 0})), DATA)
    assert (nothing.base, nothing.members, nothing.values) == (None, [], {})
    assert nothing.refused == [(0, "did not complete"), (1, "was not aligned")]


def test_an_alignment_that_would_become_another_one_in_the_soup_is_refused() -> None:
    # Under match_repetition the clips that are kept depend on all the sources that are named.
    both: dict[str, Any] = {"average__endpoints": [], "align__mixture__match_repetition": True}
    one = {"align__mixture__shares": {"synthetic": 1}}
    trials = finished(
        (0.9, {**both, **shares(0.5)}), (0.8, both | one), (0.7, {**both, **shares(1)})
    )
    soup = soup_of(trials, DATA)
    assert soup.members == [0, 2]
    assert [number for number, _ in soup.refused] == [1]
    assert "match_repetition" in soup.refused[0][1]


def test_settings_that_differ_are_named_by_dotted_paths_and_mappings_come_whole() -> None:
    one, other = (toy_trial(**shares(share)).align for share in (0.25, 0.5))
    assert differences(one, one) == {}
    assert differences(one, other) == {"mixture.shares": {"synthetic": 0.25, "scenes": 0.75}}
