"""What a caller is told of stages that fail beside others; Ray's `get` is a fake here."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import stages_handle
from cluster.stage_runs import StageFailed
from cluster.stages_handle import StagesHandle
from trainables.stage import Stage


def handle(monkeypatch: pytest.MonkeyPatch, ends: dict[str, Any]) -> tuple[StagesHandle, list[str]]:
    """A handle whose stages, by kind, return or raise what `ends` says; and what was waited for."""
    waited: list[str] = []

    def fake_get(kind: str) -> Any:
        waited.append(kind)
        if isinstance(ends[kind], Exception):
            raise ends[kind]
        return ends[kind]

    monkeypatch.setattr(stages_handle.ray, "get", fake_get)
    made = object.__new__(StagesHandle)
    monkeypatch.setattr(made, "want", lambda stage, trial: stage.kind)
    return made, waited


def stages(*kinds: str) -> list[Stage]:
    return [Stage(kind=kind, settings={}) for kind in kinds]


def test_with_a_fake_of_ray_a_stage_that_fails_keeps_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = StageFailed("bias ab: no room for a window")
    made, waited = handle(monkeypatch, {"init": {}, "bias": failure, "probe": {}})
    assert made.want_each(stages("init", "bias", "probe")) == [failure]
    assert waited == ["init", "bias", "probe"]


def test_with_a_fake_of_ray_a_storage_that_refuses_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _ = handle(monkeypatch, {"bias": OSError("full")})
    with pytest.raises(OSError, match="the storage: full"):
        made.want_each(stages("bias"))
