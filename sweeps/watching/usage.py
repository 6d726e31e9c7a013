"""How much of the cluster a sweep used, over all its lives: what was paid for and idle.

usage.json is summed up by the heartbeat, which asks the `Stages` actor every few seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from sweeps.records import read_json
from sweeps.sweep import ExecutionSettings
from trainables.storage.folder import Folder

USAGE = "usage.json"

Device: TypeAlias = Literal["GPU", "CPU"]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Device-seconds. Of a cluster that others use as well, what they use counts as not held."""

    device: Device
    up: float = 0.0  # of all nodes while the sweep ran
    held: float = 0.0  # by its stages, and by workers that wait for the next one
    at_work: float = 0.0  # of these: by stages whose workers had begun

    def later(self, seconds: float, now: Mapping[str, Mapping[str, float]]) -> Usage:
        """After so many seconds of what `Room.usage` says.

        Held is at most what is up: the rest waits for nodes.
        """
        up, held, at_work = (now[name][self.device] for name in ("up", "held", "at_work"))
        return replace(
            self,
            up=self.up + seconds * up,
            held=self.held + seconds * min(held, up),
            at_work=self.at_work + seconds * min(at_work, up),
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        if not self.up:
            return f"{self.device} time: none was seen."
        hours = [f"{seconds / 3600:.2f} h" for seconds in (self.up, self.held, self.at_work)]
        idle = [(self.held - self.at_work) / self.up, (self.up - self.held) / self.up]
        return (
            f"{self.device} time: {hours[0]} of nodes that were up, {hours[1]} held by stages and "
            f"their workers, {hours[2]} at work. Idle: {idle[0]:.0%} held between stages and while "
            f"workers start, {idle[1]:.0%} not held by this sweep."
        )


def counted(execution: ExecutionSettings) -> Device:
    """What the sweep's cost is counted in: GPUs where any stage uses one."""
    kinds = (execution.mae, execution.align, execution.finetune, execution.tasks)
    return "GPU" if any(kind.gpus_per_worker for kind in kinds) else "CPU"


def read_usage(folder: Folder, device: Device) -> Usage:
    """So far; nothing where the sweep has not run, or counts in other devices since."""
    known = read_json(folder, USAGE)
    return Usage(**known) if known and known["device"] == device else Usage(device=device)
