"""What happened to the stages of a sweep, in order."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from trainables.stage import Stage

RUNNING = ("started", "progress", "retry")


class StageEvents:
    """Events as they are told to the terminal and MLflow; the last of each stage is its state."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        # Above all numbers of an earlier life of the actor, for who asks from one of those on.
        self._first = int(1000 * time.time())
        self._last: dict[str, dict[str, Any]] = {}  # identity -> its last event
        self._started: dict[str, dict[str, Any]] = {}  # identity -> its last "started"

    def tell(self, stage: Stage, state: str, trials: Iterable[int], **details: Any) -> None:
        event = {
            "identity": stage.identity,
            "kind": stage.kind,
            "state": state,
            "trials": sorted(trials),
            "time": time.time(),
            **details,
        }
        self._events.append(event)
        self._last[stage.identity] = event
        if state == "started":
            self._started[stage.identity] = event

    def since(self, number: int) -> tuple[list[dict[str, Any]], int]:
        """What happened from event `number` on, 0 for all, and the number to ask from next."""
        return self._events[max(0, number - self._first) :], self._first + len(self._events)

    def running(self) -> list[dict[str, Any]]:
        """The last event of each stage that runs; `since` when its attempt does, with how many."""
        return [
            {**event, **{key: began[key] for key in ("attempt", "workers")}, "since": began["time"]}
            for identity, event in self._last.items()
            if event["state"] in RUNNING
            for began in [self._started[identity]]
        ]

    def queued(self) -> list[dict[str, Any]]:
        """The last event of each stage that waits."""
        return [event for event in self._last.values() if event["state"] == "queued"]
