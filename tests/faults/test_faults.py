"""What may happen to a sweep on a cluster, really done to one, and what is true of it after."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disturbed import DisturbedSweep
from tests.faults.ray_nodes import RayNodes
from tests.sweeps.commands import WORLD, run_to_end, write_world_sweep

CHECKPOINT = 2  # steps between two
HANG_SECONDS = 15.0
TO_START_ANEW = 60.0  # seconds until new workers are up, on a busy machine too

pytestmark = pytest.mark.slow


def write_sweep(folder: Path, **overrides: Any) -> Path:
    """Two mixes, one after the other, after the same stage 1."""
    small = {"search__baselines": False, "search__trials": 2, "trial__downstream": ["low_bias"]}
    return write_world_sweep(folder, **{**small, **overrides})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = write_sweep(tmp_path_factory.mktemp("undisturbed"))
    run_to_end(sweep)
    return sweep


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayNodes]:
    cluster = RayNodes(tmp_path / "ray")
    try:
        yield cluster
    finally:
        cluster.shut_down()


def start(cluster: RayNodes, folder: Path, nodes: int, **overrides: Any) -> DisturbedSweep:
    for _ in range(nodes):
        cluster.add_node()
    disturbed = DisturbedSweep(write_sweep(folder / "sweep", **overrides), cluster)
    disturbed.start()
    return disturbed


def test_1_a_training_worker_is_killed(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path
) -> None:
    sweep = start(cluster, tmp_path, nodes=2)
    trained = sweep.wait_for_training("align", step=20)
    sweep.fault(sweep.trainer(trained).kill, trained)
    sweep.end()
    sweep.check(undisturbed, most_repeated=CHECKPOINT)


def test_2_a_worker_node_is_lost_while_it_trains_and_another_joins_later(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path
) -> None:
    sweep = start(cluster, tmp_path, nodes=1)
    trained = sweep.wait_for_training("mae", step=20)
    node = sweep.node_of(trained)

    def another_joins_once_the_loss_is_known() -> None:
        sweep.wait_for(lambda: "its place is lost" in sweep.all_printed())
        cluster.add_node()

    # The rest of what ran on the node must end by itself.
    sweep.fault(node.raylet.kill, trained, mend=another_joins_once_the_loss_is_known)
    sweep.end()
    sweep.check(undisturbed, most_repeated=CHECKPOINT)


def test_2_a_stage_on_two_nodes_goes_on_with_one_and_scores_the_same_to_tolerance(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path
) -> None:
    sweep = start(cluster, tmp_path, nodes=2, execution__align__workers=[1, 2])
    trained = sweep.wait_for_training("align", step=20)
    first = sweep.trainer(trained)
    sweep.fault(sweep.node_of(trained).raylet.kill, trained)
    assert first.pid != sweep.trainer(trained).pid
    sweep.end()
    clip = 1 / WORLD["downstream_selection"]
    sweep.check(undisturbed, most_repeated=CHECKPOINT, score_tolerance=2 * clip)


def test_3_a_driver_of_tune_is_killed(cluster: RayNodes, undisturbed: Path, tmp_path: Path) -> None:
    sweep = start(cluster, tmp_path, nodes=2)
    trained = sweep.wait_for_training("align", step=20)
    sweep.kill_driver()
    sweep.end()
    assert sweep.attempts(trained) == 1  # its training did not notice
    sweep.check(undisturbed, most_repeated=0)


def test_4_the_entry_process_is_killed_and_submitted_again(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path
) -> None:
    sweep = start(cluster, tmp_path, nodes=2)
    trained = sweep.wait_for_training("align", step=20)
    sweep.fault(sweep.kill_entry_process_and_submit_again, trained)
    sweep.end()
    sweep.check(undisturbed, most_repeated=CHECKPOINT)


def test_5_the_head_and_all_nodes_are_lost_and_a_new_cluster_goes_on_with_the_storage(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path
) -> None:
    sweep = start(cluster, tmp_path, nodes=2)
    trained = sweep.wait_for_training("align", step=20)
    fresh: list[RayNodes] = []

    def lose_everything_and_begin_anew() -> None:
        for node in cluster.nodes:
            node.kill()
        sweep.process.kill()  # it ran on the head
        sweep.process.wait()
        fresh.append(RayNodes(tmp_path / "ray again", trace=cluster.trace))
        sweep.cluster = fresh[0]
        for _ in range(2):
            fresh[0].add_node()
        sweep.start()

    try:
        sweep.fault(lose_everything_and_begin_anew, trained)
        sweep.end()
        sweep.check(undisturbed, most_repeated=CHECKPOINT)
    finally:
        for each in fresh:
            each.shut_down()


def test_10_a_warning_that_a_node_will_be_taken_away_costs_no_step_and_no_attempt(
    cluster: RayNodes, tmp_path: Path
) -> None:
    # No checkpoint but that of the warning, and no second attempt.
    long = {
        "trial__mae__epochs": 1,
        "trial__mae__clips_per_epoch": 1600,  # 400 steps
        "trial__align__epochs": 1,
        "search__trials": 2,
        "execution__attempts": 1,
        "execution__mae__checkpoint_every_steps": 1000,
    }
    undisturbed = write_sweep(tmp_path / "undisturbed", **long)
    run_to_end(undisturbed)
    sweep = start(cluster, tmp_path, nodes=2, **long)
    trained = sweep.wait_for_training("mae", step=50)
    node, here = sweep.node_of(trained), sweep.trainer(trained).pid
    warned = time.time()
    sweep.fault(lambda: cluster.drain(node, seconds=30), trained)
    last_there = max(when for _, pid, when in sweep.steps().taken[trained] if pid == here)
    sweep.measured["seconds until it had left"] = round(last_there - warned, 1)
    node.kill()
    sweep.end()
    sweep.check(undisturbed, most_repeated=0)


def test_10_a_pod_that_kubernetes_ends_leaves_as_well(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path
) -> None:
    # Ray itself drains the node of a `ray start --block` that gets SIGTERM.
    sweep = start(cluster, tmp_path, nodes=2, execution__attempts=1)
    trained = sweep.wait_for_training("align", step=20)
    sweep.fault(sweep.node_of(trained).process.terminate, trained)
    sweep.end()
    sweep.check(undisturbed, most_repeated=0)


def test_11_a_worker_that_hangs_is_found_killed_and_its_stage_tried_again(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path
) -> None:
    sweep = start(cluster, tmp_path, nodes=2, execution__hang_seconds=HANG_SECONDS)
    trained = sweep.wait_for_training("align", step=20)
    trainer = sweep.trainer(trained)
    sweep.fault(trainer.suspend, trained)
    assert not trainer.is_running()
    assert f"no step for {HANG_SECONDS:g} s" in sweep.printed()
    assert sweep.measured["seconds until the next attempt"] < HANG_SECONDS + TO_START_ANEW
    sweep.end()
    sweep.check(undisturbed, most_repeated=CHECKPOINT)
