from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces.simplex_parameter import SimplexParameter
from search_spaces.space import Space, check_paths, encode, load_space, parse_space, sample
from trainables.config import TrialConfig

SPACES = Path(__file__).parents[2] / "search_spaces"

FULL: dict[str, Any] = {
    "mae.epochs": {"type": "int", "low": 0, "high": 8, "step": 2},
    "average.method": {"type": "choice", "values": ["none", "interpolate", None]},
    "average.coefficient": {
        "type": "float",
        "low": 0.0,
        "high": 1.0,
        "step": 0.05,
        "when": {"average.method": "interpolate"},
    },
    "align.mixture.shares": {"type": "simplex", "over": ["a", "b", "c"], "step": 0.05},
    "align.optimizer.lr_peak": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
}


def space_of(parameters: dict[str, Any]) -> Space:
    return parse_space({"parameters": parameters}, where="test.yaml")


class Uniform:
    """Draws uniformly, as a random sampler does, and keeps what it drew."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        if step is not None:  # as Optuna does it, floating-point noise included
            value = low + step * int(self.rng.integers(round((high - low) / step) + 1))
        elif log:
            value = float(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        else:
            value = float(self.rng.uniform(low, high))
        self.params[name] = value
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int:
        self.params[name] = int(self.rng.choice(range(low, high + 1, step)))
        return self.params[name]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.params[name] = choices[int(self.rng.integers(len(choices)))]
        return self.params[name]


class Replay:
    """Gives the stated internal parameters."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def suggest_float(self, name: str, *_: float, **__: Any) -> float:
        return self.params[name]

    def suggest_int(self, name: str, *_: int, **__: Any) -> int:
        return self.params[name]

    def suggest_categorical(self, name: str, _: Sequence[Any]) -> Any:
        return self.params[name]


def test_a_point_encodes_to_the_parameters_that_decode_to_it() -> None:
    space = space_of(FULL)
    for seed in range(300):
        values = sample(space, Uniform(seed))
        params = encode(space, values)
        assert sample(space, Replay(params)) == values
        assert encode(space, sample(space, Replay(params))) == params


@pytest.mark.parametrize("step", [None, 0.05, 0.0001, 0.125])
def test_shares_are_decimals_on_the_step_that_sum_to_exactly_1(step: float | None) -> None:
    space = space_of({"m": {"type": "simplex", "over": ["a", "b", "c", "d"], "step": step}})
    for seed in range(200):
        shares = [Decimal(str(share)) for share in sample(space, Uniform(seed))["m"].values()]
        assert sum(shares) == 1
        assert all(share % Decimal(str(step or 0.0001)) == 0 for share in shares)


def test_a_source_can_have_exactly_nothing_and_exactly_everything() -> None:
    simplex = space_of({"m": {"type": "simplex", "over": ["a", "b", "c"]}})
    for uniforms, shares in [
        ((1.0, 0.3), {"a": 1.0, "b": 0.0, "c": 0.0}),
        ((0.0, 1.0), {"a": 0.0, "b": 1.0, "c": 0.0}),
        ((0.0, 0.0), {"a": 0.0, "b": 0.0, "c": 1.0}),
    ]:
        params = dict(zip(["m[a]", "m[b]"], uniforms, strict=True))
        assert sample(simplex, Replay(params)) == {"m": shares}
        assert sample(simplex, Replay(encode(simplex, {"m": shares}))) == {"m": shares}


def test_a_stepped_value_is_the_decimal_it_reads_as() -> None:
    space = space_of({"c": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.05}})
    assert 3 * 0.05 != 0.15
    assert sample(space, Replay({"c": 3 * 0.05})) == {"c": 0.15}


def test_conditions_chain() -> None:
    space = space_of(
        {
            "a": {"type": "choice", "values": [1, 2, 3]},
            "b": {"type": "choice", "values": ["x", "y"], "when": {"a": [1, 2]}},
            "c": {"type": "int", "low": 0, "high": 1, "when": {"b": "y"}},
        }
    )
    seen = {tuple(sample(space, Uniform(seed))) for seed in range(100)}
    assert seen == {("a",), ("a", "b"), ("a", "b", "c")}
    # c's condition needs b to exist, not only to have been y before.
    assert encode(space, {"a": 3, "b": "y", "c": 1}) == {"a": 3}


