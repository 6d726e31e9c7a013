"""What is known of a stage before it runs: its clips, its repetition, its name for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.bias import IN_WORDS, clips_for_bias
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.data.mixture import kept_clips, largest_remainder, parse_shares
from trainables.stage import TRAINED, TRUNKS, Stage
from trainables.trial import trial_stages

SHOWN = (*TRAINED, "average", "greedy_soup")  # the others follow from these
PRETRAINED = (*TRUNKS.values(), *TRUNKS)


def stage_clips(stage: Stage, data: Mapping[str, Dataset]) -> int:
    """Clips that go through the model while the stage runs; its trunk's are the trunk's.

    Of a trunk, those since the one that it follows.
    """
    if stage.kind in PRETRAINED:
        shared = stage.after or stage.inputs.get("trunk")
        return run_clips(stage) - (0 if shared is None else run_clips(shared))
    if stage.kind == "greedy_soup":  # each candidate is probed: the endpoints, then the soups
        clips = [data[name].split(part) for name in stage.data for part in ("train", "selection")]
        return 2 * len(stage.inputs) * sum(map(len, clips))
    settings = stage.settings
    if stage.kind in ("finetune", "augmented_probe", "learned_average"):
        training = settings["finetune" if stage.kind == "finetune" else "augmented_probe"]
        return int(training["epochs"] * len(data[settings["dataset"]].split("train")))
    if stage.kind in ("features", "evaluate"):
        views = settings["views"]["clips"] * settings["views"]["crops"]
        weights = len(settings.get("coefficients", [0]))
        return len(data[settings["dataset"]].split(settings["split"])) * views * weights
    if stage.kind == "bias":
        return len(clips_for_bias(data[settings["dataset"]], settings["clips"]))
    return 0


def run_clips(stage: Stage) -> int:
    """Of a pre-training stage: all clips of the run from its first step; a trunk's to its own."""
    if stage.kind in TRUNKS:
        return int(stage.settings["step"]) * batch_size(stage)
    settings = pretraining(stage)
    steps: int = settings["epochs"] * (settings["clips_per_epoch"] // batch_size(stage))
    return steps * batch_size(stage)


def pretraining(stage: Stage) -> dict[str, Any]:
    """The described settings of a pre-training stage, or of what a trunk of theirs depends on."""
    settings: dict[str, Any] = stage.settings[TRUNKS.get(stage.kind, stage.kind)]
    return settings


def batch_size(stage: Stage) -> int:
    """The global batch of a pre-training stage, or of a trunk of one."""
    size: int = pretraining(stage)["optimizer"]["batch_size"]
    return size


def repetition(stage: Stage, data: Mapping[str, Dataset]) -> dict[str, float]:
    """How often a run draws a clip of each source (source -> clips drawn / clips that exist)."""
    if stage.kind not in PRETRAINED:
        return {}
    mixture = pretraining(stage)["mixture"]
    shares = parse_shares(mixture["shares"])
    drawn = largest_remainder(shares, run_clips(stage))
    kept = {source: len(data[source].split("train")) for source in drawn}
    if mixture["match_repetition"]:
        kept = kept_clips(kept, shares)
    return {source: drawn[source] / kept[source] for source in drawn if shares[source]}


def excess_repetition(trial: TrialConfig, data: Mapping[str, Dataset]) -> str | None:
    """Why the trial goes past its `max_repetition`; None if it keeps to it."""
    for stage in trial_stages(trial, data).all():
        if stage.kind not in TRUNKS.values():
            continue
        settings = getattr(trial, stage.kind)
        assert settings is not None
        cap = settings.mixture.max_repetition
        for source, times in repetition(stage, data).items():
            if cap is not None and times > cap:
                return (
                    f"{stage.kind} would draw each clip of {source!r} {times:.1f} times, "
                    f"max_repetition is {cap:g}"
                )
    return None


def describe(stage: Stage) -> str:
    """What tells a stage from the others of its kind, for a person."""
    if stage.kind in PRETRAINED:
        shares = pretraining(stage)["mixture"]["shares"]
        mixed = " + ".join(f"{share} {source}" for source, share in shares.items())
        if stage.kind in TRUNKS:
            return f"{mixed} to step {stage.settings['step']:,}"
        if stage.kind == "contrastive":
            return f"{mixed}, views of scale {pretraining(stage)['view_scale']:g}"
        return mixed
    if stage.kind == "average":
        return ", ".join(str(value) for value in stage.settings.values())
    if stage.kind == "greedy_soup":
        return f"of {len(stage.inputs)}"
    if stage.kind == "bias":
        return f"{stage.settings['dataset']} {IN_WORDS[stage.settings['view']]}"
    if "dataset" in stage.settings:
        split = stage.settings.get("split", "train")
        return f"{stage.settings['dataset']} {split}"
    if stage.kind == "probe":
        dataset = stage.inputs["train"].settings["dataset"]
        return f"{dataset} {stage.settings['split']}"
    return ""
