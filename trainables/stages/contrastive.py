"""The contrastive stage: which views belong together, on a mixture of sources (GenRep's idea).

Or, of a generator whose latents are known, what it was asked for: its inverter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trainables.contrastive_settings import ContrastiveSettings
from trainables.data.batch import Batch
from trainables.data.batch_order import shard
from trainables.data.catalog import Dataset
from trainables.data.latents import training_latents
from trainables.device import to_device
from trainables.models.contrastive import Projection, contrastive_loss, inverter_loss
from trainables.models.heads import Classifier, LabelSpace, label_space
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
        of, temperature = settings.projection, settings.temperature
        assert of is not None and temperature is not None
        self.trunk, self.temperature = trunk, temperature
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


class Inversion(nn.Module):
    """What a generator was asked for: MSE of the latent and cross-entropy of the class.

    `latents`: float32 [clips, D] of each source.
    """

    latent_of: Tensor

    def __init__(self, trunk: Trunk, space: LabelSpace, latents: Sequence[Tensor]) -> None:
        super().__init__()
        self.model = Classifier(trunk, space)
        self.latent_head = nn.Linear(trunk.width, latents[0].shape[1])
        self.register_buffer("latent_of", pad_sequence(list(latents), batch_first=True), False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        feature = self.model.trunk(batch.video)
        logits = self.model.logits(feature, batch.source)
        target = self.model.target(batch.source, batch.label)
        clip = to_device(batch.clip, batch.source.device)
        latent = self.latent_of[batch.source, clip]
        error, entropy = inverter_loss(self.latent_head(feature), latent, logits, target)
        return {
            "loss": error + entropy,
            "latent_error": error,
            "train_accuracy": logits.argmax(dim=1) == target,
        }


def run_contrastive(run: StageRun) -> Outcome:
    """Serves the kinds contrastive and contrastive_trunk."""
    stage = run.stage.settings
    settings = settings_of(ContrastiveSettings, stage["contrastive"], "contrastive")
    trunk, clip = starting_trunk(run, "start", settings.drop_path)
    data = mixed_data(run, clip, settings, seed=stage["seed"])
    space, sources = None, {name: run.datasets[name] for name in data.mixture.sources}
    if settings.classes is not None:
        space = label_space({n: d.classes for n, d in sources.items()}, settings.classes)
    objective: nn.Module
    if settings.loss == "inverter":
        assert space is not None
        objective = Inversion(trunk, space, _latents(sources))
    else:
        objective = Contrast(trunk, settings, space)
    return train_stage(
        run,
        objective,
        data=data,
        optimizer=settings.optimizer,
        depth=trunk.depth,
        tensors={"weights": trunk.state_dict},
    )


def _latents(sources: Mapping[str, Dataset]) -> list[Tensor]:
    """Raises ValueError where they are of different sizes."""
    latents = {name: training_latents(dataset) for name, dataset in sources.items()}
    sizes = {name: each.shape[1] for name, each in latents.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"contrastive.loss 'inverter': the latents of the sources differ in size, {sizes}; "
            "take sources of one generator"
        )
    return [torch.from_numpy(each) for each in latents.values()]
