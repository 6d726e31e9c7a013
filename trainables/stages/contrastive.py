"""The contrastive stage: which views belong together, on a mixture of sources (GenRep's idea)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.contrastive_settings import ContrastiveSettings
from trainables.data.batch import Batch
from trainables.data.batch_order import shard
from trainables.models.contrastive import Projection, contrastive_loss
from trainables.models.heads import LabelSpace, label_space
from trainables.models.trunk import Trunk
from trainables.process_group import joined, rank, world_size
from trainables.stage_run import Outcome, StageRun
from trainables.stages.training import starting_trunk, train_stage
from trainables.training_data import mixed_data
from trainables.training_descriptions import settings_of


class Contrast(nn.Module):
    """SimCLR's or SupCon's loss of each view against those of the whole global batch, whatever
    process has them: the number of workers changes nothing.

    `space`: the classes that SupCon goes by; None: SimCLR. Views 2i and 2i + 1 are a pair.
    """

    output_of: Tensor

    def __init__(
        self, trunk: Trunk, settings: ContrastiveSettings, space: LabelSpace | None
    ) -> None:
        super().__init__()
        self.trunk, self.temperature = trunk, settings.temperature
        of = settings.projection
        self.projection = Projection(trunk.width, of.hidden, of.size)
        self.batch_size, self.by_class = settings.optimizer.batch_size, space is not None
        nothing = torch.zeros(0, dtype=torch.int64)
        self.register_buffer("output_of", nothing if space is None else space.output_of, False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        own = self.projection(self.trunk(batch.video))
        here = shard(list(range(self.batch_size)), rank(), world_size(), "same_clip")
        assert len(here) == len(batch), "check_parts lets no part of it be trained alone"
        with torch.autocast(own.device.type, enabled=False):
            every = joined(own, here[0], self.batch_size)
            if self.by_class:
                label = self.output_of[batch.source, batch.label]
                label = joined(label, here[0], self.batch_size)
            else:
                label = torch.arange(self.batch_size, device=own.device) // 2
            loss, nearest = contrastive_loss(own, every, label, here[0], self.temperature)
        return {"loss": loss, "nearest_is_positive": nearest}


def run_contrastive(run: StageRun) -> Outcome:
    """Serves the kinds contrastive and contrastive_trunk."""
    stage = run.stage.settings
    settings = settings_of(ContrastiveSettings, stage["contrastive"], "contrastive")
    trunk, clip = starting_trunk(run, "start", settings.drop_path)
    data = mixed_data(run, clip, settings, seed=stage["seed"])
    space = None
    if settings.classes is not None:
        classes = {name: run.datasets[name].classes for name in data.mixture.sources}
        space = label_space(classes, settings.classes)
    return train_stage(
        run,
        Contrast(trunk, settings, space),
        data=data,
        optimizer=settings.optimizer,
        depth=trunk.depth,
        tensors={"weights": trunk.state_dict},
    )
