"""Training on a downstream dataset: of all weights, or, as augmented probe, of the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from trainables.config import FinetuneSettings
from trainables.models.heads import Classifier, label_space
from trainables.models.trunk import Trunk
from trainables.stage_run import Outcome, StageRun
from trainables.stages.classification import Classification
from trainables.stages.training import starting_trunk, train_stage
from trainables.training_data import downstream_data
from trainables.training_descriptions import settings_of
from trainables.training_settings import ClipSettings


def run_finetune(run: StageRun) -> Outcome:
    """Serves the kinds finetune and augmented_probe, whose trunk is frozen."""
    stage, kind = run.stage.settings, run.stage.kind
    settings = settings_of(FinetuneSettings, stage[kind], kind)
    trunk, clip = starting_trunk(run, "weights", settings.drop_path)
    model = downstream_classifier(run, trunk)
    if kind == "augmented_probe":
        model.freeze_trunk()
    return train_downstream(
        run, model, settings, clip, depth=trunk.depth, tensors={"model": model.state_dict}
    )


def downstream_classifier(run: StageRun, trunk: Trunk) -> Classifier:
    """`trunk` with a new head over the classes of the stage's dataset."""
    dataset = run.datasets[run.stage.settings["dataset"]]
    return Classifier(trunk, label_space({dataset.name: dataset.classes}, "union"))


def train_downstream(
    run: StageRun,
    model: Classifier,
    settings: FinetuneSettings,
    clip: ClipSettings,
    *,
    depth: int,
    tensors: Mapping[str, Callable[[], Mapping[str, Tensor]]],
    evaluate: Callable[[], dict[str, float]] = dict,
) -> Outcome:
    """Train what `model` trains on the stage's dataset; see `train_stage`."""
    stage = run.stage.settings
    return train_stage(
        run,
        Classification(model, settings, stage["seed"]),
        data=downstream_data(
            run, clip, settings, run.datasets[stage["dataset"]], seed=stage["seed"]
        ),
        optimizer=settings.optimizer,
        depth=depth,
        tensors=tensors,
        evaluate=evaluate,
    )
