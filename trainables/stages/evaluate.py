"""Top-1 of a fine-tuned model on a split of its dataset."""

from __future__ import annotations

import torch

from trainables.bootstrap import bootstrap_interval
from trainables.data.loader import eval_batches
from trainables.models.heads import Classifier, label_space
from trainables.models.trunk import build_trunk
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.classification import EVALUATION_BATCH, ONE_VIEW, classified
from trainables.stages.features import group_ids
from trainables.stages.weights import load_weights
from trainables.training_settings import ClipSettings, ModelSettings


def run_evaluate(run: StageRun) -> Outcome:
    settings = run.stage.settings
    clip = parse(ClipSettings, settings["clip"], "clip")
    dataset = run.datasets[settings["dataset"]]
    trunk = build_trunk(parse(ModelSettings, settings["model"], "model"), clip)
    model = Classifier(trunk, label_space({dataset.name: dataset.classes}, "union"))
    load_weights(model, run.input_file("model", "model"))
    model.to(run.device)
    clips = dataset.split(settings["split"])
    batches = eval_batches(
        dataset,
        clips,
        clip,
        ONE_VIEW,
        batch_size=EVALUATION_BATCH,
        workers=run.execution.loader_workers,
        max_unreadable=settings["max_unreadable"],
    )
    scored = list(classified(model, 0, batches, run.device))
    correct = torch.cat([right for _, right in scored])
    group = group_ids(clips)[torch.cat([batch.clip for batch, _ in scored])]
    low, high = bootstrap_interval(correct.numpy(), group.numpy())
    return Outcome(
        write={},
        metrics={
            "accuracy": correct.double().mean().item(),
            "clips": len(correct),
            "interval_low": low,
            "interval_high": high,
            "left_out": len(clips) - len(correct),
        },
        clips=len(correct),
    )
