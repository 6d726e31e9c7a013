"""Training on a downstream dataset: of all weights, or, as augmented probe, of the head."""

from __future__ import annotations

from trainables.config import FinetuneSettings
from trainables.models.heads import Classifier, label_space
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.classification import Classification
from trainables.stages.training import starting_trunk, train_stage
from trainables.training_data import downstream_data


def run_finetune(run: StageRun) -> Outcome:
    """Serves the kinds finetune and augmented_probe, whose trunk is frozen."""
    stage, kind = run.stage.settings, run.stage.kind
    settings = parse(FinetuneSettings, stage[kind], kind)
    trunk, clip = starting_trunk(run, "weights", settings.drop_path)
    dataset = run.datasets[stage["dataset"]]
    model = Classifier(trunk, label_space({dataset.name: dataset.classes}, "union"))
    if kind == "augmented_probe":
        model.freeze_trunk()
    return train_stage(
        run,
        Classification(model, settings, stage["seed"]),
        data=downstream_data(run, clip, settings, dataset, seed=stage["seed"]),
        optimizer=settings.optimizer,
        depth=trunk.depth,
        tensors={"model": model.state_dict},
    )
