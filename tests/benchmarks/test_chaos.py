"""What the chaos run says of a sweep that has ended; its kills are not done here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import chaos as module
from benchmarks.chaos import Chaos, compare
from tests.faults.aftermath import Steps, finished_stages

LATER = 10**9 * 2


def a_sweep(folder: Path, *finished: str) -> Path:
    """The file of one with these finished stages."""
    for identity in finished:
        stage = folder / "runs" / "stages" / identity
        stage.mkdir(parents=True)
        (stage / "attempts").write_text("|")
        (stage / "record.json").write_text("{}")
        os.utime(stage / "record.json", ns=(LATER, LATER))
    return folder / "sweep.yaml"


def after(sweep: Path, *taken: tuple[str, int, float]) -> Chaos:
    """What there was of kills; `taken`: steps of stages, each by process 1."""
    steps: dict[str, list[tuple[int, int, float]]] = {}
    for identity, step, when in taken:
        steps.setdefault(identity, []).append((step, 1, when))
    ended: Any = SimpleNamespace(sweep=sweep, steps=lambda: Steps(steps))
    chaos = Chaos(ended, cluster=None, seed=0)  # type: ignore[arg-type]
    chaos.finished = finished_stages(sweep)
    return chaos


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All else that is compared is the same; what is asked."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(module, "check_aftermath", lambda *_, **given: asked.update(given))
    return asked


def test_nothing_is_wrong_where_no_stage_was_lost_or_trained_twice(
    tmp_path: Path, alike: dict[str, Any]
) -> None:
    sweep, reference = (a_sweep(tmp_path / name, "a", "b") for name in "xy")
    chaos = after(sweep, ("a", 1, 0.5), ("a", 1, 0.7), ("a", 2, 0.9), ("b", 1, 1.0))
    figures, wrong = compare(chaos, reference)
    assert wrong == [] and figures["ended_as_undisturbed"]
    assert (figures["stages_lost"], figures["stages_trained_twice"]) == (0, 0)
    assert (figures["steps"], figures["steps_repeated"]) == (3, 1)
    assert alike["finished_before"] == finished_stages(sweep) != {}


def test_a_lost_stage_and_one_trained_twice_are_counted_and_wrong(tmp_path: Path) -> None:
    reference = a_sweep(tmp_path / "y", "a", "b", "c")
    sweep = a_sweep(tmp_path / "x", "a", "b")
    chaos = after(sweep, ("a", 1, 0.5), ("b", 1, 2.5))  # b: after its record
    record = sweep.parent / "runs" / "stages" / "a" / "record.json"
    os.utime(record, ns=(LATER + 1, LATER + 1))
    figures, wrong = compare(chaos, reference)
    assert wrong == ["stages lost: ['c']", "stages trained twice: ['a', 'b']"]
    assert (figures["stages_lost"], figures["stages_trained_twice"]) == (1, 2)
    assert not figures["ended_as_undisturbed"]


@pytest.mark.parametrize(("wrong", "status"), [([], 0), (["stages lost: ['c']"], 1)])
def test_it_fails_after_the_line_that_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, wrong: list[str], status: int
) -> None:
    monkeypatch.setattr(module, "run", lambda *_: ({"benchmark": "chaos"}, wrong))
    monkeypatch.setattr("sys.argv", ["chaos.py"])
    assert module.main() == status
    *said, last = capsys.readouterr().out.splitlines()
    assert said == wrong and json.loads(last) == {"benchmark": "chaos"}


def test_a_kill_is_survived_once_training_went_on_or_the_sweep_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Dies:
        """After the second kill nothing trains, and the command has failed."""

        sweep, cluster = tmp_path / "sweep.yaml", SimpleNamespace(add_node=lambda: None)
        process = SimpleNamespace(poll=lambda: 1, returncode=1)

        def start(self) -> None: ...

        def goes_on(self) -> bool:
            return chaos.kills < 2

        def printed(self) -> str:
            return "it failed"

    monkeypatch.setattr(module, "PAUSE_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(Chaos, "_kill", lambda self, kind: True)
    dies: Any = Dies()
    chaos = Chaos(dies, dies.cluster, seed=0)
    arguments: Any = SimpleNamespace(kills=5, trials=1, minutes=1.0)
    with pytest.raises(AssertionError, match="it failed"):
        module.disturb(dies, chaos, arguments)
    assert (chaos.told()["kills"], chaos.told()["kills_survived"]) == (2, 1)


@pytest.mark.parametrize(("kills", "said"), [(5, []), (3, ["only 3 of 5 kills in 1 min"])])
def test_fewer_kills_than_were_asked_for_are_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kills: int, said: list[str]
) -> None:
    def disturb(sweep: Any, chaos: Chaos, arguments: Any) -> int:
        chaos.killed["worker"] = kills
        return 1

    nothing: Any = SimpleNamespace(shut_down=lambda: None)
    monkeypatch.setattr(module, "RayNodes", lambda *_: nothing)
    monkeypatch.setattr(module, "DisturbedSweep", lambda *_: nothing)
    for name in ("write_world_sweep", "run_to_end"):
        monkeypatch.setattr(module, name, lambda *_, **__: tmp_path)
    monkeypatch.setattr(module, "disturb", disturb)
    monkeypatch.setattr(module, "compare", lambda *_: ({}, []))
    arguments: Any = SimpleNamespace(kills=5, trials=1, minutes=1.0, seed=0)
    _, wrong = module.run(tmp_path, arguments)
    assert wrong == said
