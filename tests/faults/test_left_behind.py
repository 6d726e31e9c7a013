"""That a placement group which a fault has leaked is seen; with a scripted cluster: no Ray runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import disturbed
from tests.faults.disturbed import DisturbedSweep
from tests.faults.ray_nodes import RayNodes


class ScriptedNodes(RayNodes):
    """Answers as Ray's state API does."""

    def __init__(self, groups: dict[str, Any], looks: list[dict[str, str]]) -> None:
        self.groups, self.looks = (
            groups,
            looks,
        )  # and their actors, at each look

    def ask(self, what: str) -> list[dict[str, Any]]:
        if what == "placement_groups":
            return [
                {"placement_group_id": name, "state": state, "bundles": [{"unit_resources": held}]}
                for name, (state, held) in self.groups.items()
            ]
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        actors = [{"placement_group_id": name, "state": state} for name, state in look.items()]
        return [*actors, {"placement_group_id": None, "state": "ALIVE"}]


TRIAL = ("CREATED", {"memory": 1.0})
GANG = ("CREATED", {"CPU": 1.0})
STARTING = ("PENDING", {"CPU": 1.0})


@pytest.fixture(autouse=True)
def five_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    def until(true: Callable[[], bool], seconds: float) -> None:
        assert any(true() for _ in range(5))

    monkeypatch.setattr(disturbed, "until", until)


def look(groups: dict[str, Any], *looks: dict[str, str]) -> None:
    cluster = ScriptedNodes(groups, [*looks])
    DisturbedSweep(Path("/nowhere/sweep.yaml"), cluster).every_group_has_workers()


def test_what_runs_what_starts_and_what_is_given_back_is_nothing_left_behind() -> None:
    look({"trial": TRIAL, "a": GANG, "old": ("REMOVED", {"CPU": 1.0})}, {"a": "ALIVE"})
    look({"a": GANG, "b": STARTING}, {"a": "ALIVE"}, {"a": "ALIVE", "b": "ALIVE"})


@pytest.mark.parametrize("leaked", [GANG, STARTING, ("RESCHEDULING", {"GPU": 1.0})])
def test_a_group_that_stays_without_a_living_worker_is_seen(leaked: Any) -> None:
    with pytest.raises(AssertionError):
        look({"trial": TRIAL, "a": GANG, "leaked": leaked}, {"a": "ALIVE", "leaked": "DEAD"})
