"""What a stage is given to run with, and what it hands back to be published."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainables.config import Execution
from trainables.data.catalog import Dataset
from trainables.gpu_meter import GpuMeter
from trainables.intermediate_probes import IntermediateProbes
from trainables.stage import Stage
from trainables.stage_store import StageStore, Write


class StageStopped(Exception):
    """The stage is no longer wanted, or not here; its checkpoint is kept."""


class NonFiniteLoss(Exception):
    """The loss or its gradient is no finite number; the weights were not touched by it."""

    def __init__(self, step: int, loss: float, gradient_norm: float | None = None) -> None:
        super().__init__(step, loss, gradient_norm)
        self.step, self.loss, self.gradient_norm = step, loss, gradient_norm

    def __str__(self) -> str:
        what = f"loss is {self.loss}"
        if self.gradient_norm is not None:
            what += f", gradient norm {self.gradient_norm}"
        return f"step {self.step}: {what}; lower lr_peak, set clip_norm, or use precision fp32"


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """One attempt at a stage on this process."""

    stage: Stage
    store: StageStore
    datasets: Mapping[str, Dataset]
    execution: Execution
    should_stop: Callable[[], bool]  # asked at checkpoints and at the end of epochs
    beat: Callable[[], bool]  # after each step or batch: a sign of life; True: leave this place
    device: torch.device
    gpu: GpuMeter
    probes: IntermediateProbes | None = None  # of what aligns
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Wall seconds of this attempt so far."""
        return time.monotonic() - self.started

    def input_file(self, role: str, file: str) -> Path:
        """One file of an input's artifact, on this node's disk."""
        return self.store.file(self.stage.inputs[role].identity, file)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An artifact before it is published; see `StageStore.publish` for `write` and `kept`."""

    write: Mapping[str, Write]
    metrics: dict[str, Any]
    kept: Mapping[str, str] = field(default_factory=dict)
    clips: int = 0
    mixture: dict[str, Any] = field(default_factory=dict)
    earlier_device_seconds: float = 0.0  # of the attempts that this one resumed from
