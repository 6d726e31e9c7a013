"""Stage 1: masked autoencoding on a mixture; labels are not looked at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.config import MaeSettings
from trainables.data.loader import Batch
from trainables.models.mae import MaskedAutoencoder, draw_masks
from trainables.models.video_vit import VideoViT
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.weights import trunk_from, writer
from trainables.training_data import mixed_data, mixed_settings
from trainables.training_loop import train
from trainables.training_settings import ClipSettings, ModelSettings


class Reconstruction(nn.Module):
    """The loss of drawing what each clip's own seed hides."""

    def __init__(self, model: MaskedAutoencoder, mask_ratio: float) -> None:
        super().__init__()
        self.model, self.mask_ratio = model, mask_ratio

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        masks = draw_masks(batch.seed.tolist(), self.model.trunk.tokens, self.mask_ratio)
        visible, masked = (mask.to(batch.video.device) for mask in masks)
        return {"loss": self.model(batch.video, visible, masked)}


def run_mae(run: StageRun) -> Outcome:
    stage = run.stage.settings
    clip = parse(ClipSettings, stage["clip"], "clip")
    settings = mixed_settings(MaeSettings, stage["mae"], "mae")
    start = run.input_file("start", "weights")
    trunk = trunk_from(start, parse(ModelSettings, stage["model"], "model"), clip)
    assert isinstance(trunk, VideoViT), "TrialConfig lets no other model have a stage 1"
    data = mixed_data(run, clip, settings, seed=stage["seed"])
    torch.manual_seed(stage["seed"])
    model = MaskedAutoencoder(trunk, settings.decoder, settings.target)
    progress = train(
        Reconstruction(model, settings.mask_ratio),
        run,
        data=data,
        optimizer=settings.optimizer,
        depth=trunk.depth,
        seed=stage["seed"],
    )
    return Outcome(
        write={"weights.safetensors": writer(trunk.state_dict())},
        metrics=progress.point,
        clips=data.mixture.total,
        mixture=data.described(progress.replaced),
        earlier_device_seconds=progress.device_seconds,
    )
