from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.toy import TRIAL
from trainables.config import DecoderSettings
from trainables.models import flops
from trainables.models.mae import MaskedAutoencoder, draw_masks
from trainables.models.video_vit import VideoViT
from trainables.settings import parse
from trainables.training_settings import ClipSettings, ModelSettings

BATCH = 2
LARGER = {"frames": 8, "seconds": 1.0, "resolution": 48, "normalize": "per_clip"}
CASES = [
    ("vit_tiny", 16, TRIAL["clip"]),
    ("vit_tiny", 8, LARGER),
    ("vit_small", 16, TRIAL["clip"]),
]


def described(name: str, patch_size: int) -> dict[str, Any]:
    return {
        **TRIAL["model"],
        "name": name,
        "vit": {**TRIAL["model"]["vit"], "patch_size": patch_size},
    }


def trunk_of(model: dict[str, Any], clip: dict[str, Any]) -> VideoViT:
    return VideoViT(parse(ModelSettings, model, ""), parse(ClipSettings, clip, ""))


def counted(run: Any) -> int:
    """FLOPs as PyTorch counts them; attention as its two matrix products."""
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        run()
    return counter.get_total_flops()


def video_of(clip: dict[str, Any]) -> torch.Tensor:
    return torch.randn(BATCH, 3, clip["frames"], clip["resolution"], clip["resolution"])


@pytest.mark.parametrize(("name", "patch_size", "clip"), CASES)
def test_the_trunk_costs_what_pytorch_counts(name: str, patch_size: int, clip: Any) -> None:
    model = described(name, patch_size)
    trunk, video = trunk_of(model, clip), video_of(clip)
    with torch.no_grad():
        forward = counted(lambda: trunk(video))
    assert flops.features_flops(model, clip) == forward / BATCH
    both = counted(lambda: trunk(video).sum().backward())
    assert flops.classification_flops(model, clip, frozen=False) == both / BATCH


@pytest.mark.parametrize("masking", ["random", "tube"])
@pytest.mark.parametrize(("name", "patch_size", "clip"), CASES)
def test_stage_1_costs_what_pytorch_counts(
    masking: str, name: str, patch_size: int, clip: Any
) -> None:
    model = described(name, patch_size)
    mae = {"masking": masking, "mask_ratio": 0.6, "decoder": {"width": 32, "depth": 2, "heads": 2}}
    trunk = trunk_of(model, clip)
    autoencoder = MaskedAutoencoder(trunk, DecoderSettings(**mae["decoder"]), "pixels")
    visible, masked = draw_masks(range(BATCH), trunk.grid, 0.6, masking)  # type: ignore[arg-type]
    both = counted(lambda: autoencoder(video_of(clip), visible, masked).sum().backward())
    assert flops.mae_flops(model, clip, mae) == both / BATCH


@pytest.mark.parametrize(("name", "patch_size", "clip"), CASES)
def test_parameters_are_counted_by_what_the_settings_say(
    name: str, patch_size: int, clip: Any
) -> None:
    model = described(name, patch_size)
    trunk = trunk_of(model, clip)
    assert flops.parameters(model, None) == sum(p.numel() for p in trunk.parameters())
    decoder = {"width": 32, "depth": 2, "heads": 2}
    whole = MaskedAutoencoder(trunk, DecoderSettings(**decoder), "pixels")
    found = flops.parameters(model, {"decoder": decoder})
    assert found == sum(p.numel() for p in whole.parameters())


def test_a_vit_b_of_videomae_costs_what_its_paper_says() -> None:
    # Tong et al. 2022, results on Kinetics-400: ViT-B, 16 frames of 224 x 224: 180 GFLOPs (one for
    # a multiplication and its addition) and 87 M parameters.
    model = described("vit_base", 16)
    clip = {"frames": 16, "resolution": 224}
    assert flops.features_flops(model, clip) / 2 == pytest.approx(180e9, rel=0.01)
    assert flops.parameters(model, None) == pytest.approx(87e6, rel=0.01)


def test_a_convolutional_network_is_not_modelled() -> None:
    assert flops.features_flops({"name": "r3d_18", "vit": None}, TRIAL["clip"]) is None
