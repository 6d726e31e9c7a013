"""A video ViT as Hugging Face's VideoMAE names and shapes it; transformers is not needed for it.

The functions are the same but for two numbers: transformers adds 1e-12 to a variance in its blocks
(its `layer_norm_eps`) and 1e-5 in `fc_norm`, where we and VideoMAE's authors add 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainables.models.sizes import SIZES, TUBELET_FRAMES
from trainables.training_settings import ClipSettings, ModelSettings

TRUNK = "videomae."  # the prefix of the trunk's tensors in all but the bare VideoMAEModel
IGNORED = ("decoder.", "encoder_to_decoder.", "mask_token", "classifier.")
EMBEDDING = "embeddings.patch_embeddings.projection"
QKV = ("query", "key", "value")
PARTS = {  # of a block; each has a weight and a bias
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def videomae_config(model: ModelSettings, clip: ClipSettings) -> dict[str, Any]:
    """What a config.json says of the function that a trunk with linear tubelets computes."""
    assert model.vit is not None
    size = SIZES[model.name]
    return {
        "model_type": "videomae",
        "hidden_size": size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "intermediate_size": int(size.width * size.mlp_ratio),
        "hidden_act": "gelu",
        "patch_size": model.vit.patch_size,
        "tubelet_size": TUBELET_FRAMES,
        "num_channels": 3,
        "num_frames": clip.frames,
        "image_size": clip.resolution,
    }


def to_videomae(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A trunk's tensors under the names of Hugging Face's VideoMAEModel, and `fc_norm`.

    VideoMAE has no bias on its keys, so ours are left out. That changes nothing: a bias b adds
    q.b to the scores of a query q with every key alike, and a softmax ignores what all share.
    """
    width = trunk["norm.weight"].shape[0]
    patch = trunk["patch_embed.weight"]
    side = round((patch.shape[1] / (3 * TUBELET_FRAMES)) ** 0.5)
    renamed = {
        f"{EMBEDDING}.weight": patch.reshape(width, 3, TUBELET_FRAMES, side, side),
        f"{EMBEDDING}.bias": trunk["patch_embed.bias"],
    }
    for index in range(sum(name.endswith("attn.qkv.weight") for name in trunk)):
        ours, theirs = f"blocks.{index}", f"encoder.layer.{index}"
        attention = f"{theirs}.attention.attention"
        weights = trunk[f"{ours}.attn.qkv.weight"].chunk(3)
        renamed |= {f"{attention}.{n}.weight": w for n, w in zip(QKV, weights, strict=True)}
        q_bias, _, v_bias = trunk[f"{ours}.attn.qkv.bias"].chunk(3)
        renamed |= {f"{attention}.q_bias": q_bias, f"{attention}.v_bias": v_bias}
        for our_part, their_part in PARTS.items():
            for kind in ("weight", "bias"):
                renamed[f"{theirs}.{their_part}.{kind}"] = trunk[f"{ours}.{our_part}.{kind}"]
    return renamed | {f"fc_norm.{kind}": trunk[f"norm.{kind}"] for kind in ("weight", "bias")}


def named_as_exported(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A checkpoint's tensors under the names that `to_videomae` gives, and where its norm is from.

    The norm is `fc_norm` in a classifier, else `layernorm`; where the checkpoint has neither
    (use_mean_pooling without a classifier) it is "fresh". A `layernorm` was trained on each token
    apart, before a decoder; our trunk applies it to their mean.
    """
    named = {
        # transformers 5 holds query.bias in memory and q_bias, as version 4 did, on disk.
        name.removeprefix(TRUNK)
        .replace("attention.attention.query.bias", "attention.attention.q_bias")
        .replace("attention.attention.value.bias", "attention.attention.v_bias"): tensor
        for name, tensor in tensors.items()
        if not name.startswith(IGNORED)
    }
    if "fc_norm.weight" in named:
        return named, "fc_norm"
    if "layernorm.weight" in named:
        for kind in ("weight", "bias"):
            if f"layernorm.{kind}" in named:
                named[f"fc_norm.{kind}"] = named.pop(f"layernorm.{kind}")
        return named, "layernorm"
    example = named.get("encoder.layer.0.layernorm_before.weight", torch.empty(0))
    fresh = {"fc_norm.weight": torch.ones_like(example), "fc_norm.bias": torch.zeros_like(example)}
    return named | fresh, "fresh"


def from_videomae(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_videomae`, with biases of zero on the keys."""
    trunk = {
        "patch_embed.weight": named[f"{EMBEDDING}.weight"].flatten(1),
        "patch_embed.bias": named[f"{EMBEDDING}.bias"],
    }
    for index in range(sum(name.endswith("attention.attention.q_bias") for name in named)):
        ours, theirs = f"blocks.{index}", f"encoder.layer.{index}"
        attention = f"{theirs}.attention.attention"
        q_bias, v_bias = named[f"{attention}.q_bias"], named[f"{attention}.v_bias"]
        weights = [named[f"{attention}.{name}.weight"] for name in QKV]
        trunk[f"{ours}.attn.qkv.weight"] = torch.cat(weights)
        trunk[f"{ours}.attn.qkv.bias"] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        for our_part, their_part in PARTS.items():
            for kind in ("weight", "bias"):
                trunk[f"{ours}.{our_part}.{kind}"] = named[f"{theirs}.{their_part}.{kind}"]
    return trunk | {f"norm.{kind}": named[f"fc_norm.{kind}"] for kind in ("weight", "bias")}


def linear_patch_embedding(weight: Tensor) -> Tensor:
    """The weight [width, 3 * 2 * p * p] on frames that does what `weight` does on `difference`.

    D 3 (f2 - f1) + S 0.7 (f1 + f2) = (0.7 S - 3 D) f1 + (0.7 S + 3 D) f2; summed in float64.
    """
    change, total = weight.double().reshape(len(weight), 3, TUBELET_FRAMES, -1).unbind(dim=2)
    frames = torch.stack([0.7 * total - 3 * change, 0.7 * total + 3 * change], dim=2)
    return frames.flatten(1).to(weight.dtype)
