"""The settings that training stages share: model, clip, augmentation, optimizer, mixture.

Settings have no hidden defaults: the sweep file shows the whole experiment.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trainables.settings import Settings, nearest

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
DropPathRate = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
VideoReader = Literal["decord", "pyav"]
Normalize = Literal["imagenet", "per_clip"]
NonNegative = Annotated[int, Field(ge=0)]
# YAML has lists only; strict pydantic wants the tuple itself.
AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
# Lengths that shall share one trunk under constant_then_decay: whoever trains it keeps its state
# where the decay of each shorter one begins. No part of a stage's identity.
BranchEpochs = Annotated[tuple[Positive, ...], AsTuple]
Range = Annotated[tuple[float, float], AsTuple]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Beta, Beta], AsTuple]

VITS = ("vit_tiny", "vit_small", "vit_base", "vit_large")
CONV3D = ("r2plus1d_18", "r3d_18", "mc3_18", "s3d")  # torchvision's
TSN = "tsn_"  # followed by the name of an image backbone of timm


class VitSettings(Settings):
    """A video ViT on tubelets of 2 x patch_size x patch_size (frames, pixels, pixels)."""

    patch_size: Positive
    tubelet: Literal["linear", "difference"]
    # Fixed: over all tokens (VideoMAE), t, h, w apart, or those that imported weights bring.
    positions: Literal["sincos_1d", "sincos_3d", "imported"]


class ModelSettings(Settings):
    """The trunk by name; `vit` holds what a ViT needs and is null for a convolutional network."""

    name: str  # one of VITS, one of CONV3D, or tsn_<timm backbone>
    vit: VitSettings | None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in (*VITS, *CONV3D) and not self.name.removeprefix(TSN) != self.name:
            known = [*VITS, *CONV3D, "tsn_resnet50"]
            raise ValueError(f"name {self.name!r} is no model{nearest(self.name, known)}")
        if (self.name in VITS) != (self.vit is not None):
            rule = "needs its `vit` settings" if self.name in VITS else "takes vit: null"
            raise ValueError(f"model {self.name!r} {rule}")
        return self


class ClipSettings(Settings):
    """What the model sees of a video: `frames` over `seconds`, `resolution` pixels square."""

    frames: Positive
    seconds: Annotated[float, Field(gt=0)]
    resolution: Positive
    normalize: Normalize


class RandAugmentSettings(Settings):
    """`layers` operations a clip, each done with `probability` (RandAugment; timm's operations)."""

    magnitude: Annotated[float, Field(ge=0, le=10)]
    layers: Positive
    probability: Fraction


class AugmentSettings(Settings):
    """Drawn once a clip and applied to all its frames."""

    crop_scale: Range
    crop_ratio: Range
    flip: bool
    jitter: Fraction
    rand_augment: RandAugmentSettings | None
    erasing: Fraction  # probability of one erased box, the same in all frames

    @model_validator(mode="after")
    def _crops(self) -> Self:
        for name, most in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                rule = "0 < low <= high" + (" <= 1" if most == 1 else "")
                raise ValueError(f"{name} is [{low:g}, {high:g}]; it must be [low, high], {rule}")
        return self


class MixupSettings(Settings):
    """Mixup or cutmix of pairs of clips, one coefficient a batch; an alpha of 0 leaves one out."""

    mixup_alpha: Annotated[float, Field(ge=0)]
    cutmix_alpha: Annotated[float, Field(ge=0)]
    probability: Fraction  # that a batch is mixed
    switch_probability: Fraction  # of cutmix, where both are on
    across_sources: bool  # false: a clip is mixed with one of its own source only

    @model_validator(mode="after")
    def _mixes(self) -> Self:
        if self.mixup_alpha == self.cutmix_alpha == 0:
            raise ValueError(
                "mixup_alpha and cutmix_alpha are both 0, which mixes nothing; set mixup: null, or "
                "one of them above 0"
            )
        return self


class OptimizerSettings(Settings):
    """Linear warm-up from lr_start to lr_peak, then the schedule to lr_end; see `schedules`.

    Under constant_then_decay nothing before the decay may depend on the length of the run, so that
    runs of any length share it: the warm-up is given in clips.
    """

    algorithm: Literal["adamw", "sgd"]
    betas: Betas | None  # adamw's; null for sgd
    momentum: Fraction | None  # sgd's; null for adamw
    batch_size: Positive  # global: all workers and accumulation steps together
    # cosine_as_released: from half the peak (PPMA).
    lr_schedule: Literal["cosine", "cosine_as_released", "constant_then_decay"]
    lr_peak: Annotated[float, Field(gt=0)]
    lr_start: Annotated[float, Field(ge=0)]
    lr_end: Annotated[float, Field(ge=0)]
    warmup_fraction: Fraction | None  # of the steps; null for constant_then_decay
    warmup_clips: NonNegative | None  # constant_then_decay's; null for the others
    decay_fraction: Annotated[float, Field(ge=0, lt=1)] | None  # of the steps; likewise
    weight_decay: Annotated[float, Field(ge=0)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    layer_decay_of_head: bool  # true: the head's rate is decayed once too (PPMA)
    clip_norm: Annotated[float, Field(gt=0)] | None
    precision: Literal["fp32", "bf16", "fp16"]

    @model_validator(mode="after")
    def _one_algorithm(self) -> Self:
        given = {"adamw": self.betas, "sgd": self.momentum}
        for algorithm, value in given.items():
            if (value is not None) != (algorithm == self.algorithm):
                raise ValueError(
                    "adamw takes betas and momentum: null, sgd takes momentum and betas: null; "
                    f"found algorithm {self.algorithm}, betas {self.betas}, momentum "
                    f"{self.momentum}"
                )
        return self

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        horizon_free = self.lr_schedule == "constant_then_decay"
        given = {
            "warmup_fraction": (self.warmup_fraction, not horizon_free),
            "warmup_clips": (self.warmup_clips, horizon_free),
            "decay_fraction": (self.decay_fraction, horizon_free),
        }
        if any((value is not None) != wanted for value, wanted in given.values()):
            found = ", ".join(f"{name} {value}" for name, (value, _) in given.items())
            raise ValueError(
                f"lr_schedule {self.lr_schedule!r} takes "
                + (
                    "warmup_clips and decay_fraction, with warmup_fraction: null, for what runs of "
                    "different length share may not depend on the length"
                    if horizon_free
                    else "warmup_fraction, with warmup_clips and decay_fraction: null"
                )
                + f"; found {found}"
            )
        return self


Share = Decimal | float | int | str


class MixtureSettings(Settings):
    """Sources and their shares: exact decimals of at most 4 places that sum to 1.

    A share may also be "proportional", for all sources alike: to the number of training clips.
    """

    shares: dict[str, Share]
    granularity: Literal["clip", "batch"]
    match_repetition: bool
    max_repetition: Annotated[float, Field(gt=0)] | None  # clips drawn / clips that exist
    max_unreadable: Fraction  # share of a source's clips, past which the stage stops
    # Sources whose frames pass through [width, height] first, as human-free ones did (HAT).
    resample: dict[str, Annotated[tuple[Positive, Positive], AsTuple]]
