"""Teaches a model what a dataset's training clips look like: first its autoencoder, then its flow.

It is a function of the clips and the settings: what is random at a step follows from the seed and
the step's number, so a run that is stopped ends with the same weights.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainables.data.generators.clip_model import (
    CELL,
    LATENT,
    Autoencoder,
    Cells,
    ClipModel,
    Flow,
    as_channels,
)
from trainables.data.mixture import hashed
from trainables.data.virtual_humans.settings import Count
from trainables.data.whole_files import write_whole
from trainables.settings import Settings

LEARNING_VERSION = 1  # raise it with every change that moves a weight
AUTOENCODER_BATCH, FLOW_BATCH = 64, 256  # clips a step
LR_PEAK, WARMUP = 1e-3, 0.03  # part of the steps; then half a cosine to 0
FITTED = 400  # clips whose cells the principal components are of
NO_CLASS = 0.1  # part of the clips that show the flow no class, for guidance
AVERAGED = 0.995  # of a step's averaged weights, in the next step's
ENCODED = 64  # clips at once


class LearningSettings(Settings):
    """What decides a program that is learnt, with the clips."""

    dataset: str  # its content hash
    clips: Count | None  # of them, chosen by the seed; None: all
    frames: Annotated[int, Field(ge=2, le=64)]
    seconds: Annotated[float, Field(gt=0, le=60)]
    width: Annotated[int, Field(ge=16, le=128, multiple_of=CELL)]  # pixels
    height: Annotated[int, Field(ge=16, le=128, multiple_of=CELL)]
    autoencoder_steps: Count
    flow_steps: Count
    guidance: Annotated[float, Field(ge=1, le=10)]  # of sampling; 1: none
    seed: Annotated[int, Field(ge=0)]

    @property
    def steps(self) -> int:
        return self.autoencoder_steps + self.flow_steps


class Learner:
    """`clips`: uint8 [N, T, H, W, 3]; `labels`: int64 [N], below `classes`."""

    def __init__(
        self, clips: Tensor, labels: Tensor, classes: int, settings: LearningSettings
    ) -> None:
        torch.manual_seed(settings.seed)
        torch.set_num_threads(1)  # sums of several are not the same to the bit
        self.labels, self.settings, self.step = labels, settings, 0
        self.cells = Cells(settings.frames, settings.height, settings.width)
        self.cells.fit(as_channels(clips[torch.randperm(len(clips))[:FITTED]]))
        parts = [self.cells.encode(as_channels(part)) for part in clips.split(ENCODED)]
        self.numbers = torch.cat(parts)
        self.autoencoder, self.flow = Autoencoder(self.numbers.mean(0), classes), Flow(classes)
        self.averaged = AveragedModel(self.flow, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED))
        self.optimizers = [
            torch.optim.AdamW(self.autoencoder.parameters(), betas=(0.9, 0.99), weight_decay=0.01),
            torch.optim.AdamW(self.flow.parameters(), betas=(0.9, 0.99), weight_decay=0.0),
        ]
        self._latents: tuple[Tensor, Tensor] | None = None

    @property
    def finished(self) -> bool:
        return self.step == self.settings.steps

    def advance(self) -> float:
        """One step: its loss. Raises ValueError where it is not finite."""
        rng = torch.Generator().manual_seed(hashed(self.settings.seed, "learn", self.step))
        settings, first = self.settings, self.step < self.settings.autoencoder_steps
        if first:
            loss, done = self._autoencoder_loss(rng), self.step / settings.autoencoder_steps
        else:
            loss = self._flow_loss(rng)
            done = (self.step - settings.autoencoder_steps) / settings.flow_steps
        if not math.isfinite(loss.item()):
            raise ValueError(f"the loss of step {self.step} is {loss.item()}; try another --seed")
        model, optimizer = (self.autoencoder, self.flow)[not first], self.optimizers[not first]
        for group in optimizer.param_groups:
            group["lr"] = LR_PEAK * min(1, done / WARMUP) * (1 + math.cos(math.pi * done)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not first:
            self.averaged.update_parameters(self.flow)
        self.step += 1
        return loss.item()

    def _autoencoder_loss(self, rng: torch.Generator) -> Tensor:
        """The evidence lower bound a number, with the variance of the error that fits it best, so
        that nothing weighs error against divergence (Rybkin et al. 2021, sigma-VAE)."""
        chosen = torch.randint(len(self.numbers), (AUTOENCODER_BATCH,), generator=rng)
        numbers, labels = self.numbers[chosen], self.labels[chosen]
        mean, deviation = self.autoencoder.encode(numbers, labels)
        latent = mean + deviation * torch.randn(mean.shape, generator=rng)
        error = F.mse_loss(self.autoencoder.decode(latent, labels), numbers)
        divergence = (mean**2 + deviation**2 - 1 - 2 * deviation.log()).sum(dim=1).mean() / 2
        return error.log() / 2 + divergence / numbers.shape[1]

    def _flow_loss(self, rng: torch.Generator) -> Tensor:
        """Squared error of the velocity, at a time whose logit is N(0, 1) (Esser et al. 2024)."""
        means, deviations = self._encoded()
        mean, deviation = self._moments()
        chosen = torch.randint(len(means), (FLOW_BATCH,), generator=rng)
        noise, jitter = (torch.randn(FLOW_BATCH, LATENT, generator=rng) for _ in range(2))
        latent = (means[chosen] + deviations[chosen] * jitter - mean) / deviation
        time = torch.randn(FLOW_BATCH, generator=rng).sigmoid()
        hidden = torch.rand(FLOW_BATCH, generator=rng) < NO_CLASS
        labels = self.labels[chosen].masked_fill(hidden, self.flow.any_class)
        velocity = self.flow(noise.lerp(latent, time.unsqueeze(1)), time, labels)
        return F.mse_loss(velocity, latent - noise)

    @torch.no_grad()
    def _encoded(self) -> tuple[Tensor, Tensor]:
        """Means and deviations of the latent vectors of all clips."""
        assert self.step >= self.settings.autoencoder_steps, "the autoencoder is still learning"
        if self._latents is None:
            self._latents = self.autoencoder.encode(self.numbers, self.labels)
        return self._latents

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Of the latent vectors of all clips together."""
        means, deviations = self._encoded()
        return means.mean(0), (means.var(0) + deviations.square().mean(0)).sqrt()

    def generator(self) -> ClipModel:
        flow = self.averaged.module
        assert isinstance(flow, Flow)
        moments = self._moments()
        guidance = self.settings.guidance
        return ClipModel(self.cells, self.autoencoder, flow, *moments, guidance).eval()

    def save(self, path: Path) -> None:
        content = io.BytesIO()
        torch.save({"step": self.step, **{n: p.state_dict() for n, p in self._parts()}}, content)
        write_whole(path, content.getvalue())

    def restore(self, path: Path) -> None:
        """Raises ValueError where it is no state that `save` wrote."""
        try:
            state = torch.load(path, weights_only=True)
            for name, part in self._parts():
                part.load_state_dict(state[name])
            self.step = state["step"]
        except Exception as error:  # torch raises many kinds for a damaged file
            raise ValueError(f"{path}: cannot be read ({error}); delete it to start over") from None

    def _parts(self) -> list[tuple[str, Any]]:
        return [
            ("autoencoder", self.autoencoder),
            ("flow", self.flow),
            ("averaged", self.averaged),
            *((f"optimizer {number}", each) for number, each in enumerate(self.optimizers)),
        ]