def test_shares_of_a_point_may_be_text_decimals_or_left_out_when_zero() -> None:
    space = space_of({"m": {"type": "simplex", "over": ["a", "b"], "step": 0.05}})
    for shares in ({"a": "0.35", "b": "0.65"}, {"a": Decimal("0.35"), "b": 0.65}):
        assert encode(space, {"m": shares}) == encode(space, {"m": {"a": 0.35, "b": 0.65}})
    assert encode(space, {"m": {"a": 1}}) == encode(space, {"m": {"a": 1.0, "b": 0}})
    # Between two steps, as the share in proportion to size is.
    (low,), (between,), (high,) = (
        encode(space, {"m": {"a": a, "b": 1 - a}}).values() for a in (0.35, 0.3902, 0.4)
    )
    assert low < between < high


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"m": {"a": 0.5, "b": 0.6}, "x": 0.5}, "sum to 1"),
        ({"m": {"a": 1.5, "b": -0.5}, "x": 0.5}, "sum to 1"),
        ({"m": {"a": 0.5, "z": 0.5}, "x": 0.5}, "'z' is no source"),
        ({"m": "equal", "x": 0.5}, "not a mapping"),
        ({"m": {"a": 1}, "x": 0.52}, "x: 0.52 is not in"),
        ({"m": {"a": 1}}, "x: the point has no value"),
        ({"m": {"a": 1}, "x": 0.5, "xx": 1}, "xx: is no parameter.*did you mean 'x'"),
    ],
)
def test_a_point_outside_the_space_is_refused(values: dict[str, Any], message: str) -> None:
    space = space_of(
        {
            "m": {"type": "simplex", "over": ["a", "b"]},
            "x": {"type": "float", "low": 0, "high": 1, "step": 0.05},
        }
    )
    with pytest.raises(ValueError, match=message):
        encode(space, values)


A = {"type": "choice", "values": ["x", "y"]}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"a": {**A, "vlues": [1]}}, r"test.yaml.a.vlues: unknown key; did you mean 'values'"),
        ({"a": {"type": "chioce", "values": [1]}}, "did you mean 'choice'"),
        ({"a": {"values": [1]}}, "valid are float, int, choice, simplex"),
        ({"a": {"type": "choice", "values": []}}, "a.values"),
        ({"a": {"type": "choice", "values": [1, 1]}}, "repeats one"),
        ({"a": {"type": "float", "low": 1, "high": 0}}, "not below high"),
        ({"a": {"type": "float", "low": 0, "high": 1, "log": True}}, "low > 0"),
        ({"a": {"type": "float", "low": 0, "high": 1, "step": 0.3}}, "step 0.3 does not divide"),
        ({"a": {"type": "int", "low": 0, "high": 3, "step": 2}}, "step 2 does not divide"),
        ({"a": {"type": "float", "low": 0, "high": 1, "grid": [0, 2]}}, "leaves"),
        ({"a": {"type": "simplex", "over": ["x"]}}, "a.over"),
        ({"a": {"type": "simplex", "over": ["x", "x"]}}, "names a source twice"),
        ({"a": {"type": "simplex", "over": ["x", "y"], "step": 0.3}}, "does not divide 1"),
        ({"a": {"type": "simplex", "over": ["x", "y"], "step": 0.00005}}, "4 decimal places"),
        ({"abc": A, "b": {**A, "when": {"abd": "x"}}}, "no parameter; did you mean 'abc'"),
        ({"b": {**A, "when": {"a": "x"}}, "a": A}, "stands later in the file"),
        ({"a": A, "b": {**A, "when": {"a": "z"}}}, "never is 'z'"),
        (
            {"a": {"type": "float", "low": 0, "high": 1}, "b": {**A, "when": {"a": 0.5}}},
            "conditions need a choice or int",
        ),
        (
            {"a": A, "b": {**A, "when": {"a": "x"}}, "c": {**A, "when": {"a": "y", "b": "x"}}},
            "no value of a lets it hold",
        ),
        ({"a.b": A, "a.b.c": A}, "overlaps with a.b"),
        ({}, "names no parameters"),
    ],
)
def test_a_wrong_space_is_an_error_that_names_the_key(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        space_of(parameters)


def test_a_path_that_is_no_setting_is_an_error_that_names_the_nearest() -> None:
    space = space_of({"align.mixture.share": {"type": "simplex", "over": ["a", "b"]}})
    with pytest.raises(ValueError, match=r"did you mean 'align.mixture.shares'"):
        check_paths(space, TrialConfig)


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_space_of_the_repository_names_settings_that_exist(path: Path) -> None:
    space = load_space(path)
    check_paths(space, TrialConfig)
    for parameter_path, parameter in space.parameters.items():
        assert isinstance(parameter, SimplexParameter) == parameter_path.endswith(".shares")
