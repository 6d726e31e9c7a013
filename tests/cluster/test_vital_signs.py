from __future__ import annotations

import psutil
import pytest

from cluster.vital_signs import HangLimits, Process, VitalSigns
from tests.cluster.conftest import Start
from tests.cluster.test_stages import get, stage, states, steps, want, worker_pid


def process(number: int) -> Process:
    return Process(host=f"host{number}", node=f"node{number}", pid=number, started=0.0)


def signs(seconds: float | None, first: float | None) -> VitalSigns:
    made = VitalSigns(HangLimits(seconds=seconds, first_step_seconds=first))
    for rank in (0, 1):
        made.at_work(rank, process(rank))
    return made


def test_silence_is_counted_from_the_first_step_on() -> None:
    of = signs(seconds=10, first=None)
    assert of.tick(1000) is None
    of.beat(0)
    of.beat(1)
    assert of.tick(6) is None
    of.beat(0)
    assert of.tick(11) == "no step for 10 s (worker 1 on host1)"  # who was silent before the other


def test_the_first_step_has_a_limit_of_its_own() -> None:
    of = signs(seconds=10, first=100)
    assert of.tick(99) is None
    of.beat(0)
    assert of.tick(2) == "no first step for 100 s (worker 1 on host1)"


def test_without_limits_nothing_hangs_and_a_worker_that_is_not_there_yet_is_not_silent() -> None:
    of = signs(seconds=None, first=None)
    of.beat(0)
    assert of.tick(1e9) is None
    assert VitalSigns(HangLimits(seconds=1, first_step_seconds=1)).tick(1e9) is None


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize(("kind", "way"), [("mae", "a loop"), ("finetune", "a stop")])
def test_a_worker_that_hangs_is_killed_and_its_stage_goes_on_from_the_checkpoint(
    start: Start, kind: str, way: str
) -> None:
    stages = start(hang_seconds=6.0)
    wanted = stage(kind, steps=4, pause=0.1, hangs_at=2, hangs_in=way)
    assert get(want(stages, wanted, 1))["attempts"] == 2
    assert sorted(set(steps(stages, wanted))) == [1, 2, 3, 4]
    assert states(stages, wanted) == ["queued", "started", "retry", "started", "finished"]
    (retry,) = [e for e in stages.events(0)[0] if e["state"] == "retry"]
    assert retry["reason"].startswith("no step for 6 s (worker ")
    assert not psutil.pid_exists(worker_pid(stages, wanted))
