from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_spaces.points import grid
from search_spaces.space import load_space
from search_spaces.study import Study
from sweeps.checks import within_limits
from sweeps.mixture_limits import limited
from sweeps.planning.stage_facts import excess_repetition
from sweeps.searching.given import given_trials
from sweeps.sweep import Sweep
from tests.toy import toy_data, write_toy_sweep

SHARES = "align.mixture.shares"
SIMPLEX = {"type": "simplex", "over": ["synthetic", "scenes"], "step": 0.05}


def limited_toy(folder: Path, simplex: dict[str, Any], more: Any = (), **overrides: Any):
    space = {"parameters": {SHARES: {**SIMPLEX, **simplex}, **dict(more)}}
    sweep = Sweep(write_toy_sweep(folder, space, **overrides), {})
    return sweep, limited(load_space(sweep.space_file), sweep.settings.trial, toy_data(), "s.yaml")


def test_a_group_may_be_all_sources_with_the_same_humans(tmp_path: Path) -> None:
    _, space = limited_toy(tmp_path, {"groups": [{"humans": "virtual", "max": 0.4, "min": 0.1}]})
    assert [values[SHARES]["synthetic"] for values in grid(space)] == [
        0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1,
    ]  # fmt: skip
    with pytest.raises(ValueError, match=f"s.yaml.{SHARES}: .*humans: none', which no source"):
        limited_toy(tmp_path, {"groups": [{"humans": "none"}]})
    with pytest.raises(ValueError, match="'synthetic' has 0.3 at least and 0.2 at most"):
        limited_toy(tmp_path, {"groups": [{"humans": "virtual", "min": 0.3, "max": 0.2}]})


@pytest.mark.parametrize("sampler", ["cost_aware", "tpe", "random", "grid"])
def test_no_share_is_suggested_past_max_repetition_whatever_the_epochs(
    tmp_path: Path, sampler: str
) -> None:
    # 8 clips an epoch of 8 scenes and 16 synthetic ones: 3 epochs draw 24, scenes at most 12.
    epochs = {"align.epochs": {"type": "int", "low": 1, "high": 3}}
    cap = {"trial__align__mixture__max_repetition": 1.5, "search__seed": 1}
    sweep, space = limited_toy(tmp_path, {}, epochs, **cap)
    study = Study(space, sampler=sampler, seed=1, startup_trials=4)
    most = {1: 0.0, 2: 0.0, 3: 0.0}
    for _ in range(60 if sampler == "grid" else 16):
        if (trial := study.ask()) is None:
            break
        assert not excess_repetition(sweep.trial_with(trial.values, ""), toy_data())
        scenes = trial.values[SHARES]["scenes"]
        most[trial.values["align.epochs"]] = max(most[trial.values["align.epochs"]], scenes)
        study.tell(trial.number, "complete", [scenes])
    assert most[3] <= 0.5 and max(most[1], most[2]) > 0.5
    if sampler == "grid":
        assert most == {1: 1.0, 2: 0.75, 3: 0.5}


def test_a_cap_that_leaves_no_mixture_is_an_error_that_names_the_epochs(tmp_path: Path) -> None:
    epochs = {"align.epochs": {"type": "choice", "values": [1, 9]}}
    message = (
        "with align.epochs 9, max_repetition leaves no mixture: .* 1 at least and 0.45 at most"
    )
    with pytest.raises(ValueError, match=message):
        limited_toy(tmp_path, {}, epochs, trial__align__mixture__max_repetition=1.5)


def test_baselines_past_a_limit_are_left_out_and_said(tmp_path: Path) -> None:
    sweep, space = limited_toy(tmp_path, {"max": {"synthetic": 0.5}})
    given = given_trials(sweep, space, {"synthetic": 16, "scenes": 8})
    kept, left_out = within_limits(sweep, space, given, toy_data())
    assert [trial.name for trial in kept] == [
        "baseline: random weights",
        "baseline: scenes only",
        "baseline: equal",
    ]
    assert left_out == [
        f"baseline: {name} is left out: in the search space 'synthetic' has 0.5 at most."
        for name in ("synthetic only", "proportional")
    ]
