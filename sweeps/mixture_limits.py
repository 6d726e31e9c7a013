"""What the data say about the shares that a space may suggest: who is in them, how often drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from search_spaces.parameters import Values
from search_spaces.simplex_parameter import SimplexParameter
from search_spaces.space import ChoiceParameter, IntParameter, Space
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset

DECIDE_REPETITION = (
    "epochs",
    "clips_per_epoch",
    "mixture.max_repetition",
    "mixture.match_repetition",
)


def limited(space: Space, trial: TrialConfig, data: Mapping[str, Dataset], file: str) -> Space:
    """The space with groups given by `humans` named, and no share past its `max_repetition`.

    Raises:
        ValueError: the limits, or the cap with some number of epochs, cannot be kept.
    """
    humans = {name: dataset.humans for name, dataset in data.items()}
    parameters = dict(space.parameters)
    for path, parameter in space.parameters.items():
        if isinstance(parameter, SimplexParameter):
            try:
                parameters[path] = parameter.with_humans(humans)
            except ValueError as error:
                raise ValueError(f"{file}.{path}: {error}") from None
    sizes = {name: len(dataset.split("train")) for name, dataset in data.items()}
    trial_values = trial.model_dump(mode="json")

    def caps(path: str, values: Values) -> dict[str, float]:
        decided = {key: _setting(trial_values, values, key) for key in _deciding(path)}
        return _most(parameters[path], decided, sizes)

    capped = replace(space, parameters=parameters, caps=caps)
    for path, parameter in parameters.items():
        if isinstance(parameter, SimplexParameter):
            _check(capped, path, file)
    return capped


def _deciding(path: str) -> list[str]:
    """The settings that decide how often a mixture's clips are drawn, in their order."""
    stage, _, what = path.partition(".")
    return [f"{stage}.{key}" for key in DECIDE_REPETITION] if what == "mixture.shares" else []


def _most(parameter: Any, decided: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, float]:
    """Source -> the most of its share that draws no clip more often than the cap says."""
    if not decided:  # an endpoint's mixture: its repetition is checked when its trial is known
        return {}
    epochs, clips_per_epoch, cap, matched = decided.values()
    # Matched, repetition is the same whatever the shares are; `sum_of_sources` depends on them all.
    if cap is None or matched or not epochs or not isinstance(clips_per_epoch, int):
        return {}
    drawn = epochs * clips_per_epoch
    return {source: math.floor(cap * sizes[source]) / drawn for source in parameter.over}


def _check(space: Space, path: str, file: str) -> None:
    """Raises ValueError where values of other parameters leave the simplex nothing."""
    deciding = [
        (key, parameter.lattice(key))
        for key in _deciding(path)
        if isinstance(parameter := space.parameters.get(key), IntParameter | ChoiceParameter)
    ]
    for combination in product(*(values for _, values in deciding)):
        values = dict(zip((key for key, _ in deciding), combination, strict=True))
        try:
            space.at(path, values)
        except ValueError as error:
            beside = "".join(f" with {key} {value}," for key, value in values.items())
            raise ValueError(
                f"{file}.{path}:{beside} max_repetition leaves no mixture: {error}, raise "
                "max_repetition, or train less"
            ) from None


def _setting(trial: Mapping[str, Any], values: Values, key: str) -> Any:
    if key in values:
        return values[key]
    at: Any = trial
    for part in key.split("."):
        if at is None:  # mae: null
            return None
        at = at[part]
    return at
