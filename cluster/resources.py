"""What a stage holds while it runs, and what the cluster has room for."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from trainables.config import Execution
from trainables.stage import TRAINED, Stage

Resources = Mapping[str, float]  # CPU and GPU -> how many

DRIVER_SHARE = 0.001  # of the resource that marks nodes for drivers: 1 of it is for 1,000 of them
# Set on the head of a cluster that starts nodes, for Ray tells nobody but its autoscaler: the nodes
# that it may start, as [{"nodes": 8, "CPU": 48, "GPU": 4}, ...].
CAN_GROW_BY = "SWEEPS_CAN_GROW_BY"
ANSWER_SECONDS = 3.0  # that a node may take to accept a connection
KNOWN_SECONDS = 60.0  # that Ray may take to know that a node is gone
NOTHING = 1e-6  # what sums of fractions are off by at most


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Workers and what each of them holds."""

    workers: int
    cpus: int
    gpus: float  # a part of one, or whole ones

    def each(self) -> dict[str, float]:
        return {"CPU": float(self.cpus), "GPU": self.gpus}

    def need(self) -> dict[str, float]:
        """What nobody else can have: of a GPU on which two parts of 0.4 fit, each takes a half."""
        taken = self.each() | {"GPU": 1 / _parts(self.gpus) if 0 < self.gpus < 1 else self.gpus}
        return {name: self.workers * amount for name, amount in taken.items()}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes that are there, that an autoscaler would start, that have gone and may come back."""

    there: Sequence[Resources]
    to_start: Sequence[Resources]
    gone: Sequence[Resources]

    @property
    def usable(self) -> Sequence[Resources]:
        """What starts on them now, or once the autoscaler sees that it waits for them."""
        return [*self.there, *self.to_start]


class Nodes:
    """The nodes of the Ray that this process is connected to; remembers those that go."""

    def __init__(self, may_start: Sequence[Resources]) -> None:
        """`may_start`: all that an autoscaler may start, those of them that run included."""
        self._may_start = may_start
        self._seen: list[Resources] = []

    def now(self) -> Cluster:
        going = nodes_going()
        there = [
            {name: node["Resources"].get(name, 0.0) for name in ("CPU", "GPU")}
            for node in _alive_nodes()
            if node["NodeID"] not in going
        ]
        self._seen += _less(there, self._seen)
        to_start = _less(self._may_start, there)
        gone = _less(_less(self._seen, there), to_start)
        return Cluster(there=there, to_start=to_start, gone=gone)


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def nodes_going() -> set[str]:
    """Ids of the nodes that are being taken back or stopped: Ray starts nothing there any more."""
    return set(ray._private.state.state.get_draining_nodes())


async def is_gone(ids: set[str]) -> bool:
    """Whether one of these nodes no longer answers. If so, returns when Ray knows it too.

    Its workers' deaths are heard of before it is: Ray gives a silent node some seconds.
    """
    until = time.monotonic() + KNOWN_SECONDS
    while True:
        alive = {node["NodeID"]: node for node in _alive_nodes()}
        if not ids <= alive.keys():
            return True
        if all([await _answers(alive[each]) for each in ids]):
            return False
        if time.monotonic() > until:
            return True
        await asyncio.sleep(0.5)


async def _answers(node: dict[str, Any]) -> bool:
    address = node["NodeManagerAddress"], node["NodeManagerPort"]
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(*address)
    except OSError:  # a TimeoutError is one
        return False
    writer.close()
    return True


def free_by_host() -> list[tuple[str, Resources]]:
    """What no process holds of each node, by Ray's account, which lags a little."""
    free = ray._private.state.available_resources_per_node()
    return [(node["NodeManagerHostname"], free.get(node["NodeID"], {})) for node in _alive_nodes()]


def waits_for_placement(shape: Shape) -> bool:
    """Whether workers of this shape wait for Ray to find them nodes."""
    bundle = {name: amount for name, amount in shape.each().items() if amount}
    groups = ray.util.placement_group_table().values()
    waiting = [group["bundles"] for group in groups if group["state"] == "PENDING"]
    return any([*bundles.values()] == [bundle] * shape.workers for bundles in waiting)


def _less(nodes: Sequence[Resources], others: Sequence[Resources]) -> list[Resources]:
    """`nodes` without one of them for each equal one of the `others`."""
    left = list(nodes)
    for other in others:
        if other in left:
            left.remove(other)
    return left


