"""Fine-tuning: trunk and a new head, on a downstream dataset's training split."""

from __future__ import annotations

import torch

from trainables.config import FinetuneSettings
from trainables.models.heads import Classifier, label_space
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.classification import Classification
from trainables.stages.weights import trunk_from, writer
from trainables.training_data import downstream_data
from trainables.training_loop import train
from trainables.training_settings import ClipSettings, ModelSettings


def run_finetune(run: StageRun) -> Outcome:
    stage = run.stage.settings
    clip = parse(ClipSettings, stage["clip"], "clip")
    settings = parse(FinetuneSettings, stage["finetune"], "finetune")
    start = run.input_file("weights", "weights")
    trunk = trunk_from(start, parse(ModelSettings, stage["model"], "model"), clip)
    dataset = run.datasets[stage["dataset"]]
    data = downstream_data(run, clip, settings, dataset, seed=stage["seed"])
    torch.manual_seed(stage["seed"])
    model = Classifier(trunk, label_space({dataset.name: dataset.classes}, "union"))
    progress = train(
        Classification(model, settings.label_smoothing),
        run,
        data=data,
        optimizer=settings.optimizer,
        depth=trunk.depth,
        seed=stage["seed"],
    )
    return Outcome(
        write={"model.safetensors": writer(model.state_dict())},
        metrics=progress.point,
        clips=data.mixture.total,
        mixture=data.described(progress.replaced),
        earlier_device_seconds=progress.device_seconds,
    )
