"""Devices on nodes, as a simulation has them: who holds which, and nodes that are taken back."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

NOTHING = 1e-9  # what sums of parts of a device are off by at most


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A cloud that takes nodes back, each `per_hour` times an hour by a Poisson process of its own.

    Another node is up in its place after `away_seconds`. A stage that ran there takes its next
    step `restart_seconds` after it has room again: workers, their imports, the checkpoint.
    """

    per_hour: float
    away_seconds: float
    restart_seconds: float
    seed: int


@dataclass
class _Node:
    devices: float
    free: float
    changes: float  # when it is taken back; if it is away, when another is there
    away: bool = False
    held: dict[str, float] = field(default_factory=dict)  # by task


class Nodes:
    """Without `spot` nothing befalls them."""

    def __init__(self, devices: Sequence[float], spot: Spot | None = None) -> None:
        self._spot = spot
        self._random = random.Random(None if spot is None else spot.seed)
        self._nodes = [_Node(each, each, self._taken_back(0.0)) for each in devices]
        self.taken_back = 0  # how often one was

    @property
    def free(self) -> float:
        return sum(node.free for node in self._nodes if not node.away)

    @property
    def next_change(self) -> float:
        """When the next node goes or comes, in seconds; infinite: never."""
        return min(node.changes for node in self._nodes)

    def take(self, name: str, devices: float) -> bool:
        """Whether there is room; then the task holds it: on the fullest node on which all of it
        fits, else on several, the emptiest first."""
        if devices > self.free + NOTHING:
            return False
        up = sorted((node for node in self._nodes if not node.away), key=lambda node: node.free)
        fits = [node for node in up if node.free + NOTHING >= devices]
        for node in fits[:1] or reversed(up):
            part = min(devices, node.free)
            if part > NOTHING or node in fits:
                node.free -= part
                node.held[name] = part
                devices -= part
        return True

    def give_back(self, name: str) -> None:
        for node in self._nodes:
            node.free += node.held.pop(name, 0.0)

    def change(self) -> list[str]:
        """Let the next node go or come. The tasks that held something of one that went."""
        node = min(self._nodes, key=lambda node: node.changes)
        node.away = not node.away
        if not node.away:
            node.changes = self._taken_back(node.changes)
            return []
        assert self._spot is not None
        self.taken_back += 1
        node.changes += self._spot.away_seconds
        return list(node.held)

    def _taken_back(self, since: float) -> float:
        if self._spot is None or not self._spot.per_hour:
            return math.inf
        return since + self._random.expovariate(self._spot.per_hour / 3600)
