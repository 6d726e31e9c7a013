"""Training and measuring a classifier: what alignment and fine-tuning have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from trainables.config import AlignSettings, FinetuneSettings, TestSettings
from trainables.data.batch import Batch
from trainables.data.catalog import Clip, Dataset
from trainables.data.loader import eval_batches
from trainables.data.mixup import Mixing, draw_mixing, mixed, partners
from trainables.models.heads import Classifier, smoothed_cross_entropy
from trainables.process_group import rank, summed, world_size
from trainables.stage_run import StageRun
from trainables.training_settings import ClipSettings

EVALUATION_BATCH = 64
ONE_VIEW = TestSettings(clips=1, crops=1)


class Classification(nn.Module):
    """Cross-entropy, and whether each clip is classified right; of mixed clips where that is set.

    A mixed clip's loss is that of its own class and its partner's by their shares in it, and it
    is classified right as the one with the larger share. How a batch is mixed follows from `seed`
    and the batch's step.
    """

    def __init__(
        self, model: Classifier, settings: AlignSettings | FinetuneSettings, seed: int
    ) -> None:
        super().__init__()
        self.model, self.seed = model, seed
        self.label_smoothing, self.mixup = settings.label_smoothing, settings.mixup

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if self.mixup is not None:
            mixing = draw_mixing(self.mixup, self.seed, batch.step, *batch.video.shape[-2:])
            if mixing is not None:
                return self._of_mixed(batch, mixing, self.mixup.across_sources)
        logits = self.model(batch.video, batch.source)
        target = self.model.target(batch.source, batch.label)
        return {
            "loss": smoothed_cross_entropy(logits, target, self.label_smoothing),
            "train_accuracy": logits.argmax(dim=1) == target,
        }

    def _of_mixed(self, batch: Batch, mixing: Mixing, across_sources: bool) -> dict[str, Tensor]:
        partner = partners(batch.source, across_sources)
        video, share = mixed(batch.video, partner, mixing)
        logits = self.model(video, batch.source, batch.source[partner])
        target = self.model.target(batch.source, batch.label)
        own, other = (
            smoothed_cross_entropy(logits, of, self.label_smoothing)
            for of in (target, target[partner])
        )
        return {
            "loss": share * own + (1 - share) * other,
            "train_accuracy": logits.argmax(dim=1)
            == torch.where(share >= 0.5, target, target[partner]),
        }


def classified(
    model: Classifier, source: int, batches: Iterator[Batch], device: torch.device
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch, of the `source`-th source, and whether its clips come out right, bool [B].

    In float32 whatever the training's precision: what a score was measured in is in no identity.
    """
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            moved = batch.to(device)
            sources = torch.full_like(moved.label, source)
            predicted = model(moved.video, sources).argmax(dim=1)
            yield batch, (predicted == model.target(sources, moved.label)).cpu()


def accuracy(
    model: Classifier,
    run: StageRun,
    dataset: Dataset,
    clips: Sequence[Clip],
    *,
    source: int,
    clip: ClipSettings,
    max_unreadable: float,
) -> float:
    """Top-1 of the `source`-th source on `clips`, divided among the processes of the stage."""
    batches = eval_batches(
        dataset,
        clips[rank() :: world_size()],
        clip,
        ONE_VIEW,
        batch_size=EVALUATION_BATCH,
        workers=run.execution.loader_workers,
        video_reader=run.execution.video_reader,
        max_unreadable=max_unreadable,
        pin_memory=run.device.type == "cuda",
    )
    seen = torch.zeros(2, dtype=torch.float64, device=run.device)  # right, all
    for _, correct in classified(model, source, batches, run.device):
        seen += torch.tensor([correct.sum(), len(correct)], dtype=torch.float64, device=run.device)
        run.beat()
    right, every = summed(seen).tolist()
    return right / every
