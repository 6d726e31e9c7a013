"""Stage 2: supervised training on a mixture of labelled sources."""

from __future__ import annotations

import numpy as np

from trainables.config import AlignSettings
from trainables.data.catalog import Clip, Dataset
from trainables.models.heads import Classifier, label_space
from trainables.process_group import rank
from trainables.running_averages import RunningAverages
from trainables.stage_run import Outcome, StageRun
from trainables.stages.classification import Classification, accuracy
from trainables.stages.rung_probes import RungProbes
from trainables.stages.training import starting_trunk, train_stage
from trainables.training_data import mixed_data
from trainables.training_descriptions import settings_of


def run_align(run: StageRun) -> Outcome:
    """Serves the kinds align and align_trunk."""
    stage = run.stage.settings
    settings = settings_of(AlignSettings, stage["align"], "align")
    trunk, clip = starting_trunk(run, "start", settings.drop_path)
    data = mixed_data(run, clip, settings, seed=stage["seed"])
    sources = {name: run.datasets[name] for name in data.mixture.sources}
    space = label_space({name: d.classes for name, d in sources.items()}, settings.head)
    model = Classifier(trunk, space)
    averages = None
    if rank() == 0:  # the weights are the same on all
        folder = run.store.snapshots(run.stage.identity)
        trunk.to(run.device)
        epochs = data.steps // data.steps_per_epoch
        averages = RunningAverages(trunk, settings.keep, epochs=epochs, folder=folder)
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

    probes = None
    if run.probes is not None:
        lengths = run.stage.lengths or (data.steps,)  # of whole runs
        probes = RungProbes(run, run.probes, trunk, clip, lengths)
    return train_stage(
        run,
        Classification(model, settings, stage["seed"]),
        data=data,
        optimizer=settings.optimizer,
        depth=trunk.depth,
        tensors={"weights": trunk.state_dict},
        evaluate=evaluate,
        averages=averages,
        probes=probes,
    )


def _heldout(dataset: Dataset, count: int) -> list[Clip]:
    """At most `count` clips of the selection split, always the same, spread over its classes."""
    clips = dataset.split("selection")
    chosen = np.random.default_rng(0).permutation(len(clips))[:count]
    return [clips[index] for index in sorted(chosen)]
