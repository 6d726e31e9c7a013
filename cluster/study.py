"""What the cluster needs of a search. No Ray here: a plan is made without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial to run. `trial`: a TrialConfig as JSON values."""

    number: int
    trial: dict[str, Any]
    name: str | None
    may_stop: bool


class Study(Protocol):
    """What decides on trials and remembers them. Called from one thread."""

    def ask(self) -> Assignment | None:
        """The next trial; None when there are no more."""

    def progress(self, number: int, point: Mapping[str, Any]) -> None:
        """`point` has `epoch` and `heldout_accuracy`, the mean over the sweep's sources."""

    def complete(
        self, number: int, accuracies: Mapping[str, float], stages: Mapping[str, str]
    ) -> None:
        """Top-1 per downstream dataset; identities of the stages that gave it, by role."""

    def failed(self, number: int, reason: str) -> None: ...

    def pruned(self, number: int, reason: str) -> None: ...


class EarlyStopping(Protocol):
    """Successive halving from `grace_epochs` on: 1 in `reduction_factor` goes on at each rung."""

    @property
    def grace_epochs(self) -> int: ...
    @property
    def reduction_factor(self) -> int: ...
