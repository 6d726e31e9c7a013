"""Numbers and choices: how each is suggested, encoded and enumerated. Knows no sampler.

What a sampler draws are internal parameters: the name and value of the setting. (A simplex is
several, see simplex_parameter.py.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Protocol, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from trainables.settings import Settings

Scalar: TypeAlias = bool | int | float | str | None
Values: TypeAlias = dict[str, Any]  # dotted path -> value; a simplex is a dict source -> share
Params: TypeAlias = dict[str, Scalar]  # sampler's name -> value
Finite = Annotated[float, Field(allow_inf_nan=False)]
Scalars = Annotated[
    tuple[Scalar, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list | tuple) else (value,)),
    Field(min_length=1),
]
Listed = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


def exact(value: Any) -> Decimal:
    """The decimal that a number prints as."""
    return Decimal(str(value))


class Suggest(Protocol):
    """Draws internal parameters; an Optuna trial is one."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class ConditionalParameter(Settings):
    when: dict[str, Scalars] = Field(default_factory=dict)  # earlier path -> values it must have

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the parameter exists beside these values of earlier ones."""
        return all(path in values and values[path] in ok for path, ok in self.when.items())


class FloatParameter(ConditionalParameter):
    """low <= value <= high; with `step`, low + n step; `grid` serves the grid sampler only."""

    type: Literal["float"]
    low: Finite
    high: Finite
    log: bool = False
    step: Finite | None = None
    grid: Annotated[tuple[Finite, ...], Listed, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}; swap them")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log parameter needs low > 0 and has no step; give 'grid' instead")
        if self.step is not None and (
            self.step <= 0 or (exact(self.high) - exact(self.low)) % exact(self.step)
        ):
            raise ValueError(f"step {self.step} does not divide high - low; choose one that does")
        if self.grid and not all(self.low <= value <= self.high for value in self.grid):
            raise ValueError(f"grid {list(self.grid)} leaves [{self.low}, {self.high}]; widen it")
        return self

    def suggest(self, path: str, suggest: Suggest) -> float:
        value = suggest.suggest_float(path, self.low, self.high, step=self.step, log=self.log)
        if self.step is not None:
            return self._steps()[round((value - self.low) / self.step)]
        return min(max(value, self.low), self.high)  # exp(log(low)) may fall short of low

    def encode(self, path: str, value: Any) -> Params:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: {value!r} is not a number")
        if not self.low <= value <= self.high or (self.step and value not in self._steps()):
            raise ValueError(f"{path}: {value} is not in the search space")
        return {path: float(value)}

    def edges(self) -> list[Any]:
        return [self.low, self.high]

    def lattice(self, path: str) -> list[Any]:
        if self.grid is None and self.step is None:
            raise ValueError(f"{path}: the grid sampler needs 'step' or 'grid: [...]' on a float")
        return list(self.grid) if self.grid is not None else self._steps()

    def _steps(self) -> list[float]:
        # Decimal, so that 0.15 is 0.15 (not 3 * 0.05) however it was suggested: values are hashed.
        assert self.step is not None
        low, step = exact(self.low), exact(self.step)
        return [float(low + n * step) for n in range(int((exact(self.high) - low) / step) + 1)]


class IntParameter(ConditionalParameter):
    type: Literal["int"]
    low: int
    high: int
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}; swap them")
        if (self.high - self.low) % self.step:
            raise ValueError(f"step {self.step} does not divide high - low; choose one that does")
        return self

    def suggest(self, path: str, suggest: Suggest) -> int:
        return suggest.suggest_int(path, self.low, self.high, step=self.step)

    def encode(self, path: str, value: Any) -> Params:
        if isinstance(value, bool) or value not in self.lattice(path):
            raise ValueError(f"{path}: {value!r} is not in the search space")
        return {path: int(value)}

    def edges(self) -> list[Any]:
        return [self.low, self.high]

    def lattice(self, path: str) -> list[Any]:
        return list(range(self.low, self.high + 1, self.step))


class ChoiceParameter(ConditionalParameter):
    type: Literal["choice"]
    values: Annotated[tuple[Scalar, ...], Listed, Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"values {list(self.values)} repeats one; keep one of each")
        return self

    def suggest(self, path: str, suggest: Suggest) -> Any:
        return suggest.suggest_categorical(path, self.values)

    def encode(self, path: str, value: Any) -> Params:
        if value not in self.values:
            raise ValueError(f"{path}: {value!r} is not in the search space")
        return {path: self.values[self.values.index(value)]}

    def edges(self) -> list[Any]:
        return list(self.values)

    def lattice(self, path: str) -> list[Any]:
        return list(self.values)
