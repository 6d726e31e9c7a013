"""The settings of one trial; all of them decide the result. `Execution` only decides how fast.

Settings have no hidden defaults: the sweep file shows the whole experiment.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from trainables.posthoc_ema import reconstruction
from trainables.settings import Settings, check_setting, parse, with_overrides
from trainables.training_settings import (
    AsTuple,
    AugmentSettings,
    ClipSettings,
    Fraction,
    MixtureSettings,
    MixupSettings,
    ModelSettings,
    NonNegative,
    OptimizerSettings,
    Positive,
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


class MaeSettings(Settings):
    """Stage 1. `epochs: 0` skips it, as `mae: null` does."""

    epochs: NonNegative
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
    clips_per_epoch: Positive | Literal["sum_of_sources"]
    views_per_clip: Positive
    mixture: MixtureSettings
    drop_path: Fraction  # of the last block; it grows linearly from none in the first
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

    none; uniform: mean of the endpoints; interpolate: (1 - c) W0 + c W1 of two endpoints;
    wise_ft: the same from stage 1's weights to the aligned ones; model_stock, greedy_soup: of the
    endpoints; learned: softmax coefficients per downstream dataset, trained with its augmented
    probe (PPMA's adaptive average); last_k, ema, posthoc_ema: over the time of one alignment,
    from what `align.keep` kept.
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

    l2_grid: Annotated[tuple[float, ...], AsTuple, Field(min_length=1)]
    neighbours: Positive  # of the k-NN accuracy that comes with it
    max_unreadable: Fraction


class FinetuneSettings(Settings):
    """Training on a downstream dataset: of all weights, or, as augmented probe, of the head."""

    epochs: Positive
    drop_path: Fraction
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
        vit = self.model.vit
        if vit is None and self.mae is not None and self.mae.epochs:
            raise ValueError(
                f"model {self.model.name!r} cannot be a masked autoencoder; "
                "give mae: null or choose a ViT"
            )
        if vit is None:
            self._check_convolutional()
        if vit is not None and self.clip.resolution % vit.patch_size:
            raise ValueError(
                f"clip.resolution {self.clip.resolution} is not a multiple of "
                f"model.vit.patch_size {vit.patch_size}; choose one that is"
            )
        if vit is not None and self.clip.frames % 2:
            raise ValueError(
                f"clip.frames {self.clip.frames} is odd; tubelets are 2 frames deep, "
                "choose an even number"
            )
        if vit is not None and (vit.positions == "imported") != (self.start.weights == "timm"):
            raise ValueError(
                "model.vit.positions 'imported' goes with start.weights 'timm' and only with it, "
                f"for those weights bring learned positions; found {vit.positions!r} with "
                f"{self.start.weights!r}"
            )
        if self.score.use != "probe" and getattr(self, self.score.use) is None:
            raise ValueError(
                f"score.use is {self.score.use!r} but {self.score.use} is null; give its settings"
            )
        if len(set(self.downstream)) != len(self.downstream):
            raise ValueError(f"downstream {list(self.downstream)} names a dataset twice")
        self._check_average()
        return self

    def _check_convolutional(self) -> None:
        if self.start.weights != "random":
            raise ValueError(
                f"start.weights {self.start.weights!r} are a ViT's; model {self.model.name!r} "
                "starts from random weights"
            )
        trained = {name: getattr(self, name) for name in ("align", "augmented_probe", "finetune")}
        for index in range(len(self.average.endpoints)):
            trained[f"average.endpoints[{index}]"] = self.endpoint(index)
        for where, settings in trained.items():
            if settings is not None and settings.optimizer.layer_decay != 1:
                raise ValueError(
                    f"{where}.optimizer.layer_decay {settings.optimizer.layer_decay:g} has no "
                    f"meaning for model {self.model.name!r}, whose layers are no row of blocks; "
                    "set it to 1.0"
                )
            if settings is not None and settings.drop_path:
                raise ValueError(
                    f"{where}.drop_path {settings.drop_path:g} is a ViT's; model "
                    f"{self.model.name!r} takes 0.0"
                )

    def _check_average(self) -> None:
        average, keep = self.average, self.align.keep
        wanted = {
            "interpolate": (2, 2),
            "uniform": (2, None),
            "model_stock": (2, None),
            "greedy_soup": (1, None),
            "learned": (2, None),
        }
        low, high = wanted.get(average.method, (0, None))
        if len(average.endpoints) < low or (high and len(average.endpoints) > high):
            number = f"exactly {low}" if high else f"at least {low}"
            raise ValueError(
                f"average.method {average.method!r} needs {number} endpoints, "
                f"{len(average.endpoints)} given"
            )
        for index in range(len(average.endpoints)):
            self.endpoint(index)
        if average.method == "learned" and self.augmented_probe is None:
            raise ValueError(
                "average.method 'learned' trains with the augmented probe, but augmented_probe "
                "is null; give its settings"
            )
        if average.method == "last_k" and average.last > keep.last:
            raise ValueError(
                f"average.last {average.last} is more than the {keep.last} epochs that "
                "align.keep.last keeps; raise the one or lower the other"
            )
        if average.method == "last_k" and 0 < self.align.epochs < average.last:
            raise ValueError(
                f"average.last {average.last} is more than align.epochs {self.align.epochs}"
            )
        if average.method == "ema" and keep.ema_decay is None:
            raise ValueError("average.method 'ema' needs align.keep.ema_decay, which is null")
        if average.method == "posthoc_ema" and not keep.posthoc_ema:
            raise ValueError("average.method 'posthoc_ema' needs align.keep.posthoc_ema: true")
        if average.method == "posthoc_ema" and self.align.epochs:
            reconstruction(self.align.epochs, average.ema_length)

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

    workers: Positive
    cpus_per_worker: Positive
    gpus_per_worker: Annotated[float, Field(ge=0)]
    loader_workers: NonNegative  # processes that decode, per worker; 0 decodes in the trainer
    per_device_batch: Positive | None  # null: the global batch over the workers, no accumulation
    checkpoint_every_steps: Positive
