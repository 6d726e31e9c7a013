"""What may vary in a trial: parameters by their dotted path, from YAML, to values and back.

    parameters:
      average.method: {type: choice, values: [none, interpolate]}
      average.coefficient: {type: float, low: 0.0, high: 1.0, when: {average.method: interpolate}}
      align.mixture.shares: {type: simplex, over: [synthetic, scenes], step: 0.05}

`when` names earlier parameters and the value, or the list of values, that they must have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel

from search_spaces.parameters import (
    ChoiceParameter,
    FloatParameter,
    IntParameter,
    Params,
    Scalar,
    Suggest,
    Values,
)
from search_spaces.simplex_parameter import SimplexParameter
from trainables.settings import check_setting, load_yaml, nearest, parse

Parameter: TypeAlias = FloatParameter | IntParameter | ChoiceParameter | SimplexParameter
KINDS: dict[str, type[Parameter]] = {
    "float": FloatParameter,
    "int": IntParameter,
    "choice": ChoiceParameter,
    "simplex": SimplexParameter,
}
# The most that sources may have, from the path of a simplex and the values of all else.
Caps: TypeAlias = Callable[[str, Values], Mapping[str, float]]


@dataclass(frozen=True)
class Space:
    """Parameters by dotted path. Simplexes are chosen last: what they may be depends on the rest.

    `caps` limit the shares beside the limits of the space file.
    """

    parameters: Mapping[str, Parameter]
    caps: Caps | None = None
    _capped: dict[Any, SimplexParameter] = field(default_factory=dict, init=False, compare=False)

    def order(self) -> list[str]:
        """The paths in the order in which they are chosen."""
        return sorted(
            self.parameters, key=lambda path: isinstance(self.parameters[path], SimplexParameter)
        )

    def at(self, path: str, values: Values) -> Parameter:
        """The parameter as it is beside these values of those chosen before it.

        Raises:
            ValueError: the caps leave a simplex nothing.
        """
        parameter = self.parameters[path]
        if self.caps is None or not isinstance(parameter, SimplexParameter):
            return parameter
        caps = self.caps(path, values)
        key = (path, *sorted(caps.items()))
        if key not in self._capped:
            self._capped[key] = parameter.at_most(caps)
        return self._capped[key]


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


def shuffled(space: Space, key: str) -> Space:
    """The space with the sources of each simplex in an order that depends on `key` alone.

    Shares are drawn one source after another, which a model of the numbers drawn sees: in an order
    that changes from draw to draw, no source stands first more often than another.
    """
    return replace(
        space,
        parameters={
            path: each.reordered(sorted(each.over, key=lambda source: _order(f"{key} {source}")))
            if isinstance(each, SimplexParameter)
            else each
            for path, each in space.parameters.items()
        },
    )


def _order(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def sample(space: Space, suggest: Suggest) -> Values:
    """The values of one point; a parameter whose condition does not hold is left out."""
    values: Values = {}
    for path in space.order():
        if space.parameters[path].holds(values):
            values[path] = space.at(path, values).suggest(path, suggest)
    return {path: values[path] for path in space.parameters if path in values}


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
    for path in space.order():
        if not space.parameters[path].holds(kept):
            continue
        if path not in values:
            raise ValueError(f"{path}: the point has no value for it")
        params |= space.at(path, kept).encode(path, values[path])
        kept[path] = values[path]
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
