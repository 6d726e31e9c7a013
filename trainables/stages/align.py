"""Stage 2: supervised training on a mixture of labelled sources."""

from __future__ import annotations

import numpy as np
import torch

from trainables.config import AlignSettings
from trainables.data.catalog import Clip, Dataset
from trainables.models.heads import Classifier, label_space
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.classification import Classification, accuracy
from trainables.stages.weights import trunk_from, writer
from trainables.training_data import mixed_data, mixed_settings
from trainables.training_loop import train
from trainables.training_settings import ClipSettings, ModelSettings


def run_align(run: StageRun) -> Outcome:
    stage = run.stage.settings
    clip = parse(ClipSettings, stage["clip"], "clip")
    settings = mixed_settings(AlignSettings, stage["align"], "align")
    start = run.input_file("start", "weights")
    trunk = trunk_from(start, parse(ModelSettings, stage["model"], "model"), clip)
    data = mixed_data(run, clip, settings, seed=stage["seed"])
    sources = {name: run.datasets[name] for name in data.mixture.sources}
    space = label_space({name: d.classes for name, d in sources.items()}, settings.head)
    torch.manual_seed(stage["seed"])
    model = Classifier(trunk, space)
    heldout = {name: _heldout(d, settings.heldout_clips) for name, d in sources.items()}

    def evaluate() -> dict[str, float]:
        return {
            f"heldout/{name}": accuracy(
                model,
                run,
                sources[name],
                clips,
                source=data.mixture.sources.index(name),
                clip=clip,
                max_unreadable=settings.mixture.max_unreadable,
            )
            for name, clips in heldout.items()
            if clips
        }

    progress = train(
        Classification(model, settings.label_smoothing),
        run,
        data=data,
        optimizer=settings.optimizer,
        depth=trunk.depth,
        seed=stage["seed"],
        evaluate=evaluate,
    )
    return Outcome(
        write={"weights.safetensors": writer(trunk.state_dict())},
        metrics=progress.point,
        clips=data.mixture.total,
        mixture=data.described(progress.replaced),
        earlier_device_seconds=progress.device_seconds,
    )


def _heldout(dataset: Dataset, count: int) -> list[Clip]:
    """At most `count` clips of the selection split, always the same, spread over its classes."""
    clips = dataset.split("selection")
    chosen = np.random.default_rng(0).permutation(len(clips))[:count]
    return [clips[index] for index in sorted(chosen)]
