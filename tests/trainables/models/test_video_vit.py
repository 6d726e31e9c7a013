from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.toy import toy_trial
from trainables.models.sizes import SIZES
from trainables.models.timm_models import DropPath
from trainables.models.video_vit import (
    VideoViT,
    difference,
    sincos_positions,
    sincos_positions_3d,
    to_tubelets,
)

TRIAL = toy_trial()  # 4 frames of 32 x 32 in tubelets of 2 x 16 x 16: 8 tokens


def vit(name: str = "vit_tiny", drop_path: float = 0.0, **changes: object) -> VideoViT:
    torch.manual_seed(0)
    changed = TRIAL.model.vit.model_copy(update=changes)
    model = TRIAL.model.model_copy(update={"name": name, "vit": changed})
    return VideoViT(model, TRIAL.clip, drop_path)


def test_linear_tubelets_are_the_patches_of_a_3d_convolution() -> None:
    video = torch.randn(2, 3, 4, 32, 32)
    convolution = nn.Conv3d(3, 7, kernel_size=(2, 16, 16), stride=(2, 16, 16))
    expected = convolution(video).flatten(2).transpose(1, 2)
    weight = convolution.weight.reshape(7, -1)
    found = to_tubelets(video, 16).flatten(2) @ weight.T + convolution.bias
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_difference_tubelets_hold_change_and_sum_of_each_pair_of_frames() -> None:
    video = torch.randn(1, 3, 4, 32, 32)
    change = 3 * (video[:, :, 1::2] - video[:, :, ::2])
    total = 0.7 * (video[:, :, 1::2] + video[:, :, ::2])
    expected = torch.stack([change, total], dim=3).flatten(2, 3)  # interleaved as two frames
    found = difference(to_tubelets(video, 16))
    torch.testing.assert_close(found, to_tubelets(expected, 16))


def test_positions_are_videomae_s_sinusoid_table() -> None:
    table = sincos_positions(5, 6)
    for position in range(5):
        for place in range(6):
            angle = position / 10000 ** (2 * (place // 2) / 6)
            value = math.sin(angle) if place % 2 == 0 else math.cos(angle)
            assert table[position, place].item() == pytest.approx(value, abs=1e-6)


def test_positions_in_3d_share_the_part_of_what_tokens_share() -> None:
    table = sincos_positions_3d((2, 3, 4), 18).reshape(2, 3, 4, 18)
    time, height, width = table[..., :6], table[..., 6:12], table[..., 12:]
    assert (time == time[:, :1, :1]).all() and (time[0] != time[1]).any()
    assert (height == height[:1, :, :1]).all() and (width == width[:1, :1]).all()
    assert len(table.reshape(-1, 18).unique(dim=0)) == 24
    torch.testing.assert_close(height[0, :, 0], sincos_positions(3, 6))


def test_the_feature_is_the_normalised_mean_over_tokens() -> None:
    model = vit()
    video = torch.randn(2, 3, 4, 32, 32)
    mean = model.encode(model.tubelets(video)).mean(dim=1)
    expected = (mean - mean.mean(1, keepdim=True)) / mean.std(1, unbiased=False, keepdim=True)
    torch.testing.assert_close(model(video), expected, rtol=1e-4, atol=1e-4)


def test_visible_tokens_keep_their_positions() -> None:
    model = vit()
    model.blocks = nn.ModuleList()
    tubelets = model.tubelets(torch.randn(1, 3, 4, 32, 32))
    visible = torch.tensor([[6, 1]])
    every = model.encode(tubelets)
    torch.testing.assert_close(model.encode(tubelets, visible), every[:, [6, 1]])


def test_drop_path_grows_linearly_over_the_blocks() -> None:
    torch.manual_seed(0)
    branch = torch.ones(10_000, 1, 1)
    for name in ("drop_path1", "drop_path2"):
        paths = [getattr(block, name) for block in vit(drop_path=0.3).blocks]
        dropped = [(path(branch) == 0).float().mean().item() for path in paths]
        assert dropped == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=0.02)


def test_drop_path_keeps_the_mean_drops_whole_clips_and_rests_in_evaluation() -> None:
    path = DropPath(0.25)
    torch.manual_seed(0)
    branch = torch.ones(20_000, 3, 2)
    assert path(branch).mean().item() == pytest.approx(1.0, abs=0.02)
    values = path(branch).flatten(1)
    assert (values == values[:, :1]).all()
    assert path(branch.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(path.eval()(branch), branch, rtol=0, atol=0)


@pytest.mark.parametrize("name", SIZES)
def test_each_size_has_its_blocks_with_biases_on_queries_keys_and_values(name: str) -> None:
    with torch.device("meta"):
        model = vit(name=name)
    size = SIZES[name]
    assert len(model.blocks) == size.depth
    assert all(b.attn.qkv.bias.shape == (3 * size.width,) for b in model.blocks)
    assert model.blocks[0].mlp.fc1.out_features == size.width * size.mlp_ratio
