"""Probes of a trunk in training, on small parts of the downstream datasets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trainables.data.catalog import Clip, Dataset
from trainables.data.loader import eval_batches
from trainables.intermediate_probes import IntermediateProbes
from trainables.models.trunk import Trunk
from trainables.process_group import gathered, rank, world_size
from trainables.stage_run import StageRun
from trainables.stages.classification import EVALUATION_BATCH, ONE_VIEW
from trainables.stages.features import in_precision
from trainables.stages.probe import Features, accuracy, best_fit
from trainables.training_settings import ClipSettings


class RungProbes:
    """Probes `trunk` when it has come to a rung of an alignment of one of `lengths`, in steps.

    All processes of a stage call `after_step` alike. Training is not changed by it: the trunk's
    weights and buffers stay as they are, and each step seeds its own randomness.
    """

    def __init__(
        self,
        run: StageRun,
        probes: IntermediateProbes,
        trunk: Trunk,
        clip: ClipSettings,
        lengths: Sequence[int],
    ) -> None:
        self._run, self._probes, self._trunk, self._clip = run, probes, trunk, clip
        self._steps = {step for length in lengths for step in probes.steps(length).values()}
        self._key = probes.key(run.datasets)

    def due(self, step: int) -> bool:
        return step in self._steps

    def after_step(self, step: int, device_seconds: float) -> None:
        """`step` counts from 1; `device_seconds`: what the stage has cost by then."""
        if not self.due(step):
            return
        self._trunk.eval()
        accuracies = {name: self._accuracy(name) for name in self._probes.downstream}
        if rank() == 0:
            point = {"step": step, "device_seconds": device_seconds, "accuracies": accuracies}
            self._run.store.add_probe(self._run.stage.identity, self._key, point)

    def _accuracy(self, name: str) -> float:
        """Top-1 on the selection clips; 0 on all processes but the first, which alone fits."""
        dataset = self._run.datasets[name]
        parts = {"train": self._probes.train_clips, "selection": self._probes.selection_clips}
        train, selection = (
            self._features(dataset, spread_over_classes(dataset.split(split), count))
            for split, count in parts.items()
        )
        if rank() > 0:
            return 0.0
        classes = len(dataset.classes)
        grid = self._probes.l2_grid
        return accuracy(best_fit(train, selection, grid, classes, self._run.beat), selection)

    def _features(self, dataset: Dataset, clips: Sequence[Clip]) -> Features:
        """Of all `clips`, on every process; each has taken its part of them."""
        own = range(rank(), len(clips), world_size())
        found = []
        with torch.inference_mode():
            for batch in eval_batches(
                dataset,
                [clips[place] for place in own],
                self._clip,
                ONE_VIEW,
                batch_size=EVALUATION_BATCH,
                workers=self._run.execution.loader_workers,
                video_reader=self._run.execution.video_reader,
                max_unreadable=self._probes.max_unreadable,
                pin_memory=self._run.device.type == "cuda",
            ):
                video = batch.to(self._run.device).video
                with in_precision(self._probes.precision, video.device):
                    features = self._trunk(video)
                features = features.half().cpu()
                places = [own[index] for index in batch.clip.tolist()]
                found += list(zip(places, features, strict=True))
                self._run.beat()
        everywhere = sorted((pair for each in gathered(found) for pair in each), key=lambda p: p[0])
        values = torch.stack([features for _, features in everywhere])
        return Features(
            values.unsqueeze(1).to(self._run.device),
            torch.tensor([clips[place].label for place, _ in everywhere]),
            torch.arange(len(everywhere)),
            len(clips) - len(everywhere),
        )


def spread_over_classes(clips: Sequence[Clip], count: int) -> list[Clip]:
    """At most `count` clips, the same ones always: of each class one, then of each a second, ..."""
    order = np.random.default_rng(0).permutation(len(clips))
    seen: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for place in order:
        label = clips[place].label
        seen[label] = seen.get(label, 0) + 1
        ranked.append((seen[label], len(ranked), int(place)))
    return [clips[place] for place in sorted(place for _, _, place in sorted(ranked)[:count])]
