from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.toy import toy_trial
from trainables.models.inflation import inflated
from trainables.models.timm_models import import_torchvision
from trainables.models.trunk import build_trunk

import_torchvision()
from timm.layers import resample_abs_pos_embed  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

CHANGES = {
    "model__vit__tubelet": "linear",
    "model__vit__positions": "imported",
    "start": {"weights": "timm", "path": "x"},
}


def image_vit(pixels: int = 32, **changes: object) -> nn.Module:
    """timm's image ViT of the size of vit_tiny, every weight drawn."""
    settings = {
        **{"img_size": pixels, "patch_size": 16, "num_classes": 0},
        **{"embed_dim": 96, "depth": 4, "num_heads": 4, "mlp_ratio": 3.0},
        **changes,
    }
    model = VisionTransformer(**settings)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.1, generator=generator)
    return model.eval()


def video_vit(image: nn.Module, frames: int) -> nn.Module:
    trial = toy_trial(**CHANGES, clip__frames=frames)
    trunk = build_trunk(trial.model, trial.clip).eval()
    trunk.load_state_dict(inflated(image.state_dict(), trunk.grid))
    return trunk


def static(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image [2, 3, 32, 32], and the clip that shows it all the time."""
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return image, image.unsqueeze(2).expand(-1, -1, frames, -1, -1)


def test_a_clip_of_one_image_has_the_features_of_the_image() -> None:
    model = image_vit(global_pool="avg", class_token=False)
    image, clip = static(2)
    with torch.inference_mode():
        torch.testing.assert_close(video_vit(model, 2)(clip), model(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [2, 4])
def test_the_blocks_see_what_the_image_s_saw_but_the_class_token(frames: int) -> None:
    model = image_vit()
    image, clip = static(frames)
    trunk = video_vit(model, frames)
    seen: dict[str, torch.Tensor] = {}
    for name, module in (("image", model.blocks[0]), ("video", trunk.blocks[0])):
        module.register_forward_pre_hook(lambda _, x, n=name: seen.__setitem__(n, x[0]))
    with torch.inference_mode():
        model(image)
        trunk(clip)
    expected = seen["image"][:, 1:].repeat(1, frames // 2, 1)
    torch.testing.assert_close(seen["video"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("class_token", [True, False])
def test_positions_of_another_size_are_resampled_as_timm_does(class_token: bool) -> None:
    model = image_vit(80, class_token=class_token, global_pool="token" if class_token else "avg")
    positions = model.pos_embed.detach()
    assert positions.shape[1] == 25 + class_token
    expected = resample_abs_pos_embed(positions[:, class_token:], (2, 2), num_prefix_tokens=0)
    torch.testing.assert_close(video_vit(model, 4).positions, expected[0].repeat(2, 1))


def test_imported_positions_are_part_of_the_weights_and_fixed_ones_are_not() -> None:
    trunk = video_vit(image_vit(), 4)
    assert "positions" in trunk.state_dict()
    assert "positions" not in dict(trunk.named_parameters())
    trial = toy_trial()
    assert "positions" not in build_trunk(trial.model, trial.clip).state_dict()


def test_positions_that_are_no_square_are_refused() -> None:
    state = {"pos_embed": torch.zeros(1, 7, 96)}
    with pytest.raises(ValueError, match="7 positions, which are no square"):
        inflated(state, (1, 2, 2))
