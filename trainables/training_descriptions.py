"""Settings of a training stage as its identity keeps them, and back.

What a schedule does not read is left out, so that a schedule that is added later changes no
identity; of a trunk, so is all that only the rest of its run depends on.
"""

from __future__ import annotations

from typing import Any, TypeVar

from trainables.config import (
    AlignSettings,
    FinetuneSettings,
    MaeSettings,
    ProbeSettings,
    TrialConfig,
)
from trainables.contrastive_settings import ContrastiveSettings
from trainables.settings import Settings, parse

Pretraining = MaeSettings | ContrastiveSettings | AlignSettings
Described = TypeVar("Described", MaeSettings, ContrastiveSettings, AlignSettings, FinetuneSettings)

SCHEDULES_OWN = ("warmup_fraction", "warmup_clips", "decay_fraction")
# A trunk runs as the beginning of a run that never decays.
OF_A_TRUNK: dict[str, Any] = {"decay_fraction": 0.0, "lr_end": 0.0}


def described(settings: Pretraining | FinetuneSettings) -> dict[str, Any]:
    """JSON values."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    values["optimizer"] = {
        name: value
        for name, value in values["optimizer"].items()
        if name not in SCHEDULES_OWN or value is not None
    }
    values.pop("branch_epochs", None)  # who shares a trunk, not what it is
    return values


def described_probe(settings: ProbeSettings) -> dict[str, Any]:
    """JSON values."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    precision = values.pop("precision")
    return {**values, **lower_precision(precision)}


def lower_precision(precision: str) -> dict[str, str]:
    """What an identity keeps of a precision that came later: features were once float32 only."""
    return {} if precision == "fp32" else {"precision": precision}


def of_trunk(described: dict[str, Any]) -> dict[str, Any]:
    """Of the description of a pre-training stage: what its trunk depends on."""
    trunk = {name: value for name, value in described.items() if name != "epochs"}
    trunk["optimizer"] = {
        name: value for name, value in described["optimizer"].items() if name not in OF_A_TRUNK
    }
    return trunk


def settings_of(kind: type[Described], described: dict[str, Any], where: str) -> Described:
    """The settings of a stage from its description; a trunk's have no length (0 epochs)."""
    left_out: dict[str, Any] = dict.fromkeys(SCHEDULES_OWN)
    if "epochs" not in described:
        left_out |= OF_A_TRUNK
    values = {**described, "optimizer": {**left_out, **described["optimizer"]}}
    if kind is not FinetuneSettings:
        mixture = {**described["mixture"], "max_repetition": None}
        values = {"epochs": 0, "branch_epochs": [], **values, "mixture": mixture}
    return parse(kind, values, where)


def model_and_clip(trial: TrialConfig) -> dict[str, Any]:
    """What every stage that looks at clips depends on."""
    return {"model": json_of(trial.model), "clip": json_of(trial.clip)}


def json_of(settings: Settings) -> dict[str, Any]:
    described: dict[str, Any] = settings.model_dump(mode="json")
    return described
