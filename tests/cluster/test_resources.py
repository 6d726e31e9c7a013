"""What stages hold and what a cluster has room for, counted without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.resources import (
    CAN_GROW_BY,
    Cluster,
    Nodes,
    Shape,
    nodes_that_may_start,
    shapes_of,
    trials_to_feed,
    what_is_short,
    workers_on,
)
from tests.toy import toy_execution
from trainables.stage import Stage

ALIGN, FEATURES = Stage(kind="align", settings={}), Stage(kind="features", settings={})


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus}


def cluster(*there: dict[str, float], **more: Any) -> Cluster:
    return Cluster(there=there, **{"to_start": [], "gone": [], **more})


def shape(workers: int = 1, cpus: int = 1, gpus: float = 0) -> Shape:
    return Shape(workers=workers, cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("share", "fit"), [(1, 2), (0.6, 2), (0.5, 4), (0.4, 4), (0.3, 6), (0.25, 8), (0.1, 20), (2, 1)]
)
def test_a_part_of_a_gpu_lies_on_one_gpu(share: float, fit: int) -> None:
    assert workers_on([node(64, 2)], shape(gpus=share)) == fit
    most = shape(gpus=share).need()["GPU"] * fit
    assert most == pytest.approx(2)  # so many and no more fit by sums as well


def test_a_worker_lies_on_one_node() -> None:
    four = shape(gpus=4, cpus=12)
    assert workers_on([node(48, 1)] * 8, four) == 0
    assert workers_on([node(48, 4), node(12, 4), node(8, 4), node(96, 8)], four) == 4


def test_what_can_never_be_placed_says_what_is_short_and_what_may_yet_come_is_waited_for() -> None:
    gpu = toy_execution(gpus_per_worker=1, workers=2)
    short = what_is_short(ALIGN, gpu, cluster(node(4)))
    assert short is not None and short.startswith(
        "needs 2 workers of 1 CPU and 1 GPU, but the cluster has room for 0 "
        "(it has 1 node with 4 CPU in all); lower execution's workers"
    )
    one = [node(8, 1)]
    assert "may start 1 with 8 CPU and 1 GPU" in str(
        what_is_short(ALIGN, gpu, cluster(node(4), to_start=one))
    )
    assert what_is_short(ALIGN, gpu, cluster(node(0), to_start=one * 2)) is None
    assert what_is_short(ALIGN, gpu, cluster(node(8, 1), gone=one)) is None
    assert what_is_short(FEATURES, gpu, cluster(node(8, 1))) is None  # it has one worker


def test_several_worker_counts_are_shapes_widest_first_and_the_narrowest_must_fit() -> None:
    elastic = toy_execution(workers=(1, 4, 2))
    assert [each.workers for each in shapes_of(ALIGN, elastic)] == [4, 2, 1]
    assert [each.workers for each in shapes_of(FEATURES, elastic)] == [1]
    assert what_is_short(ALIGN, elastic, cluster(node(1))) is None
    assert "needs 1 worker" in str(what_is_short(ALIGN, elastic, cluster(node(0))))


def test_as_many_trials_as_the_cluster_can_feed_of_the_widest_stage() -> None:
    wide, narrow = [shape(8, 12, 1)], [shape(1, 6, 0.5)]
    eight_gpus = node(96, 8)
    assert trials_to_feed([wide, narrow], cluster(*[eight_gpus] * 3)) == 3
    assert trials_to_feed([wide, narrow], cluster(node(0), to_start=[eight_gpus] * 4)) == 4
    assert trials_to_feed([wide], cluster(eight_gpus, gone=[eight_gpus])) == 1
    assert trials_to_feed([wide], cluster(node(2))) == 1
    elastic = [shape(4, 1), shape(2, 1), shape(1, 1)]
    assert trials_to_feed([elastic], cluster(node(4), node(4))) == 2
    assert trials_to_feed([elastic], cluster(node(2))) == 1


def test_what_a_cluster_may_start_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CAN_GROW_BY, raising=False)
    assert nodes_that_may_start() == []
    monkeypatch.setenv(CAN_GROW_BY, '[{"nodes": 2, "CPU": 48, "GPU": 4}, {"nodes": 1, "CPU": 8}]')
    assert nodes_that_may_start() == [node(48, 4), node(48, 4), node(8)]
    for wrong in ("8", "[{}]", '[{"nodes": "2", "CPU": 1}]', "{"):
        monkeypatch.setenv(CAN_GROW_BY, wrong)
        with pytest.raises(ValueError, match="SWEEPS_CAN_GROW_BY is .* give it as"):
            nodes_that_may_start()


def test_nodes_that_run_are_no_longer_to_start_and_those_lost_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive = [node(0), node(8, 1)]
    going: set[str] = set()

    def nodes() -> list[dict[str, Any]]:
        return [
            {
                "NodeID": f"{number}",
                "Alive": True,
                "Resources": {key: value for key, value in each.items() if value},
            }
            for number, each in enumerate(alive)
        ]

    monkeypatch.setattr("cluster.resources.ray.nodes", nodes)
    monkeypatch.setattr("cluster.resources.nodes_going", lambda: going)
    started, fixed = Nodes([node(8, 1)] * 2), Nodes([])
    assert started.now() == Cluster(there=alive, to_start=[node(8, 1)], gone=[])
    assert fixed.now() == Cluster(there=alive, to_start=[], gone=[])
    going = {"1"}  # it is being taken back
    assert fixed.now() == Cluster(there=[node(0)], to_start=[], gone=[node(8, 1)])
    alive, going = [node(0)], set()
    assert started.now() == Cluster(there=alive, to_start=[node(8, 1)] * 2, gone=[])
    assert fixed.now() == Cluster(there=alive, to_start=[], gone=[node(8, 1)])
    alive = [node(0), node(8, 1), node(8, 1)]
    assert fixed.now().gone == []
    alive = [node(0)]
    assert fixed.now().gone == [node(8, 1)] * 2


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"workers": 2, "gpus_per_worker": 0.5}, "give whole GPUs"),
        ({"gpus_per_worker": 1.5}, "give whole GPUs"),
        ({"workers": (1, 1)}, "worker counts"),
        ({"workers": ()}, "worker counts"),
    ],
)
def test_what_no_cluster_could_place_is_refused_when_it_is_read(
    changes: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        toy_execution(**changes)
    assert toy_execution(workers=(1, 2, 4), gpus_per_worker=1).counts == (1, 2, 4)
