"""Weights on disk: safetensors, loaded only where every tensor fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor, nn

from trainables.models.trunk import Trunk, build_trunk
from trainables.stage_store import Write
from trainables.training_settings import ClipSettings, ModelSettings


def trunk_from(
    path: Path, model: ModelSettings, clip: ClipSettings, drop_path: float = 0.0
) -> Trunk:
    """A trunk with the weights in `path`.

    Raises:
        ValueError: the file's tensors are not the trunk's; lists which.
    """
    trunk = build_trunk(model, clip, drop_path)
    load_weights(trunk, path)
    return trunk


def load_weights(module: nn.Module, path: Path) -> None:
    """Raises ValueError, listing them, for tensors that are missing, extra or misshapen."""
    weights = load_file(path)
    check_same_tensors(weights, module.state_dict(), f"{path} does not fit the model")
    module.load_state_dict(weights)


def check_same_tensors(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], subject: str
) -> None:
    """Raises ValueError, listing them, where names or shapes of `found` and `wanted` differ."""
    missing = [f"{name} is missing" for name in wanted if name not in found]
    extra = [f"{name} is not expected" for name in found if name not in wanted]
    shapes = [
        f"{name} is {list(found[name].shape)}, not {list(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    wrong = missing + extra + shapes
    if wrong:
        shown = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if wrong[10:] else "")
        raise ValueError(f"{subject}: {shown}. Both must come from the same model settings.")


def writer(weights: Mapping[str, Tensor]) -> Write:
    """A function that writes `weights` to the file it is given."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return lambda file: file.write(save(on_cpu))
