"""The scores of a model trained on a downstream dataset, on a split of it."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data.batch import Batch
from trainables.metrics import scores
from trainables.models.heads import Classifier, label_space
from trainables.models.trunk import build_trunk
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.features import group_ids, over_views, split_of
from trainables.stages.weights import load_weights
from trainables.training_settings import ClipSettings, ModelSettings


def run_evaluate(run: StageRun) -> Outcome:
    """The logits of a clip are the mean over its views (PPMA: 2 windows of 3 crops each)."""
    settings = run.stage.settings
    dataset = run.datasets[settings["dataset"]]
    trunk = build_trunk(
        parse(ModelSettings, settings["model"], "model"),
        parse(ClipSettings, settings["clip"], "clip"),
    )
    model = Classifier(trunk, label_space({dataset.name: dataset.classes}, "union"))
    load_weights(model, run.input_file("model", "model"))
    model.to(run.device).eval()

    def logits_of(batch: Batch) -> Tensor:  # [B, C]
        return model(batch.video, batch.source)

    clips = split_of(run)
    logits, index = over_views(run, logits_of)
    label = torch.tensor([clip.label for clip in clips])[index]
    output = model.output_of.cpu()[0, label]
    return Outcome(
        write={},
        metrics={
            **scores(logits.double().mean(dim=1), output, group_ids(clips)[index]),
            "left_out": len(clips) - len(index),
        },
        clips=logits.shape[:2].numel(),  # that went through the model: the views
    )
