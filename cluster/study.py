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


@dataclass(frozen=True, kw_only=True)
class RungPoint:
    """How a trial stands when a part of its alignment is done."""

    rung: float  # that part, above 0 and below 1
    accuracies: Mapping[str, float]  # probes' top-1 per downstream dataset, mean over endpoints
    # Of its pre-training to the end as if it shared no stage, foreseen from what is done of it.
    device_seconds: float


class Study(Protocol):
    """What decides on trials and remembers them. Called from one thread."""

    def ask(self) -> Assignment | None:
        """The next trial; None when there are no more."""

    def reached(self, number: int, point: RungPoint) -> bool:
        """Whether the trial may go on; if not, it is stopped, and the study has put it down so.

        A trial that is handed out again comes to the same points again, and may go on.
        """

    def complete(
        self, number: int, accuracies: Mapping[str, float], stages: Mapping[str, str]
    ) -> None:
        """Top-1 per downstream dataset; identities of the stages that gave it, by role."""

    def failed(self, number: int, reason: str) -> None: ...
