"""The training stream of a stage: its mixture, its length, its batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.config import FinetuneSettings
from trainables.contrastive_settings import ContrastiveSettings
from trainables.data.batch import Batch
from trainables.data.batch_order import Pairing, check_parts, pairing_in
from trainables.data.catalog import Dataset
from trainables.data.loader import check_unreadable, training_batches
from trainables.data.mixture import Mixture
from trainables.process_group import rank, world_size
from trainables.stage_descriptions import downstream_steps_per_epoch
from trainables.stage_run import StageRun
from trainables.training_descriptions import Pretraining
from trainables.training_settings import AugmentSettings, ClipSettings


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    run: StageRun
    mixture: Mixture
    clip: ClipSettings
    augment: AugmentSettings
    max_unreadable: float
    steps_per_epoch: int
    pairing: Pairing
    resample: Mapping[str, tuple[int, int]]  # source -> width, height
    second_views: Mapping[str, float]  # source -> scale of what a second view shows instead

    @property
    def steps(self) -> int:
        return self.mixture.total // self.mixture.batch_size

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's part of each global batch from `step` on."""
        return training_batches(
            self.run.datasets,
            self.mixture,
            self.clip,
            self.augment,
            start_step=step,
            stop_step=self.steps,
            rank=rank(),
            world_size=world_size(),
            workers=self.run.execution.loader_workers,
            video_reader=self.run.execution.video_reader,
            max_unreadable=self.max_unreadable,
            pairing=self.pairing,
            resample=self.resample,
            second_views=self.second_views,
            pin_memory=self.run.device.type == "cuda",
        )

    def check_replaced(self, replaced: Mapping[str, Mapping[str, int]]) -> None:
        """Raises ValueError when all processes and attempts together replaced too many clips."""
        found = [(source, path) for source, paths in replaced.items() for path in paths]
        check_unreadable(found, self.mixture.sizes, self.max_unreadable)

    def described(self, replaced: dict[str, dict[str, int]]) -> dict[str, Any]:
        """What was asked of the mixture and what came, for the record."""
        total = self.mixture.total
        return {
            "requested": {name: str(share) for name, share in self.mixture.shares.items()},
            "realised": self.mixture.counts(0, total),
            "repetition": self.mixture.repetition(total),
            "replaced": replaced,
        }


def mixed_data(run: StageRun, clip: ClipSettings, settings: Pretraining, seed: int) -> TrainingData:
    """The stream of a pre-training stage; clips that fill no whole batch of an epoch are left out.

    A trunk's ends at its step, else nothing about it depends on where it ends.

    Raises:
        ValueError: an epoch shorter than a batch; a batch that does not hold all views of its
            clips; see `check_parts`.
    """
    assert isinstance(settings.clips_per_epoch, int), "resolved when the stage was described"
    batch_size = settings.optimizer.batch_size
    if settings.clips_per_epoch < batch_size:
        raise ValueError(
            f"clips_per_epoch {settings.clips_per_epoch} is less than optimizer.batch_size "
            f"{batch_size}; raise the one or lower the other"
        )
    pairing = pairing_in(settings)
    check_parts(batch_size, pairing, run.execution.per_device_batch, world_size())
    steps_per_epoch = settings.clips_per_epoch // batch_size
    shares = settings.mixture.shares
    steps = run.stage.settings.get("step", settings.epochs * steps_per_epoch)
    mixture = Mixture(
        sizes={name: len(run.datasets[name].split("train")) for name in shares},
        shares=shares,
        granularity=settings.mixture.granularity,
        batch_size=batch_size,
        seed=seed,
        total=steps * batch_size,
        match_repetition=settings.mixture.match_repetition,
        views_per_clip=settings.views_per_clip,
    )
    return TrainingData(
        run=run,
        mixture=mixture,
        clip=clip,
        augment=settings.augment,
        max_unreadable=settings.mixture.max_unreadable,
        steps_per_epoch=steps_per_epoch,
        pairing=pairing,
        resample=settings.mixture.resample,
        second_views=_second_views(run, settings),
    )


def _second_views(run: StageRun, settings: Pretraining) -> dict[str, float]:
    if not isinstance(settings, ContrastiveSettings) or not settings.view_scale:
        return {}
    sources = settings.mixture.shares
    return {name: settings.view_scale for name in sources if run.datasets[name].has_views}


def downstream_data(
    run: StageRun, clip: ClipSettings, settings: FinetuneSettings, dataset: Dataset, seed: int
) -> TrainingData:
    """The training split of one dataset; an epoch is its whole batches, one at the least."""
    clips, batch_size = len(dataset.split("train")), settings.optimizer.batch_size
    pairing = pairing_in(settings)
    check_parts(batch_size, pairing, run.execution.per_device_batch, world_size())
    steps_per_epoch = downstream_steps_per_epoch(clips, batch_size)
    mixture = Mixture(
        sizes={dataset.name: clips},
        shares={dataset.name: 1},
        granularity="clip",
        batch_size=batch_size,
        seed=seed,
        total=settings.epochs * steps_per_epoch * batch_size,
    )
    return TrainingData(
        run=run,
        mixture=mixture,
        clip=clip,
        augment=settings.augment,
        max_unreadable=settings.max_unreadable,
        steps_per_epoch=steps_per_epoch,
        pairing=pairing,
        resample={},
        second_views={},
    )
