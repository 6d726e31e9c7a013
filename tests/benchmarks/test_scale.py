"""The simulated search on paper: its stages cost what their FLOPs say, whoever shares them."""

from __future__ import annotations

import argparse
from itertools import groupby

import pytest

from benchmarks.scale import H200_TERAFLOPS, ROOT, Swept, gpu_hours, on
from trainables.settings import load_yaml

MAE_VIEWS, VIEW_TERAFLOPS = 200 * 89_600, 0.2006  # of ViT-B, nine tenths masked
CLIPS, CLIP_TERAFLOPS = 50 * 229_888, 1.0782


@pytest.fixture(scope="module")
def arguments() -> argparse.Namespace:
    return argparse.Namespace(
        share=0.5, rates=None, set=[], start=0.0, per_hour=0.0, away=0.0, restart=0.0, seeds=1
    )


@pytest.fixture(scope="module")
def swept(arguments: argparse.Namespace) -> Swept:
    return Swept(8, arguments)  # the baselines and the points of sweeps/ppma.yaml


def seconds_on_a_node(clips: int, teraflops: float) -> float:
    return clips * teraflops / (0.5 * H200_TERAFLOPS) / 8


def test_a_stage_takes_its_flops_at_the_stated_share_of_the_peak(swept: Swept) -> None:
    gangs = [task.seconds for task in swept.shared.values() if task.devices == 8]
    for clips, teraflops in ((MAE_VIEWS, VIEW_TERAFLOPS), (CLIPS, CLIP_TERAFLOPS)):
        expected = seconds_on_a_node(clips, teraflops)
        assert any(seconds == pytest.approx(expected, rel=0.001) for seconds in gangs)


def test_checkpoints_are_made_as_often_as_the_sweep_says_of_what_trains_and_of_nothing_else(
    swept: Swept,
) -> None:
    align = load_yaml(ROOT / "sweeps" / "ppma.yaml")["execution"]["align"]
    seconds = align["checkpoint_every_steps"] * seconds_on_a_node(128, CLIP_TERAFLOPS)
    longest = max(swept.shared.values(), key=lambda task: task.seconds * task.devices)
    assert longest.checkpoint_seconds == pytest.approx(seconds, rel=0.001)
    halves = [task for task in swept.shared.values() if task.devices == 0.5]
    assert halves and all(task.checkpoint_seconds == float("inf") for task in halves)


def test_alone_each_trial_takes_all_of_its_own_stages(swept: Swept) -> None:
    def trial(name: str) -> str:
        return name.split()[0]

    names = sorted(swept.alone, key=trial)
    own = {number: {n.split()[1] for n in of} for number, of in groupby(names, trial)}
    assert len(own) == 8 and set().union(*own.values()) == swept.shared.keys()
    times = {name: sum(name in of for of in own.values()) for name in swept.shared}
    copies = [(task, times[name]) for name, task in swept.shared.items()]
    expected = sum(gpu_hours([task]) * count for task, count in copies)
    assert gpu_hours(swept.alone.values()) == pytest.approx(expected)
    assert gpu_hours(swept.alone.values()) > 1.05 * gpu_hours(swept.shared.values())


def test_on_one_node_nothing_is_quicker_than_the_work_there_is(
    swept: Swept, arguments: argparse.Namespace
) -> None:
    found = on(8, swept, arguments)["shared"]
    assert found["hours"] == found["hours_on_spot"] >= gpu_hours(swept.shared.values()) / 8
    assert found["busy"] * found["hours"] * 8 == pytest.approx(
        gpu_hours(swept.shared.values()), rel=0.01
    )
