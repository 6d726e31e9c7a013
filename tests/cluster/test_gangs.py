"""Workers that stay: what they save, what ends them, and that no stage sees what ran before it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import torch
from safetensors.torch import load_file

from cluster.room import IDLE_SECONDS
from cluster.stage_runs import StageFailed
from cluster.stages_handle import StagesHandle
from tests.cluster.conftest import Start, until
from tests.cluster.test_stages import get, stage, states, steps, want
from tests.sweeps.commands import ROOT, environment
from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain, toy_videos
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

pytestmark = pytest.mark.usefixtures("two_cpus")


def pids(stages: StagesHandle, wanted: Stage) -> set[int]:
    """The processes that took a step of the stage."""
    lines = [line.split() for line in stages.store.root.read("log").decode().splitlines()]
    return {int(pid) for identity, _, _, pid in lines if identity == wanted.identity}


def free_cpus() -> float:
    return ray.available_resources().get("CPU", 0.0)


def test_one_gang_runs_stage_after_stage_whatever_their_kind_and_their_mistakes(
    start: Start,
) -> None:
    stages = start()
    mae, align, probe = stage("mae"), stage("align"), stage("probe")
    mistaken = stage("mae", mistake="no such thing")
    get(want(stages, mae, 1))
    get(want(stages, align, 1))
    with pytest.raises(StageFailed, match="no such thing"):
        get(want(stages, mistaken, 1))
    get(want(stages, probe, 1))
    assert len(pids(stages, mae)) == 1
    assert pids(stages, mae) == pids(stages, align) == pids(stages, probe)


def test_a_gang_of_two_survives_what_both_do_wrong_and_not_what_one_does(start: Start) -> None:
    stages = start()
    first, second, third = (stage("finetune", number=number) for number in range(3))
    get(want(stages, first, 1))
    with pytest.raises(StageFailed, match="both of us"):
        get(want(stages, stage("finetune", mistake="both of us"), 1))
    get(want(stages, second, 1))
    assert len(pids(stages, first)) == 2
    assert pids(stages, first) == pids(stages, second)

    alone = stage("finetune", mistake_of_rank=1)  # rank 0 waits for it in an all_reduce
    with pytest.raises(StageFailed, match="only one of us fails"):
        get(want(stages, alone, 1))
    assert states(stages, alone) == ["queued", "started", "failed"]
    get(want(stages, third, 1))
    assert not pids(stages, third) & pids(stages, first)


def test_a_worker_killed_in_its_second_stage_costs_that_stage_one_attempt(start: Start) -> None:
    stages = start()
    first, second = stage("mae"), stage("mae", steps=6, pause=0.3)
    assert get(want(stages, first, 1))["attempts"] == 1
    asked = want(stages, second, 1)
    until(lambda: len(steps(stages, second)) >= 2)
    (gang,) = pids(stages, first)
    assert pids(stages, second) == {gang}
    os.kill(gang, signal.SIGKILL)
    assert get(asked)["attempts"] == 2
    assert sorted(set(steps(stages, second))) == [1, 2, 3, 4, 5, 6]
    assert len(steps(stages, second)) <= 7
    assert states(stages, second) == ["queued", "started", "retry", "started", "finished"]


def test_an_idle_gang_gives_its_cpu_back_after_its_time(start: Start) -> None:
    stages = start()
    get(want(stages, stage("mae"), 1))
    idle_since = time.monotonic()
    assert free_cpus() == 1
    until(lambda: free_cpus() == 2, seconds=IDLE_SECONDS + 20)
    assert time.monotonic() - idle_since > IDLE_SECONDS - 1


@pytest.mark.slow
def test_shapes_that_need_each_others_room_take_turns_without_waiting_out_the_idle_time(
    start: Start,
) -> None:
    stages = start()
    shapes = [stage("mae", number=0), stage("finetune"), stage("mae", number=1)]
    asked = []
    for each in shapes:
        asked.append(want(stages, each, 1))
        until(lambda each=each: states(stages, each))  # it is in the queue
    get(asked)
    events = stages.events(0)[0]
    ended = {e["identity"]: e["time"] for e in events if e["state"] == "finished"}
    began = {e["identity"]: e["time"] for e in events if e["state"] == "started"}
    assert [*began] == [each.identity for each in shapes]
    waits = [began[b.identity] - ended[a.identity] for a, b in itertools.pairwise(shapes)]
    assert max(waits) < IDLE_SECONDS - 1


def test_a_stages_weights_do_not_depend_on_what_its_gang_ran_before(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    datasets = toy_videos(videos)
    warm = tmp_path / "warm"
    script = Path(__file__).parent / "two_trials_in_a_gang.py"
    command = [sys.executable, str(script), str(videos), str(warm)]
    env = {**environment(), "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(
        command, env=env, check=True, timeout=300, stdout=subprocess.PIPE, text=True
    ).stdout
    assert printed.split() == ["1"]

    second = trial_stages(toy_trial(seed=1), datasets).weights
    alone = StageStore(tmp_path / "alone")
    for number, part in enumerate(second.chain()):
        torch.manual_seed(number)  # a past of its own
        run_chain(part, alone, datasets)
        if part.kind in ("mae", "align"):
            found = load_file(StageStore(warm).file(part.identity, "weights"))
            expected = load_file(alone.file(part.identity, "weights"))
            assert found.keys() == expected.keys()
            assert all(found[name].equal(expected[name]) for name in expected)
