from __future__ import annotations

import pytest
import torch

from tests.toy import toy_trial
from trainables.models.timm_models import import_torchvision
from trainables.models.video_vit import VideoViT
from trainables.models.videomae import (
    TRUNK,
    from_videomae,
    linear_patch_embedding,
    named_as_exported,
    to_videomae,
    videomae_config,
)
from trainables.training_settings import ClipSettings, ModelSettings, VitSettings

import_torchvision()  # transformers imports it too
transformers = pytest.importorskip("transformers")

TRIAL = toy_trial(model__vit__tubelet="linear", clip__normalize="imagenet")
TOY = videomae_config(TRIAL.model, TRIAL.clip)


def vit(tubelet: str = "linear") -> VideoViT:
    """A toy trunk all of whose weights and biases are drawn, those of the keys too."""
    assert TRIAL.model.vit is not None
    model_vit = TRIAL.model.vit.model_copy(update={"tubelet": tubelet})
    trunk = VideoViT(TRIAL.model.model_copy(update={"vit": model_vit}), TRIAL.clip)
    return drawn(trunk)


def drawn(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(0.0, 0.1, generator=generator)
    return module.eval()


def reference(kind: str, **changes):
    return drawn(getattr(transformers, kind)(transformers.VideoMAEConfig(**{**TOY, **changes})))


def as_ours(model) -> tuple[VideoViT, str]:
    named, norm = named_as_exported(model.state_dict())
    trunk = vit()
    trunk.load_state_dict(from_videomae(named))
    return trunk, norm


VIDEO = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
HF_VIDEO = VIDEO.transpose(1, 2)  # [B, T, C, H, W]


def test_a_classifier_s_pooled_and_normalised_features_are_ours() -> None:
    model = reference("VideoMAEForVideoClassification")
    trunk, norm = as_ours(model)
    assert norm == "fc_norm"
    model.classifier = torch.nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(trunk(VIDEO), model(HF_VIDEO).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["VideoMAEModel", "VideoMAEForPreTraining"])
def test_the_last_hidden_state_is_ours_normalised_token_by_token(kind: str) -> None:
    model = reference(kind, use_mean_pooling=False)
    trunk, norm = as_ours(model)
    assert norm == "layernorm"
    bare = getattr(model, "videomae", model)
    with torch.inference_mode():
        found = trunk.norm(trunk.encode(trunk.tubelets(VIDEO)))
        expected = bare(HF_VIDEO).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_a_norm_in_the_checkpoint_ours_is_fresh() -> None:
    model = reference("VideoMAEModel", use_mean_pooling=True)
    trunk, norm = as_ours(model)
    assert norm == "fresh"
    assert (trunk.norm.weight == 1).all() and (trunk.norm.bias == 0).all()
    with torch.inference_mode():
        found, expected = trunk.encode(trunk.tubelets(VIDEO)), model(HF_VIDEO).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tubelet", ["linear", "difference"])
def test_exported_weights_give_our_features_without_a_bias_on_the_keys(tubelet: str) -> None:
    trunk = vit(tubelet)
    weights = dict(trunk.state_dict())
    if tubelet == "difference":
        weights["patch_embed.weight"] = linear_patch_embedding(weights["patch_embed.weight"])
    model = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(**TOY, layer_norm_eps=1e-6)
    ).eval()
    model.classifier = torch.nn.Identity()
    missing = model.load_state_dict(
        {
            (name if "fc_norm" in name else TRUNK + name)
            .replace("q_bias", "query.bias")
            .replace("v_bias", "value.bias"): tensor
            for name, tensor in to_videomae(weights).items()
        }
    )
    assert not missing.missing_keys and not missing.unexpected_keys
    assert weights["blocks.0.attn.qkv.bias"][96:192].abs().max() > 0.1
    with torch.inference_mode():
        torch.testing.assert_close(model(HF_VIDEO).logits, trunk(VIDEO), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "published"), [("vit_small", 22e6), ("vit_base", 86e6), ("vit_large", 304e6)]
)
def test_a_vit_has_as_many_parameters_as_videomae_s_and_a_bias_a_key(
    name: str, published: float
) -> None:
    vit_settings = VitSettings(patch_size=16, tubelet="linear", positions="sincos_1d")
    model = ModelSettings(name=name, vit=vit_settings)
    clip = ClipSettings(frames=16, seconds=2.7, resolution=224, normalize="imagenet")
    config = transformers.VideoMAEConfig(**videomae_config(model, clip), use_mean_pooling=False)
    with torch.device("meta"):
        ours, theirs = VideoViT(model, clip), transformers.VideoMAEModel(config)
    counted = [sum(p.numel() for p in module.parameters()) for module in (ours, theirs)]
    assert counted[0] - ours.depth * ours.width == counted[1]
    assert counted[1] == pytest.approx(published, rel=0.01)
    assert ours.tokens == 1568 == theirs.embeddings.num_patches
