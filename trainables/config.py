"""The settings of one trial; all of them decide the result. `Execution` only decides how fast.

Settings have no hidden defaults: the sweep file shows the whole experiment.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from trainables.config_checks import check_trial
from trainables.contrastive_settings import ContrastiveSettings
from trainables.settings import Settings, check_setting, parse, with_overrides
from trainables.training_settings import (
    AsTuple,
    AugmentSettings,
    BranchEpochs,
    ClipSettings,
    DropPathRate,
    Fraction,
    MixtureSettings,
    MixupSettings,
    ModelSettings,
    NonNegative,
    OptimizerSettings,
    Positive,
    VideoReader,
)


class StartSettings(Settings):
    """What training starts from: random weights, or public ones instead of stage 1."""

    weights: Literal["random", "huggingface", "timm"]
    # A VideoMAE folder (huggingface) or a safetensors file of an image ViT (timm); null if random.
    path: str | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.weights == "random") != (self.path is None):
            raise ValueError(
                f"start.weights is {self.weights!r} with path {self.path!r}; random weights take "
                "path: null, all others need a path"
            )
        return self


class DecoderSettings(Settings):
    width: Positive
    depth: Positive
    heads: Positive

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; choose one that is"
            )
        return self


class MaeSettings(Settings):
    """Stage 1. `epochs: 0` skips it, as `mae: null` does."""

    epochs: NonNegative
    branch_epochs: BranchEpochs
    clips_per_epoch: Positive | Literal["sum_of_sources"]  # views that are trained on
    views_per_clip: Positive  # of each clip that is decoded, each with a crop and mask of its own
    mixture: MixtureSettings
    masking: Literal["random", "tube"]  # tube: the same places at all times
    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    # Normalised per tubelet: each channel apart (VideoMAE, PPMA), or all values together (MAE).
    target: Literal["pixels", "normalized_per_channel", "normalized_jointly"]
    final_norm: Literal["fresh", "kept"]  # the encoder's last norm in the weights that come out
    decoder: DecoderSettings
    augment: AugmentSettings
    optimizer: OptimizerSettings


class KeepSettings(Settings):
    """What alignment keeps beside its last weights, for averages over time."""

    last: NonNegative  # the weights after each of so many last epochs (last_k)
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None  # per step (ema)
    posthoc_ema: bool  # two power-function averages, as they stand after each epoch (posthoc_ema)


class AlignSettings(Settings):
    """Stage 2. `epochs: 0` skips it."""

    epochs: NonNegative
    branch_epochs: BranchEpochs
    clips_per_epoch: Positive | Literal["sum_of_sources"]
    views_per_clip: Positive
    mixture: MixtureSettings
    drop_path: DropPathRate  # of the last block; it grows linearly from none in the first
    head: Literal["union", "per_source", "by_index"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    heldout_clips: NonNegative  # per source, from its selection split, scored each epoch
    keep: KeepSettings
    augment: AugmentSettings
    mixup: MixupSettings | None
    optimizer: OptimizerSettings


class AverageSettings(Settings):
    """How several sets of weights become one; the method says which of the rest it reads.

    An endpoint is the trial's alignment with some of its settings set otherwise.

    none; uniform: mean of the endpoints; interpolate: (1 - c) W0 + c W1 of two endpoints, where c
    is 0 or 1 only that one is trained; wise_ft: the same from stage 1's weights to the aligned
    ones; model_stock, greedy_soup: of the endpoints; learned: softmax coefficients per downstream
    dataset, trained with its augmented probe (PPMA's adaptive average); last_k, ema, posthoc_ema:
    over the time of one alignment, from what `align.keep` kept.
    """

    method: Literal[
        "none",
        "uniform",
        "interpolate",
        "wise_ft",
        "model_stock",
        "greedy_soup",
        "learned",
        "last_k",
        "ema",
        "posthoc_ema",
    ]
    endpoints: Annotated[tuple[dict[str, Any], ...], AsTuple]  # dotted settings of align -> value
    coefficient: Fraction  # interpolate, wise_ft
    scored_together: Annotated[tuple[Fraction, ...], AsTuple]  # coefficients, in one pass
    learned: Literal["global", "per_tensor"]
    last: Positive  # last_k
    ema_length: Annotated[float, Field(gt=0, lt=0.29)]  # posthoc_ema: width / run (sigma_rel)


class ProbeSettings(Settings):
    """Multinomial logistic regression on frozen features; l2 is chosen on the selection split."""

    l2_grid: Annotated[tuple[Annotated[float, Field(gt=0)], ...], AsTuple, Field(min_length=1)]
    neighbours: Positive  # of the k-NN accuracy that comes with it
    max_unreadable: Fraction
    precision: Literal["fp32", "bf16"]  # of the pass that makes the features


class FinetuneSettings(Settings):
    """Training on a downstream dataset: of all weights, or, as augmented probe, of the head."""

    epochs: Positive
    drop_path: DropPathRate
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    max_unreadable: Fraction
    augment: AugmentSettings
    mixup: MixupSettings | None
    optimizer: OptimizerSettings


class TestSettings(Settings):
    """Views of a clip that is scored, their logits averaged: `clips` in time x `crops` in space."""

    clips: Positive
    crops: Literal[1, 3]


class ScoreSettings(Settings):
    """The score of a trial: top-1 on the selection split by `use`, `combine`d over `downstream`."""

    use: Literal["probe", "augmented_probe", "finetune"]
    combine: Literal["mean", "min"]


class TrialConfig(Settings):
    """One point of the search, whole."""

    seed: NonNegative
    model: ModelSettings
    clip: ClipSettings
    start: StartSettings
    mae: MaeSettings | None
    contrastive: ContrastiveSettings | None
    align: AlignSettings
    average: AverageSettings
    probe: ProbeSettings
    augmented_probe: FinetuneSettings | None
    finetune: FinetuneSettings | None
    test: TestSettings
    downstream: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)]
    score: ScoreSettings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_trial(self)
        return self

    def endpoint(self, index: int) -> AlignSettings:
        """The settings of alignment of one endpoint of the average."""
        overrides, where = self.average.endpoints[index], f"average.endpoints[{index}]"
        for key in overrides:
            try:
                check_setting(AlignSettings, key)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        return parse(
            AlignSettings, with_overrides(self.align.model_dump(mode="json"), overrides), where
        )


class Execution(Settings):
    """How a stage runs. Never hashed: it changes the time a result takes, not the result."""

    # Several counts: as many of them as there is room for, fewer once a node is lost.
    workers: Annotated[Positive | tuple[Positive, ...], AsTuple]
    cpus_per_worker: Positive
    gpus_per_worker: Annotated[float, Field(ge=0)]  # whole, or a part of one for a worker alone
    loader_workers: NonNegative  # processes that decode, per worker; 0 decodes in the trainer
    video_reader: VideoReader  # both give the same frames; pyav decodes less of a long video
    per_device_batch: Positive | None  # null: the global batch over the workers, no accumulation
    checkpoint_every_steps: Positive
    compile: bool  # training by torch.compile, if it works there: the first step takes a minute
    recompute_activations: bool  # of a ViT's blocks, going backwards: less memory, more time

    @property
    def counts(self) -> tuple[int, ...]:
        """The worker counts that it may train with."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers,)

    @model_validator(mode="after")
    def _can_be_placed(self) -> Self:
        if not self.counts or len(set(self.counts)) < len(self.counts):
            raise ValueError(
                f"workers {list(self.counts)} are no worker counts; give one, or several that "
                "differ, as in [1, 2, 4]"
            )
        if self.compile and self.recompute_activations:
            raise ValueError(
                "compile and recompute_activations are both true, but a compiled block that runs "
                "again draws other random numbers for its drop path; set one of them to false"
            )
        gpus = self.gpus_per_worker
        if gpus % 1 and (gpus > 1 or max(self.counts) > 1):
            raise ValueError(
                f"gpus_per_worker {gpus:g} cannot be had: a part of a GPU is at most one, and for "
                "a worker alone, as workers that train together need one each; give whole GPUs"
            )
        return self
