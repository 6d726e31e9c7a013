"""Which settings of a trial go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.posthoc_ema import reconstruction

if TYPE_CHECKING:
    from trainables.config import TrialConfig


def check_trial(trial: TrialConfig) -> None:
    """Raises ValueError for settings of a trial that do not go together, with what to change."""
    vit = trial.model.vit
    if vit is None and trial.mae is not None and trial.mae.epochs:
        raise ValueError(
            f"model {trial.model.name!r} cannot be a masked autoencoder; "
            "give mae: null or choose a ViT"
        )
    if vit is None:
        _check_convolutional(trial)
    if vit is not None and trial.clip.resolution % vit.patch_size:
        raise ValueError(
            f"clip.resolution {trial.clip.resolution} is not a multiple of "
            f"model.vit.patch_size {vit.patch_size}; choose one that is"
        )
    if vit is not None and trial.clip.frames % 2:
        raise ValueError(
            f"clip.frames {trial.clip.frames} is odd; tubelets are 2 frames deep, "
            "choose an even number"
        )
    if vit is not None and (vit.positions == "imported") != (trial.start.weights == "timm"):
        raise ValueError(
            "model.vit.positions 'imported' goes with start.weights 'timm' and only with it, "
            f"for those weights bring learned positions; found {vit.positions!r} with "
            f"{trial.start.weights!r}"
        )
    if trial.score.use != "probe" and getattr(trial, trial.score.use) is None:
        raise ValueError(
            f"score.use is {trial.score.use!r} but {trial.score.use} is null; give its settings"
        )
    stages = {"mae": trial.mae, "contrastive": trial.contrastive, "align": trial.align}
    for where, stage in stages.items():
        if stage is not None and stage.optimizer.batch_size % stage.views_per_clip:
            raise ValueError(
                f"{where}.optimizer.batch_size {stage.optimizer.batch_size} is no multiple of "
                f"{where}.views_per_clip {stage.views_per_clip}; choose one that is"
            )
        if (
            stage is not None
            and stage.branch_epochs
            and stage.optimizer.lr_schedule != "constant_then_decay"
        ):
            raise ValueError(
                f"{where}.branch_epochs {list(stage.branch_epochs)} cannot share a trunk: under "
                f"{where}.optimizer.lr_schedule {stage.optimizer.lr_schedule!r} the learning rate "
                "of every step depends on the length; set branch_epochs: [], or lr_schedule: "
                "constant_then_decay"
            )
        if (
            stage is not None
            and stage.epochs
            and isinstance(stage.clips_per_epoch, int)
            and stage.clips_per_epoch < stage.optimizer.batch_size
        ):
            raise ValueError(
                f"{where}.clips_per_epoch {stage.clips_per_epoch} is less than "
                f"{where}.optimizer.batch_size {stage.optimizer.batch_size}; raise the one or "
                "lower the other"
            )
    if trial.augmented_probe is not None and trial.augmented_probe.drop_path:
        raise ValueError(
            f"augmented_probe.drop_path {trial.augmented_probe.drop_path:g} would do nothing, for "
            "the trunk is frozen and in evaluation; set it to 0.0"
        )
    if len(set(trial.downstream)) != len(trial.downstream):
        raise ValueError(f"downstream {list(trial.downstream)} names a dataset twice")
    _check_average(trial)


def _check_convolutional(trial: TrialConfig) -> None:
    if trial.start.weights != "random":
        raise ValueError(
            f"start.weights {trial.start.weights!r} are a ViT's; model {trial.model.name!r} "
            "starts from random weights"
        )
    names = ("contrastive", "align", "augmented_probe", "finetune")
    trained = {name: getattr(trial, name) for name in names}
    for index in range(len(trial.average.endpoints)):
        trained[f"average.endpoints[{index}]"] = trial.endpoint(index)
    for where, settings in trained.items():
        if settings is not None and settings.optimizer.layer_decay != 1:
            raise ValueError(
                f"{where}.optimizer.layer_decay {settings.optimizer.layer_decay:g} has no "
                f"meaning for model {trial.model.name!r}, whose layers are no row of blocks; "
                "set it to 1.0"
            )
        if settings is not None and settings.drop_path:
            raise ValueError(
                f"{where}.drop_path {settings.drop_path:g} is a ViT's; model "
                f"{trial.model.name!r} takes 0.0"
            )


def _check_average(trial: TrialConfig) -> None:
    average, keep = trial.average, trial.align.keep
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
        trial.endpoint(index)
    if average.method == "learned" and trial.augmented_probe is None:
        raise ValueError(
            "average.method 'learned' trains with the augmented probe, but augmented_probe "
            "is null; give its settings"
        )
    if average.method == "last_k" and average.last > keep.last:
        raise ValueError(
            f"average.last {average.last} is more than the {keep.last} epochs that "
            "align.keep.last keeps; raise the one or lower the other"
        )
    if average.method == "last_k" and 0 < trial.align.epochs < average.last:
        raise ValueError(
            f"average.last {average.last} is more than align.epochs {trial.align.epochs}"
        )
    if average.method == "ema" and keep.ema_decay is None:
        raise ValueError("average.method 'ema' needs align.keep.ema_decay, which is null")
    if average.method == "posthoc_ema" and not keep.posthoc_ema:
        raise ValueError("average.method 'posthoc_ema' needs align.keep.posthoc_ema: true")
    if average.method == "posthoc_ema" and trial.align.epochs:
        reconstruction(trial.align.epochs, average.ema_length)
