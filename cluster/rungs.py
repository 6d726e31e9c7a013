"""The rungs that a trial has come to, read from the files of its stages. No Ray here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.study import RungPoint
from trainables.intermediate_probes import IntermediateProbes, steps_of
from trainables.stage import Stage
from trainables.stage_store import StageStore


def rungs_reached(
    weights: Stage, store: StageStore, probes: IntermediateProbes, key: str
) -> Iterator[RungPoint]:
    """Those of the alignment of `weights`, in order, up to the first that is not there yet.

    `key`: of the probes. An average comes to a rung with the last of its endpoints.
    """
    parts = {part.identity: part for part in weights.chain()}.values()
    aligned = [part for part in parts if part.kind == "align"]
    before = [part for part in parts if part.kind not in ("align", "align_trunk")]
    measured = [_measured(part, store, key) for part in aligned]
    wanted = [probes.steps(steps_of(part)) for part in aligned]
    for rung in probes.rungs if aligned else ():
        there = [each.get(at.get(rung, 0)) for each, at in zip(measured, wanted, strict=True)]
        points = [point for point in there if point is not None]
        if len(points) < len(aligned):
            return
        yield RungPoint(
            rung=rung,
            accuracies={
                name: sum(point["accuracies"][name] for point in points) / len(points)
                for name in probes.downstream
            },
            device_seconds=sum(_cost(store, part) for part in before)
            + sum(point["device_seconds"] for point in points) / rung,
        )


def _measured(align: Stage, store: StageStore, key: str) -> dict[int, dict[str, Any]]:
    """Step -> the probe there, of a whole alignment: it begins with its trunks, if it has any."""
    trunks = [part for part in align.chain() if part.kind == "align_trunk"]
    spent, found = 0.0, {}
    for part in {part.identity: part for part in [*trunks, align]}.values():
        for point in store.probes(part.identity, key):
            whole = {**point, "device_seconds": spent + point["device_seconds"]}
            found[int(point["step"])] = whole
        spent += _cost(store, part)
    return found


def _cost(store: StageStore, part: Stage) -> float:
    """Device-seconds; 0 while it is not finished."""
    record = store.record(part.identity)
    return 0.0 if record is None else record.cost["device_seconds"]
