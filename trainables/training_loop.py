"""The one training loop: stage 1, stage 2 and fine-tuning differ in what they hand to it.

A run that was interrupted and resumed ends with the weights of one that was not, bit for bit on
CPU: the data follow from the step, and all other randomness from (seed, step, rank).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.acceleration import accelerate, eagerly
from trainables.data.batch import Batch
from trainables.device import Arrivals
from trainables.optimization import build_optimizer, set_learning_rate
from trainables.process_group import from_first, gathered, rank, summed, world_size
from trainables.running_averages import RunningAverages
from trainables.schedules import learning_rate
from trainables.stage_run import NonFiniteLoss, StageRun, StageStopped
from trainables.stages.rung_probes import RungProbes
from trainables.training_data import TrainingData
from trainables.training_settings import OptimizerSettings
from trainables.training_state import TrainingState

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAVE, NORM = "leave", "gradient norm"
STEP_STREAM = 2  # second word of a step's seed: apart from masks and augmentation


class _Clock:
    """Speed since a step."""

    def __init__(self, step: int) -> None:
        self.step, self.began = step, time.monotonic()

    def steps_per_second(self, step: int) -> float:
        return (step - self.step) / (time.monotonic() - self.began)


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
) -> TrainingState:
    """Train `objective` in place to the end of `data`, from where its checkpoint or trunk ends.

    `objective` maps a Batch to values per clip, each [B], "loss" among them; all are averaged
    into the curves, to which `evaluate` adds after each epoch. `depth` is the trunk's, for the
    layer decay. `averages` takes in the weights after each step and epoch; `probes` looks at them
    after some steps. The host waits for a GPU at the end of an epoch, at checkpoints and probes;
    else it is a step ahead, and hears of each step's losses with the next.

    Raises:
        NonFiniteLoss: before the optimizer step, on all processes alike. The GPU itself leaves it
            out, and all after it.
        StageStopped: after a checkpoint, when the run is no longer wanted, or must leave.
        ValueError: too many clips that cannot be read.
    """
    objective.to(run.device)
    accelerate(objective, run.execution, run.device)
    state = TrainingState(
        objective=objective,
        optimizer=build_optimizer(objective, depth, optimizer),
        scaler=torch.amp.GradScaler(run.device.type, enabled=optimizer.precision == "fp16"),
        averages=averages,
    )
    state.resume(run)
    progress = state.progress
    model = objective if world_size() == 1 else DistributedDataParallel(objective)

    steps = Steps(model, state, run, optimizer, seed)
    clock = _Clock(progress.step)
    remaining = range(progress.step, data.steps)
    for step, batch in zip(remaining, data.batches(progress.step), strict=True):
        lr = learning_rate(step, data.steps, optimizer)
        leave = steps.take(batch, lr)
        progress.step = step + 1
        epoch, inside = divmod(progress.step, data.steps_per_epoch)
        looked_at = probes is not None and probes.due(progress.step)
        due = progress.step % run.execution.checkpoint_every_steps == 0
        ended = progress.step == data.steps
        paused = inside == 0 or due or ended
        if looked_at or paused or leave:
            leave = steps.wait() or leave
        if averages is not None:
            averages.after_step(progress.step)
        if probes is not None:
            with eagerly(run.execution):
                probes.after_step(progress.step, state.device_seconds(run))
        if inside == 0:
            clips = data.steps_per_epoch * optimizer.batch_size
            clips_per_second = clock.steps_per_second(progress.step) * optimizer.batch_size
            means = {name: value / clips for name, value in progress.sums.items()}
            objective.eval()
            with eagerly(run.execution):
                progress.point, progress.sums = {**means, **evaluate()}, {}
            if averages is not None:
                averages.after_epoch(epoch)  # before a checkpoint
            busy = [part for part in gathered(run.gpu.since_last()) if part is not None]
            if rank() == 0:
                times = {
                    "clips_per_second": clips_per_second,
                    "device_seconds": state.device_seconds(run),
                    "time": time.time(),  # of day; a point told twice has the same
                }
                if busy:
                    times["gpu_utilisation"] = sum(busy) / len(busy)
                point = {"epoch": epoch, **progress.point, "lr": lr, **times}
                run.store.add_progress(run.stage.identity, point)
            clock = _Clock(progress.step)
        if paused or leave:
            state.gather_replaced()
            data.check_replaced(progress.replaced)
            stops = not ended and (leave or from_first(rank() == 0 and run.should_stop()))
            # What has ended is published at once, and needs none, unless the node may go before.
            if leave or stops or (due and not ended):
                state.save(run)
            if stops:
                raise StageStopped(f"{run.stage.kind} {run.stage.identity}, step {progress.step}")
    return state


class Steps:
    """Optimizer steps on global batches."""

    def __init__(
        self,
        model: nn.Module,
        state: TrainingState,
        run: StageRun,
        settings: OptimizerSettings,
        seed: int,
    ) -> None:
        self._model, self._state, self._run, self._settings = model, state, run, settings
        self._seed = seed
        self._arrivals = Arrivals()
        self._untold = deque[tuple[int, list[str]]]()  # steps on their way, what they tell
        # Past 0, a fused optimizer leaves the step out on the device, as it does for a GradScaler.
        self._broken = torch.zeros((), device=run.device)

    def take(self, batch: Batch, lr: float) -> bool:
        """One step. Returns whether any process must leave, as far as that is known."""
        state, settings, scaler = self._state, self._settings, self._state.scaler
        step = state.progress.step
        words = np.random.SeedSequence([self._seed, STEP_STREAM, step, rank()])
        torch.manual_seed(int(words.generate_state(1, np.uint64)[0]))
        self._model.train()
        sums = _backward(self._model, batch, self._run, settings, scaler)
        scaler.unscale_(state.optimizer)
        groups = state.optimizer.param_groups
        trained = [parameter for group in groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm or math.inf)
        leave = self._tell(step, {**sums, NORM: norm.double()})
        if not scaler.is_enabled():  # the scaler skips such a step by itself
            finite = sums["loss"].isfinite() & norm.isfinite()
            self._broken.copy_(torch.maximum(self._broken, (~finite).float()))
            state.optimizer.found_inf = self._broken  # type: ignore[attr-defined]
        set_learning_rate(state.optimizer, lr)
        scaler.step(state.optimizer)
        scaler.update()
        state.optimizer.zero_grad()
        state.replaced_here.update(batch.unreadable)
        return leave

    def wait(self) -> bool:
        """Until all steps that were taken are known; as `take`."""
        return any([self._told(values) for values in self._arrivals.last()])

    def _tell(self, step: int, values: dict[str, Tensor]) -> bool:
        self._untold.append((step, list(values)))
        come = self._arrivals.send(torch.stack(list(values.values())))
        return any([self._told(values) for values in come])

    def _told(self, values: Tensor) -> bool:
        """Add a step's sums to the epoch's. Returns whether any process must leave.

        Raises NonFiniteLoss.
        """
        step, names = self._untold.popleft()
        sums = dict(zip(names, values.tolist(), strict=True))
        leave, norm = sums.pop(LEAVE) > 0, sums.pop(NORM)
        loss = sums["loss"] / self._settings.batch_size
        if not math.isfinite(loss):
            raise NonFiniteLoss(step, loss)
        if not self._state.scaler.is_enabled() and not math.isfinite(norm):
            raise NonFiniteLoss(step, loss, norm)
        epoch_sums = self._state.progress.sums
        for name, value in sums.items():
            epoch_sums[name] = epoch_sums.get(name, 0.0) + value
        return leave


def _backward(
    model: nn.Module,
    batch: Batch,
    run: StageRun,
    settings: OptimizerSettings,
    scaler: torch.amp.GradScaler,
) -> dict[str, Tensor]:
    """Leave the gradient of the mean loss over the global batch; return sums over its clips.

    Among them LEAVE, how many processes must leave: in the same message, so that all do so after
    the same step. They are float64, on the device.
    """
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
    leaves = float(run.beat())
    totals[LEAVE] = torch.full((), leaves, dtype=torch.float64, device=run.device)
    everywhere = summed(torch.stack(list(totals.values())))
    return dict(zip(totals, everywhere.unbind(), strict=True))


def _without_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients stay on this process, to be summed with a later part's."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
