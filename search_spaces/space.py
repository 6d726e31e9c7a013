"""What may vary in a trial: parameters by their dotted path, from YAML, to values and back.

    parameters:
      average.method: {type: choice, values: [none, interpolate]}
      average.coefficient: {type: float, low: 0.0, high: 1.0, when: {average.method: interpolate}}
      align.mixture.shares: {type: simplex, over: [synthetic, scenes], step: 0.05}

`when` names earlier parameters and the value, or the list of values, that they must have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from search_spaces.parameters import (
    KINDS,
    ChoiceParameter,
    IntParameter,
    Parameter,
    Params,
    Scalar,
    Suggest,
    Values,
)
from trainables.settings import check_setting, load_yaml, nearest, parse


@dataclass(frozen=True)
class Space:
    """Parameters by dotted path, in the order in which they are chosen."""

    parameters: Mapping[str, Parameter]


def load_space(path: Path) -> Space:
    """The search space in a YAML file. Raises ValueError as `parse_space` does."""
    return parse_space(load_yaml(path), where=path.name)


def parse_space(data: Mapping[str, Any], where: str) -> Space:
    """A search space from `{"parameters": {path: {type: ..., ...}}}`.

    Raises:
        ValueError: a key, type, range or condition is wrong; names it after `where`.
    """
    for key in data:
        if key != "parameters":
            raise ValueError(f"{where}.{key}: unknown key{nearest(str(key), ['parameters'])}")
    entries = data.get("parameters")
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{where}: names no parameters; give 'parameters: {{path: ...}}'")
    parameters: dict[str, Parameter] = {}
    for path, entry in entries.items():
        parameters[path] = _parse_parameter(entry, f"{where}.{path}")
        for other in parameters:
            if path.startswith(f"{other}.") or other.startswith(f"{path}."):
                raise ValueError(f"{where}.{path}: overlaps with {other}; keep one of the two")
    space = Space(parameters)
    for path in parameters:
        _check_conditions(space, path, where)
    return space


def sample(space: Space, suggest: Suggest) -> Values:
    """The values of one point; a parameter whose condition does not hold is left out."""
    values: Values = {}
    for path, parameter in space.parameters.items():
        if parameter.holds(values):
            values[path] = parameter.suggest(path, suggest)
    return values


def encode(space: Space, values: Mapping[str, Any]) -> Params:
    """The internal parameters that `sample` makes `values` from: its inverse.

    Values of parameters whose condition does not hold are ignored, as the trial ignores them.

    Raises:
        ValueError: the point does not lie in the space.
    """
    for path in values:
        if path not in space.parameters:
            hint = nearest(path, list(space.parameters))
            raise ValueError(f"{path}: is no parameter of the search space{hint}")
    params: Params = {}
    kept: Values = {}
    for path, parameter in space.parameters.items():
        if not parameter.holds(kept):
            continue
        if path not in values:
            raise ValueError(f"{path}: the point has no value for it")
        kept[path] = values[path]
        params |= parameter.encode(path, values[path])
    return params


def check_paths(space: Space, kind: type[BaseModel]) -> None:
    """Raises ValueError, naming the nearest, if a path is no setting of `kind` (TrialConfig)."""
    for path in space.parameters:
        check_setting(kind, path)


def requirements(space: Space, path: str) -> dict[str, tuple[Scalar, ...]]:
    """The values that earlier parameters must have for `path` to exist, through all conditions."""
    allowed: dict[str, tuple[Scalar, ...]] = {}
    pending = [path]
    while pending:
        for earlier, values in space.parameters[pending.pop()].when.items():
            both = allowed.get(earlier, values)
            allowed[earlier] = tuple(value for value in both if value in values)
            pending.append(earlier)
    return allowed


def _parse_parameter(entry: Any, where: str) -> Parameter:
    kind = entry.get("type") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(str(kind), list(KINDS)) if kind else f"; valid are {', '.join(KINDS)}"
        raise ValueError(f"{where}: type {kind!r} is no kind of parameter{hint}")
    return parse(KINDS[kind], entry, where)


def _check_conditions(space: Space, path: str, where: str) -> None:
    names = list(space.parameters)
    for earlier, values in space.parameters[path].when.items():
        subject = f"{where}.{path}.when.{earlier}"
        if earlier not in space.parameters:
            raise ValueError(f"{subject}: is no parameter{nearest(earlier, names)}")
        if names.index(earlier) >= names.index(path):
            raise ValueError(f"{subject}: stands later in the file; move it above {path}")
        parameter = space.parameters[earlier]
        if not isinstance(parameter, ChoiceParameter | IntParameter):
            raise ValueError(f"{subject}: is a {parameter.type}; conditions need a choice or int")
        possible = parameter.lattice(earlier)
        for value in values:
            if value not in possible:
                hint = nearest(str(value), [str(known) for known in possible])
                raise ValueError(f"{subject}: never is {value!r}{hint}")
    for earlier, values in requirements(space, path).items():
        if not values:
            raise ValueError(f"{where}.{path}.when: no value of {earlier} lets it hold; remove it")
