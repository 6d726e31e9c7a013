"""The settings of the contrastive stage.

Settings have no hidden defaults: the sweep file shows the whole experiment.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.settings import Settings
from trainables.training_settings import (
    AugmentSettings,
    BranchEpochs,
    DropPathRate,
    MixtureSettings,
    NonNegative,
    OptimizerSettings,
    Positive,
)


class ProjectionSettings(Settings):
    """What stands on the trunk while it learns, and is thrown away: one hidden layer."""

    hidden: Positive
    size: Positive


class ContrastiveSettings(Settings):
    """Views that belong together against all others of the batch, before or instead of stage 2.

    `epochs: 0` skips it, as `contrastive: null` does. Two views make a pair: of a source that has a
    generator's views G(z) and G(z + w), of any other one clip twice; each augmented by itself.
    """

    epochs: NonNegative
    branch_epochs: BranchEpochs
    clips_per_epoch: Positive | Literal["sum_of_sources"]  # views, two a clip
    mixture: MixtureSettings
    view_scale: Annotated[float, Field(ge=0)]  # of w; 0: G(z) twice
    # Positives: the other view (simclr), or all of the same class (supcon). inverter: instead of
    # what is alike, the latent and the class of each generated clip are learnt.
    loss: Literal["simclr", "supcon", "inverter"]
    # Whether sources share classes, as in align.head; null for simclr.
    classes: Literal["union", "per_source", "by_index"] | None
    temperature: Annotated[float, Field(gt=0)] | None  # null for inverter
    projection: ProjectionSettings | None  # null for inverter
    drop_path: DropPathRate
    augment: AugmentSettings
    optimizer: OptimizerSettings

    @property
    def views_per_clip(self) -> int:
        return 2

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        if (self.classes is None) != (self.loss == "simclr"):
            raise ValueError(
                f"loss {self.loss!r} with classes {self.classes!r}: supcon and inverter take "
                "union, per_source or by_index, simclr looks at no class and takes classes: null"
            )
        for name in ("temperature", "projection"):
            if (getattr(self, name) is None) != (self.loss == "inverter"):
                raise ValueError(
                    f"loss {self.loss!r} with {name} {getattr(self, name)!r}: simclr and supcon "
                    f"need one, inverter takes {name}: null"
                )
        if self.loss == "inverter" and self.view_scale:
            raise ValueError(
                f"loss 'inverter' with view_scale {self.view_scale:g}: it learns the latent of "
                "G(z); set view_scale: 0.0"
            )
        return self