def nodes_that_may_start() -> list[Resources]:
    """One entry for each node that $SWEEPS_CAN_GROW_BY names; none without it.

    Raises:
        ValueError: it is not what it should be.
    """
    text = os.environ.get(CAN_GROW_BY, "[]")
    try:
        return [
            {"CPU": float(kind["CPU"]), "GPU": float(kind.get("GPU", 0))}
            for kind in json.loads(text)
            for _ in range(kind["nodes"])
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"${CAN_GROW_BY} is {text!r}, which does not say what nodes may be started ({error}); "
            'give it as [{"nodes": 8, "CPU": 48, "GPU": 4}]'
        ) from None


def total(nodes: Iterable[Resources]) -> dict[str, float]:
    nodes = list(nodes)
    return {name: sum(node[name] for node in nodes) for name in ("CPU", "GPU")}


def covers(free: Resources, need: Resources) -> bool:
    return all(free[name] >= amount - NOTHING for name, amount in need.items())


def workers_on(nodes: Iterable[Resources], shape: Shape) -> int:
    """How many workers of this shape these nodes have room for, with nothing else on them."""
    return sum(_workers_on_one(node, shape.each()) for node in nodes)


def _workers_on_one(node: Resources, each: Resources) -> int:
    """A part of a GPU is on one GPU, and a worker on one node."""
    return min(
        math.floor(node[name]) * _parts(need) if need < 1 else math.floor(node[name] / need)
        for name, need in each.items()
        if need
    )


def _parts(share: float) -> int:
    """How many parts of a GPU, each this share of it, are on one."""
    return math.floor(1 / share + NOTHING)


def shapes_of(stage: Stage, execution: Execution) -> list[Shape]:
    """What the stage may hold while it runs, the widest first; one worker if it does not train."""
    one = Shape(workers=1, cpus=execution.cpus_per_worker, gpus=execution.gpus_per_worker)
    if stage.kind not in TRAINED:
        return [one]
    return [replace(one, workers=workers) for workers in sorted(execution.counts, reverse=True)]


def what_is_short(stage: Stage, execution: Execution, cluster: Cluster) -> str | None:
    """Why the cluster can never run the stage, with the remedy; None if it can.

    A node that has gone may come back, and is waited for.
    """
    shape = shapes_of(stage, execution)[-1]
    workers, room = shape.workers, workers_on([*cluster.usable, *cluster.gone], shape)
    if room >= workers:
        return None
    there = f"{_plural(len(cluster.there), 'node')} with {shown(total(cluster.there))} in all"
    if cluster.to_start:
        there += f", and may start {len(cluster.to_start)} with {shown(total(cluster.to_start))}"
    return (
        f"needs {_plural(workers, 'worker')} of {shown(shape.each())}, but the cluster has room "
        f"for {room} (it has {there}); lower execution's workers, cpus_per_worker or "
        f"gpus_per_worker for {stage.kind}, or add nodes (a cluster that starts nodes says which "
        f"in ${CAN_GROW_BY})"
    )


def trials_to_feed(kinds: Iterable[Sequence[Shape]], cluster: Cluster) -> int:
    """How many stages of any of these kinds the cluster, with what it may start, runs at once.

    Each in the first of its shapes for which there is room. At least 1.
    """
    at_once = [
        next((room for room in (_times(shape, cluster) for shape in shapes) if room), 1)
        for shapes in kinds
    ]
    return min(at_once, default=1)


def _times(shape: Shape, cluster: Cluster) -> int:
    return workers_on(cluster.usable, shape) // shape.workers


def driver_resources(name: str | None) -> dict[str, float]:
    """What each process that only waits holds of the resource `name`, which says where it runs.

    Nothing on a single node that stays single: there is no other place.

    Raises:
        ValueError: there are nodes to choose from and none has it.
    """
    if name is None or (len(_alive_nodes()) == 1 and not nodes_that_may_start()):
        return {}
    if not ray.cluster_resources().get(name):
        raise ValueError(
            f"execution.driver_resource {name!r}: no node of the cluster has it; start those that "
            f"stay with --resources='{{\"{name}\": 1}}', or set it to null"
        )
    return {name: DRIVER_SHARE}


def shown(resources: Resources) -> str:
    words = [f"{resources.get('CPU', 0):g} CPU"]
    if resources.get("GPU"):
        words.append(f"{resources['GPU']:g} GPU")
    return " and ".join(words)


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
