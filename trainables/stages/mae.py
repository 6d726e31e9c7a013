"""Stage 1: masked autoencoding on a mixture; labels are not looked at."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainables.config import MaeSettings
from trainables.data.batch import Batch
from trainables.device import to_device
from trainables.models.mae import MaskedAutoencoder, draw_masks
from trainables.models.video_vit import VideoViT
from trainables.stage_run import Outcome, StageRun
from trainables.stages.training import starting_trunk, train_stage
from trainables.training_data import mixed_data
from trainables.training_descriptions import settings_of


class Reconstruction(nn.Module):
    """The loss of drawing what each clip's own seed hides."""

    def __init__(
        self, model: MaskedAutoencoder, mask_ratio: float, masking: Literal["random", "tube"]
    ) -> None:
        super().__init__()
        self.model, self.mask_ratio, self.masking = model, mask_ratio, masking

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        grid = self.model.trunk.grid
        masks = draw_masks(batch.seed.tolist(), grid, self.mask_ratio, self.masking)
        visible, masked = (to_device(mask, batch.video.device) for mask in masks)
        return {"loss": self.model(batch.video, visible, masked)}


def run_mae(run: StageRun) -> Outcome:
    """Serves the kinds mae and mae_trunk."""
    stage = run.stage.settings
    settings = settings_of(MaeSettings, stage["mae"], "mae")
    trunk, clip = starting_trunk(run, "start")
    assert isinstance(trunk, VideoViT), "TrialConfig lets no other model have a stage 1"
    model = MaskedAutoencoder(trunk, settings.decoder, settings.target)
    return train_stage(
        run,
        Reconstruction(model, settings.mask_ratio, settings.masking),
        data=mixed_data(run, clip, settings, seed=stage["seed"]),
        optimizer=settings.optimizer,
        depth=trunk.depth,
        tensors={"weights": lambda: model.trunk_tensors(settings.final_norm)},
    )
