"""The greedy soup (Wortsman et al. 2022): endpoints join while the probe's score does not fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Step:
    """One endpoint's turn: the score of the soup with it, and whether it stays."""

    endpoint: int
    score: float
    kept: bool


def greedy(order: Sequence[int], score: Callable[[list[int]], float]) -> list[Step]:
    """Recipe 1 of Wortsman et al. 2022: each of `order` in turn joins unless the score falls.

    `order`: the endpoints, best first. `score`: of the soup of the endpoints given.
    """
    first, *others = order
    steps = [Step(endpoint=first, score=score([first]), kept=True)]
    soup, best = [first], steps[0].score
    for endpoint in others:
        found = score([*soup, endpoint])
        steps.append(Step(endpoint=endpoint, score=found, kept=found >= best))
        if found >= best:
            soup, best = [*soup, endpoint], found
    return steps
