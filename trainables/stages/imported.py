"""Public weights instead of stage 1: VideoMAE's from a Hugging Face folder, or an image ViT's."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainables.models.inflation import inflated
from trainables.models.video_vit import VideoViT
from trainables.models.videomae import (
    from_videomae,
    named_as_exported,
    to_videomae,
    videomae_config,
)
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.weights import check_same_tensors, writer
from trainables.training_settings import ClipSettings, ModelSettings

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
DECIDED_BY = {  # entry of config.json -> the setting that must agree; all others: model.name
    "image_size": "clip.resolution",
    "num_frames": "clip.frames",
    "patch_size": "model.vit.patch_size",
}


def run_import(run: StageRun) -> Outcome:
    """Weights of the trunk; what they had learnt from is not known here.

    Raises:
        ValueError: the file cannot be read, or is of another model than the trial's.
    """
    settings = run.stage.settings
    model = parse(ModelSettings, settings["model"], "model")
    clip = parse(ClipSettings, settings["clip"], "clip")
    path = Path(run.stage.where["weights"])
    if settings["format"] == "huggingface":
        weights, norm = from_huggingface(path, model, clip)
    else:
        weights, norm = from_timm(path, model, clip), "norm"
    return Outcome(write={"weights.safetensors": writer(weights)}, metrics={"norm": norm})


def from_huggingface(
    folder: Path, model: ModelSettings, clip: ClipSettings
) -> tuple[dict[str, Tensor], str]:
    """The trunk's weights from a VideoMAE folder, and where its norm is from.

    Raises:
        ValueError: config.json or a tensor does not fit the settings; lists all that differ.
    """
    check_huggingface(folder, model, clip)
    named, norm = named_as_exported(_tensors(folder))
    wanted = to_videomae(_empty(model, clip).state_dict())
    check_same_tensors(named, wanted, f"{folder} does not fit model {model.name!r}")
    return {name: tensor.float() for name, tensor in from_videomae(named).items()}, norm


def check_huggingface(folder: Path, model: ModelSettings, clip: ClipSettings) -> None:
    """Raises ValueError where config.json is not of the model that the settings describe."""
    assert model.vit is not None, "TrialConfig lets no other model start from imported weights"
    if (model.vit.positions, model.vit.tubelet) != ("sincos_1d", "linear"):
        raise ValueError(
            f"VideoMAE's weights need model.vit.positions 'sincos_1d' and tubelet 'linear'; found "
            f"{model.vit.positions!r} and {model.vit.tubelet!r}"
        )
    file = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file}: cannot be read ({error}); start.path must be a folder of Hugging Face's"
        ) from None
    wanted = videomae_config(model, clip)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != wanted["model_type"]:
        raise ValueError(f"{file}: model_type is {kind!r}; only 'videomae' can be imported")
    differing = [
        f"{key} is {config.get(key)!r}, but {DECIDED_BY.get(key, 'model.name')} makes it {value!r}"
        for key, value in wanted.items()
        if config.get(key) not in (value, [value, value])  # a size may be written as a pair
    ]
    if differing:
        raise ValueError(f"{file}: {'; '.join(differing)}. Choose the settings of these weights.")


def from_timm(file: Path, model: ModelSettings, clip: ClipSettings) -> dict[str, Tensor]:
    """The trunk's weights from the state dict of an image ViT of timm, inflated.

    The number of heads cannot be seen from weights; timm's small, base and large have ours.

    Raises:
        ValueError: a tensor does not fit the settings; lists all that differ.
    """
    assert model.vit is not None, "TrialConfig lets no other model start from imported weights"
    if (model.vit.positions, model.vit.tubelet) != ("imported", "linear"):
        raise ValueError(
            "an image ViT's weights need model.vit.positions 'imported' and tubelet 'linear'; "
            f"found {model.vit.positions!r} and {model.vit.tubelet!r}"
        )
    trunk = _empty(model, clip)
    try:
        weights = inflated(_read(file), trunk.grid)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    check_same_tensors(weights, trunk.state_dict(), f"{file} does not fit model {model.name!r}")
    return {name: tensor.float() for name, tensor in weights.items()}


def _empty(model: ModelSettings, clip: ClipSettings) -> VideoViT:
    """The names and shapes of a trunk's tensors, without values."""
    with torch.device("meta"):
        return VideoViT(model, clip)


def _tensors(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHT_FILES:
        if (folder / name).exists():
            return _read(folder / name)
    raise ValueError(
        f"{folder}: holds neither {' nor '.join(WEIGHT_FILES)}; save the model unsharded"
    )


def _read(file: Path) -> dict[str, Tensor]:
    """Tensors by name; a pickled file may hold nothing but tensors."""
    try:
        if file.suffix == ".bin":
            tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
            return tensors
        return load_file(file)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file}: cannot be read as weights ({reason})") from None
