"""How settings are read: strict, frozen, an unknown key is an error that names the nearest."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """Frozen, keyword-only, checked on construction; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=BaseModel)


def parse(kind: type[S], data: Any, where: str) -> S:
    """`data` (from YAML or JSON) as a `kind`.

    Raises:
        ValueError: one line for each thing wrong, each naming the dotted key under `where`.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_explain(kind, detail, where) for detail in error.errors()]
        raise ValueError("\n".join(dict.fromkeys(lines))) from None


def _explain(kind: type[BaseModel], detail: Any, where: str) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join([where, *location]) if where else ".".join(location)
    if detail["type"] == "extra_forbidden":
        siblings = _fields_at(kind, location[:-1])
        return f"{key}: unknown key{nearest(location[-1], siblings)}"
    if detail["type"] == "missing":
        return f"{key}: missing; every setting that decides the result is written down"
    message = detail["msg"].removeprefix("Value error, ")
    if not location:
        return f"{where}: {message}" if where else message
    if isinstance(detail["input"], dict):  # a section whole: the message says what is wrong in it
        return f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}, got {detail['input']!r}"


def nearest(word: str, valid: list[str]) -> str:
    """' (did you mean …?)' or the valid words, to end an error message with."""
    close = difflib.get_close_matches(word, valid, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid are {', '.join(sorted(valid))}"


def _fields_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        below = _settings_below(kind, part)
        if below is None:
            return []
        kind = below
    return list(kind.model_fields)


def _settings_below(kind: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The Settings class of field `name`, seen through `X | None`."""
    field = kind.model_fields.get(name)
    if field is None:
        return None
    options = getattr(field.annotation, "__args__", None) or (field.annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def check_setting(kind: type[BaseModel], path: str) -> None:
    """Raises ValueError, naming the nearest, if `path` ('align.mixture.shares') is no setting."""
    current: type[BaseModel] | None = kind
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if current is None:  # below a leaf: only a mapping (shares.synthetic) can go deeper
            raise ValueError(f"{path}: {'.'.join(parts[:depth])} has no settings below it")
        if part not in current.model_fields:
            shown = [".".join([*parts[:depth], name]) for name in current.model_fields]
            wrong = ".".join(parts[: depth + 1])
            raise ValueError(f"{path}: no such setting{nearest(wrong, shown)}")
        current = _settings_below(current, part)


def with_overrides(data: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested `data` with each dotted path set to its value (paths are not checked)."""
    result = dict(data)
    for path, value in overrides.items():
        head, _, rest = path.partition(".")
        if rest:
            below = result.get(head)
            result[head] = with_overrides(below if isinstance(below, dict) else {}, {rest: value})
        else:
            result[head] = value
    return result


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 floats (1e-3 is a number) and duplicate keys refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"  # `<<: *anchor`, whose keys may be set otherwise here
        own = [key for key, _ in node.value if key.tag != merge]
        keys = [self.construct_object(key, deep=True) for key in own]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice; keep one", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError if it cannot be read or is no mapping."""
    try:
        data = yaml.load(path.read_text(), Loader=_Loader)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds no mapping; it must be 'key: value' lines")
    return data


def parse_yaml_value(text: str) -> Any:
    """A scalar or flow value as it would read in the file, for `--set key=VALUE`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not a YAML value: {error}") from None
