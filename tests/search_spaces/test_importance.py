from __future__ import annotations

import random
from typing import Any

import pytest

from search_spaces.importance import importances


def points(count: int) -> list[dict[str, Any]]:
    draw = random.Random(0)
    found: list[dict[str, Any]] = []
    for _ in range(count):
        share = draw.random()
        point = {
            "shares": {"synthetic": share, "scenes": 1 - share},
            "epochs": draw.choice([1, 2, 4]),
            "method": draw.choice(["none", "ema"]),
            "frozen": True,
        }
        if point["method"] == "ema":
            point["decay"] = draw.random()
        found.append(point)
    return found


def test_the_setting_that_decides_the_score_is_the_most_important() -> None:
    tried = points(80)
    found = importances(tried, [-((point["shares"]["synthetic"] - 0.3) ** 2) for point in tried])
    assert max(found, key=lambda path: found[path]) == "shares" and found["shares"] > 0.6
    by_method = importances(tried, [float(point["method"] == "ema") for point in tried])
    assert max(by_method, key=lambda path: by_method[path]) == "method"


def test_importances_sum_to_1_a_mixture_is_one_setting_and_a_constant_is_none() -> None:
    tried = points(80)
    found = importances(tried, [point["shares"]["synthetic"] for point in tried])
    assert set(found) == {"shares", "epochs", "method", "decay"}
    assert sum(found.values()) == pytest.approx(1.0)


def test_where_all_score_the_same_or_nothing_was_tried_nothing_is_important() -> None:
    assert importances(points(10), [0.5] * 10) == {}
    assert importances([], []) == {}
    assert importances(points(1) * 2, [0.1, 0.2]) == {}
