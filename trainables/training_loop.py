"""The one training loop: stage 1, stage 2 and fine-tuning differ in what they hand to it.

A run that was interrupted and resumed ends with the weights of one that was not, bit for bit on
CPU: the data follow from the step, and all other randomness from (seed, step, rank).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.checkpoint import load_checkpoint, save_checkpoint
from trainables.data.loader import Batch
from trainables.optimization import build_optimizer, learning_rate, set_learning_rate
from trainables.process_group import from_first, gathered, rank, summed, world_size
from trainables.running_averages import RunningAverages
from trainables.stage_run import NonFiniteLoss, StageRun, StageStopped
from trainables.stages.rung_probes import RungProbes
from trainables.training_data import TrainingData
from trainables.training_settings import OptimizerSettings

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STEP_STREAM = 2  # second word of a step's seed: apart from masks and augmentation


@dataclass(kw_only=True)
class Progress:
    """How far a run is; all of it is in the checkpoint."""

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # over the clips of this epoch so far
    point: dict[str, float] = field(default_factory=dict)  # the last whole epoch's curves
    replaced: dict[str, dict[str, int]] = field(default_factory=dict)  # source -> path -> times
    device_seconds: float = 0.0  # of earlier attempts, up to their last checkpoints


class _Clock:
    """Speed since a step."""

    def __init__(self, step: int) -> None:
        self.step, self.began = step, time.monotonic()

    def steps_per_second(self, step: int) -> float:
        return (step - self.step) / (time.monotonic() - self.began)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a checkpoint holds."""

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    averages: RunningAverages | None
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
        if rank() == 0:
            state = {
                "objective": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "progress": {**asdict(self.progress), "device_seconds": self.device_seconds(run)},
            }
            if self.averages is not None:
                state["averages"] = self.averages.state_dict()
            save_checkpoint(run.store.checkpoint(run.stage.identity), state)

    def resume(self, run: StageRun) -> None:
        state = load_checkpoint(run.store.checkpoint(run.stage.identity))
        if state is not None:
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            for name, value in state["progress"].items():
                setattr(self.progress, name, value)
            if self.averages is not None:
                self.averages.load_state_dict(state["averages"])


def train(
    objective: nn.Module,
    run: StageRun,
    *,
    data: TrainingData,
    optimizer: OptimizerSettings,
    depth: int,
    seed: int,
    evaluate: Callable[[], dict[str, float]] = dict,
    averages: RunningAverages | None = None,
    probes: RungProbes | None = None,
) -> Progress:
    """Train `objective` in place on all of `data`.

    `objective` maps a Batch to values per clip, each [B], "loss" among them; all are averaged
    into the curves, to which `evaluate` adds after each epoch. `depth` is the trunk's, for the
    layer decay. `averages` takes in the weights after each step and epoch; `probes` looks at them
    after some steps. The host waits for the
    device twice a step, to check that loss and gradient are finite.

    Raises:
        NonFiniteLoss: before the optimizer step, on all processes alike.
        StageStopped: after a checkpoint, when the run is no longer wanted.
        ValueError: too many clips that cannot be read.
    """
    objective.to(run.device)
    state = _State(
        objective=objective,
        optimizer=build_optimizer(objective, depth, optimizer),
        scaler=torch.amp.GradScaler(run.device.type, enabled=optimizer.precision == "fp16"),
        progress=Progress(),
        averages=averages,
    )
    state.resume(run)
    progress = state.progress
    model = objective if world_size() == 1 else DistributedDataParallel(objective)

    clock = _Clock(progress.step)
    remaining = range(progress.step, data.steps)
    for step, batch in zip(remaining, data.batches(progress.step), strict=True):
        lr = learning_rate(step, data.steps, optimizer)
        _step(model, state, batch, run, optimizer, lr=lr, seed=seed)
        progress.step = step + 1
        if averages is not None:
            averages.after_step(progress.step)
        if probes is not None:
            probes.after_step(progress.step, state.device_seconds(run))
        epoch, inside = divmod(progress.step, data.steps_per_epoch)
        if inside == 0:
            clips = data.steps_per_epoch * optimizer.batch_size
            clips_per_second = clock.steps_per_second(progress.step) * optimizer.batch_size
            means = {name: value / clips for name, value in progress.sums.items()}
            objective.eval()
            progress.point, progress.sums = {**means, **evaluate()}, {}
            if averages is not None:
                averages.after_epoch(epoch)  # before the checkpoint that follows
            busy = [part for part in gathered(run.gpu.since_last()) if part is not None]
            if rank() == 0:
                seconds = progress.device_seconds / world_size() + run.seconds()
                times = {"clips_per_second": clips_per_second, "seconds": seconds}
                if busy:
                    times["gpu_utilisation"] = sum(busy) / len(busy)
                point = {"epoch": epoch, **progress.point, "lr": lr, **times}
                run.store.add_progress(run.stage.identity, point)
            clock = _Clock(progress.step)
        if inside == 0 or progress.step % run.execution.checkpoint_every_steps == 0:
            state.gather_replaced()
            data.check_replaced(progress.replaced)
            state.save(run)
            if progress.step < data.steps and from_first(rank() == 0 and run.should_stop()):
                raise StageStopped(f"{run.stage.kind} {run.stage.identity}, step {progress.step}")
    return progress


def _step(
    model: nn.Module,
    state: _State,
    batch: Batch,
    run: StageRun,
    settings: OptimizerSettings,
    *,
    lr: float,
    seed: int,
) -> None:
    """One optimizer step on a global batch."""
    step, scaler = state.progress.step, state.scaler
    words = np.random.SeedSequence([seed, STEP_STREAM, step, rank()])
    torch.manual_seed(int(words.generate_state(1, np.uint64)[0]))
    model.train()
    sums = _backward(model, batch, run, settings, scaler)
    loss = sums["loss"] / settings.batch_size
    if not math.isfinite(loss):
        raise NonFiniteLoss(step, loss)
    scaler.unscale_(state.optimizer)
    trained = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm or math.inf)
    if not scaler.is_enabled() and not norm.isfinite():  # the scaler skips such a step by itself
        raise NonFiniteLoss(step, loss, norm.item())
    set_learning_rate(state.optimizer, lr)
    scaler.step(state.optimizer)
    scaler.update()
    state.optimizer.zero_grad()
    for name, value in sums.items():
        state.progress.sums[name] = state.progress.sums.get(name, 0.0) + value
    state.replaced_here.update(batch.unreadable)


def _backward(
    model: nn.Module,
    batch: Batch,
    run: StageRun,
    settings: OptimizerSettings,
    scaler: torch.amp.GradScaler,
) -> dict[str, float]:
    """Leave the gradient of the mean loss over the global batch; return sums over its clips."""
    parts = batch.split(run.execution.per_device_batch or len(batch))
    # DistributedDataParallel averages gradients over the processes; this makes it a sum.
    weight = world_size() / settings.batch_size
    totals: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        with nullcontext() if last else _without_sync(model):
            with torch.autocast(
                run.device.type,
                AUTOCAST[settings.precision],
                enabled=settings.precision != "fp32",
            ):
                values: dict[str, Tensor] = model(part.to(run.device))
            scaler.scale(values["loss"].sum() * weight).backward()
        for name, value in values.items():
            total = value.detach().sum(dtype=torch.float64)
            totals[name] = totals[name] + total if name in totals else total
    everywhere = summed(torch.stack(list(totals.values())))
    return dict(zip(totals, everywhere.tolist(), strict=True))


def _without_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients stay on this process, to be summed with a later part's."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
