"""The settings of one trial; all of them decide the result. `Execution` only decides how fast.

Settings have no hidden defaults: the sweep file shows the whole experiment.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trainables.settings import Settings

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
# YAML has lists only; strict pydantic wants the tuple itself.
AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Range = Annotated[tuple[float, float], AsTuple]


class ModelSettings(Settings):
    """A video ViT on tubelets of 2 x patch_size x patch_size (frames, pixels, pixels)."""

    size: Literal["tiny", "small", "base", "large"]
    patch_size: Positive
    tubelet: Literal["linear", "difference"]
    positions: Literal["sincos_1d", "sincos_3d"]  # over all tokens (VideoMAE), or t, h, w apart
    drop_path: Fraction


class ClipSettings(Settings):
    """What the model sees of a video: `frames` over `seconds`, `resolution` pixels square."""

    frames: Positive
    seconds: Annotated[float, Field(gt=0)]
    resolution: Positive
    normalize: Literal["imagenet", "per_clip"]


class AugmentSettings(Settings):
    """Drawn once a clip and applied to all its frames."""

    crop_scale: Range
    crop_ratio: Range
    flip: bool
    jitter: Fraction


class OptimizerSettings(Settings):
    """AdamW, linear warm-up from lr_start to lr_peak, cosine to lr_end."""

    batch_size: Positive  # global: all workers and accumulation steps together
    lr_peak: Annotated[float, Field(gt=0)]
    lr_start: Annotated[float, Field(ge=0)]
    lr_end: Annotated[float, Field(ge=0)]
    warmup_fraction: Fraction
    betas: Range
    weight_decay: Annotated[float, Field(ge=0)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    clip_norm: Annotated[float, Field(gt=0)] | None
    precision: Literal["fp32", "bf16", "fp16"]


class MixtureSettings(Settings):
    """Sources and their shares: exact decimals of at most 4 places that sum to 1."""

    shares: dict[str, Decimal | float | int | str]
    granularity: Literal["clip", "batch"]
    match_repetition: bool
    max_repetition: Annotated[float, Field(gt=0)] | None  # clips drawn / clips that exist
    max_unreadable: Fraction  # share of a source's clips, past which the stage stops


class DecoderSettings(Settings):
    width: Positive
    depth: Positive
    heads: Positive


class MaeSettings(Settings):
    """Stage 1. `epochs: 0` skips it."""

    epochs: NonNegative
    clips_per_epoch: Positive | Literal["sum_of_sources"]
    mixture: MixtureSettings
    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    target: Literal["pixels", "patch_normalized"]
    decoder: DecoderSettings
    augment: AugmentSettings
    optimizer: OptimizerSettings


class AlignSettings(Settings):
    """Stage 2. `epochs: 0` skips it."""

    epochs: NonNegative
    clips_per_epoch: Positive | Literal["sum_of_sources"]
    mixture: MixtureSettings
    head: Literal["union", "per_source", "by_index"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    heldout_clips: NonNegative  # per source, from its selection split, scored each epoch
    augment: AugmentSettings
    optimizer: OptimizerSettings


class AverageSettings(Settings):
    """`interpolate`: (1 - coefficient) W0 + coefficient W1, W0 and W1 aligned on `between`."""

    method: Literal["none", "interpolate"]
    coefficient: Fraction
    between: Annotated[
        tuple[dict[str, Decimal | float | int | str], dict[str, Decimal | float | int | str]],
        AsTuple,
    ]


class ProbeSettings(Settings):
    """Multinomial logistic regression on frozen features; l2 is chosen on the selection split."""

    l2_grid: Annotated[tuple[float, ...], AsTuple, Field(min_length=1)]
    max_unreadable: Fraction


class FinetuneSettings(Settings):
    epochs: Positive
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    max_unreadable: Fraction
    augment: AugmentSettings
    optimizer: OptimizerSettings


class ScoreSettings(Settings):
    """The score of a trial: top-1 on the selection split by `use`, `combine`d over `downstream`."""

    use: Literal["probe", "finetune"]
    combine: Literal["mean", "min"]


class TrialConfig(Settings):
    """One point of the search, whole."""

    seed: NonNegative
    model: ModelSettings
    clip: ClipSettings
    mae: MaeSettings
    align: AlignSettings
    average: AverageSettings
    probe: ProbeSettings
    finetune: FinetuneSettings | None
    downstream: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)]
    score: ScoreSettings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.clip.resolution % self.model.patch_size:
            raise ValueError(
                f"clip.resolution {self.clip.resolution} is not a multiple of model.patch_size "
                f"{self.model.patch_size}; choose one that is"
            )
        if self.clip.frames % 2:
            raise ValueError(
                f"clip.frames {self.clip.frames} is odd; tubelets are 2 frames deep, "
                "choose an even number"
            )
        if self.score.use == "finetune" and self.finetune is None:
            raise ValueError("score.use is 'finetune' but finetune is null; give its settings")
        if len(set(self.downstream)) != len(self.downstream):
            raise ValueError(f"downstream {list(self.downstream)} names a dataset twice")
        return self


class Execution(Settings):
    """How a stage runs. Never hashed: it changes the time a result takes, not the result."""

    workers: Positive
    cpus_per_worker: Positive
    gpus_per_worker: Annotated[float, Field(ge=0)]
    loader_workers: NonNegative  # processes that decode, per worker; 0 decodes in the trainer
    per_device_batch: Positive | None  # null: the global batch over the workers, no accumulation
    checkpoint_every_steps: Positive
