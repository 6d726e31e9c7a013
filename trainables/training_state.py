"""All that a run is made of at a step: what a checkpoint and a trunk's artifact hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import torch
from torch import nn

from trainables.checkpoint import delete_unfinished, load_checkpoint, save_checkpoint
from trainables.process_group import from_first, gathered, rank, world_size
from trainables.running_averages import RunningAverages
from trainables.stage import TRUNKS
from trainables.stage_run import StageRun


@dataclass(kw_only=True)
class Progress:
    """How far a run is; all of it is in the checkpoint."""

    step: int = 0
    first_step: int = 0  # of this stage's own; those before it are a trunk's
    sums: dict[str, float] = field(default_factory=dict)  # over the clips of this epoch so far
    point: dict[str, float] = field(default_factory=dict)  # the last whole epoch's curves
    replaced: dict[str, dict[str, int]] = field(default_factory=dict)  # source -> path -> times
    device_seconds: float = 0.0  # of earlier attempts, up to their last checkpoints


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averages: RunningAverages | None
    progress: Progress = field(default_factory=Progress)
    replaced_here: Counter[tuple[str, str]] = field(default_factory=Counter)  # not yet gathered

    def gather_replaced(self) -> None:
        """Add what every process replaced since the last time to the run's own count."""
        for found in gathered(dict(self.replaced_here)):
            for (source, path), times in found.items():
                paths = self.progress.replaced.setdefault(source, {})
                paths[path] = paths.get(path, 0) + times
        self.replaced_here.clear()

    def device_seconds(self, run: StageRun) -> float:
        """Spent on the stage so far."""
        return self.progress.device_seconds + run.seconds() * world_size()

    def save(self, run: StageRun) -> None:
        """Keep it as the stage's checkpoint."""
        if rank() == 0:
            held = self._held(self.device_seconds(run))
            save_checkpoint(run.store.checkpoint(run.stage.identity), held)

    def write(self, file: IO[bytes]) -> None:
        """A trunk's artifact: what it cost stays behind, for it is in the trunk's record."""
        torch.save(self._held(device_seconds=0.0), file)

    def resume(self, run: StageRun) -> None:
        """Go on from the stage's checkpoint, or from its trunk where that is further."""
        checkpoint = run.store.checkpoint(run.stage.identity)
        if rank() == 0:
            delete_unfinished(checkpoint)
        saved = load_checkpoint(checkpoint)
        if saved is not None:
            self._load(saved)
        trunk = from_first(_trunk_of(run))
        if trunk is not None:
            self._follow(run, trunk)

    def _follow(self, run: StageRun, trunk: str) -> None:
        """Go on where the finished `trunk` ends, with its curves and what it kept of epochs."""
        file = run.store.file(trunk, "state")
        shared: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        step, spent = shared["progress"]["step"], self.progress.device_seconds
        if step <= self.progress.step:
            return
        self._load(shared)
        self.progress.first_step, self.progress.device_seconds = step, spent
        if self.averages is not None:
            record = run.store.record(trunk)
            assert record is not None
            self.averages.take_over(run.store.folder(trunk), record.files)
        if rank() == 0:
            points = [{**point, "device_seconds": 0.0} for point in run.store.progress(trunk)]
            run.store.add_progress(run.stage.identity, *points)

    def _held(self, device_seconds: float) -> dict[str, Any]:
        held = {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": {**asdict(self.progress), "device_seconds": device_seconds},
        }
        if self.averages is not None:
            held["averages"] = self.averages.state_dict()
        return held

    def _load(self, held: dict[str, Any]) -> None:
        self.objective.load_state_dict(held["objective"])
        self.optimizer.load_state_dict(held["optimizer"])
        self.scaler.load_state_dict(held["scaler"])
        for name, value in held["progress"].items():
            setattr(self.progress, name, value)
        if self.averages is not None:
            self.averages.load_state_dict(held["averages"])


def _trunk_of(run: StageRun) -> str | None:
    """The trunk that the stage branches from; for a trunk, the last one before it in the store."""
    if run.stage.kind in TRUNKS:
        made = run.store.trunks(run.stage.line)
        earlier = [step for step in made if step < run.stage.settings["step"]]
        return made[max(earlier)] if earlier else None
    trunk = run.stage.inputs.get("trunk")
    return None if trunk is None else trunk.identity
