"""What a stage holds while it runs, and what the cluster has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import ray

from trainables.config import Execution
from trainables.stage import TRAINED, Stage

DRIVER_SHARE = 0.001  # of the resource that marks nodes for drivers: 1 of it is for 1,000 of them


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Workers and what each of them holds."""

    workers: int
    cpus: int
    gpus: float

    def each(self) -> dict[str, float]:
        return {"CPU": float(self.cpus), "GPU": self.gpus}

    def need(self) -> dict[str, float]:
        return {name: self.workers * amount for name, amount in self.each().items()}


def shape_of(stage: Stage, execution: Execution) -> Shape:
    """What the stage holds while it runs; one that does not train has one worker."""
    return Shape(
        workers=execution.workers if stage.kind in TRAINED else 1,
        cpus=execution.cpus_per_worker,
        gpus=execution.gpus_per_worker,
    )


def in_all() -> dict[str, float]:
    """The CPUs and GPUs that there are and that stay, or that the autoscaler would start."""
    there, limits = Counter(ray.cluster_resources()), _autoscaling_limits() or {}
    if going := nodes_going():
        for node in ray.nodes():
            if node["Alive"] and node["NodeID"] in going:
                there.subtract(node["Resources"])
    return {name: max(there.get(name, 0.0), limits.get(name, 0.0)) for name in ("CPU", "GPU")}


def nodes_going() -> set[str]:
    """Ids of the nodes that are being taken back or stopped: Ray starts nothing there any more."""
    return set(ray._private.state.state.get_draining_nodes())


def what_is_short(stage: Stage, execution: Execution) -> str | None:
    """Why the cluster can never run the stage, with the remedy; None if it can."""
    shape = shape_of(stage, execution)
    workers, each = shape.workers, shape.each()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(_times(each, node) for node in nodes)
    limits = _autoscaling_limits()
    if limits is not None:
        room = max(room, _times(each, limits))
    if room >= workers:
        return None
    totals = {name: sum(node.get(name, 0.0) for node in nodes) for name in each}
    there = f"{len(nodes)} node{'s' * (len(nodes) != 1)} with {_shown(totals)} in all"
    if limits is not None:
        there += f", and can grow to {_shown(limits)}"
    return (
        f"needs {workers} worker{'s' * (workers != 1)} of {_shown(each)}, but the cluster has room "
        f"for {room} (it has {there}); lower execution's workers, cpus_per_worker or "
        f"gpus_per_worker for {stage.kind}, or add nodes"
    )


def driver_resources(name: str | None) -> dict[str, float]:
    """What each process that only waits holds of the resource `name`, which says where it runs.

    Raises:
        ValueError: no node has it, and the autoscaler would start none.
    """
    if name is None:
        return {}
    there = {**ray.cluster_resources(), **(_autoscaling_limits() or {})}
    if not there.get(name):
        raise ValueError(
            f"execution.driver_resource {name!r}: no node of the cluster has it; start those that "
            f"stay with --resources='{{\"{name}\": 1}}', or set it to null"
        )
    return {name: DRIVER_SHARE}


def _autoscaling_limits() -> dict[str, float] | None:
    """The most that a cluster with an autoscaler can have; None without one."""
    limits: dict[str, float] | None = (
        ray._private.state.state.get_max_resources_from_cluster_config()
    )
    return limits


def _times(each: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many workers that need `each` a node has room for."""
    return min(math.floor(node.get(name, 0.0) / need) for name, need in each.items() if need)


def _shown(resources: Mapping[str, float]) -> str:
    words = [f"{resources.get('CPU', 0):g} CPU"]
    if resources.get("GPU"):
        words.append(f"{resources['GPU']:g} GPU")
    return " and ".join(words)
