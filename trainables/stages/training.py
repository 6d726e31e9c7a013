"""How every stage that trains begins and ends; between the two stands its objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from trainables.models.trunk import Trunk
from trainables.running_averages import RunningAverages
from trainables.settings import parse
from trainables.stage import TRUNKS
from trainables.stage_run import Outcome, StageRun
from trainables.stage_store import Write
from trainables.stages.rung_probes import RungProbes
from trainables.stages.weights import trunk_from, writer
from trainables.training_data import TrainingData
from trainables.training_loop import train
from trainables.training_settings import ClipSettings, ModelSettings, OptimizerSettings


def starting_trunk(run: StageRun, role: str, drop_path: float = 0.0) -> tuple[Trunk, ClipSettings]:
    """The trunk with the weights of the input `role`, and what it sees of a video.

    torch is seeded last, so that what the caller adds to the trunk follows from the stage's seed.
    """
    stage = run.stage.settings
    clip = parse(ClipSettings, stage["clip"], "clip")
    model = parse(ModelSettings, stage["model"], "model")
    trunk = trunk_from(run.input_file(role, "weights"), model, clip, drop_path)
    torch.manual_seed(stage["seed"])
    return trunk, clip


def train_stage(
    run: StageRun,
    objective: nn.Module,
    *,
    data: TrainingData,
    optimizer: OptimizerSettings,
    depth: int,
    tensors: Mapping[str, Callable[[], Mapping[str, Tensor]]],
    evaluate: Callable[[], dict[str, float]] = dict,
    averages: RunningAverages | None = None,
    probes: RungProbes | None = None,
) -> Outcome:
    """Train `objective`; see `train`. `tensors`: file of the artifact -> what it holds by then.

    What `averages` kept is in the artifact too. A trunk's artifact is the training state instead
    of `tensors`. The clips are the stage's own, without those of its trunk.
    """
    state = train(
        objective,
        run,
        data=data,
        optimizer=optimizer,
        depth=depth,
        seed=run.stage.settings["seed"],
        evaluate=evaluate,
        averages=averages,
        probes=probes,
    )
    progress = state.progress
    write: dict[str, Write]
    if run.stage.kind in TRUNKS:
        write = {"state.pt": state.write}
    else:
        write = {f"{file}.safetensors": writer(held()) for file, held in tensors.items()}
    return Outcome(
        write=write if averages is None else {**write, **averages.write()},
        kept={} if averages is None else averages.kept(),
        metrics=progress.point,
        clips=(progress.step - progress.first_step) * optimizer.batch_size,
        mixture=data.described(progress.replaced),
        earlier_device_seconds=progress.device_seconds,
    )
