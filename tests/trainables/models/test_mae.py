from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.toy import toy_trial
from trainables.models.mae import MaskedAutoencoder, draw_masks, normalized_jointly
from trainables.models.video_vit import VideoViT, to_tubelets


def autoencoder(target: str, tubelet: str = "linear") -> MaskedAutoencoder:
    trial = toy_trial(mae__target=target, model__vit__tubelet=tubelet)
    torch.manual_seed(0)
    trunk = VideoViT(trial.model, trial.clip)
    return MaskedAutoencoder(trunk, trial.mae.decoder, trial.mae.target)


def masks(model: MaskedAutoencoder, seeds: list[int]) -> tuple[Tensor, Tensor]:
    return draw_masks(seeds, model.trunk.grid, 0.6, "random")


@pytest.mark.parametrize("target", ["pixels", "normalized_per_channel", "normalized_jointly"])
def test_the_loss_is_the_squared_error_on_masked_tubelets_alone(target: str) -> None:
    model = autoencoder(target)
    video = torch.randn(2, 3, 4, 32, 32)
    visible, masked = masks(model, [3, 4])
    loss = model(video, visible, masked)
    for clip in range(2):
        # The same forward, one clip and one token at a time.
        tubelets = to_tubelets(video[clip : clip + 1], 16)[0]  # [N, C, 2, p * p]
        tokens = model.trunk.patch_embed(tubelets.flatten(1)) + model.trunk.positions
        encoded = tokens[visible[clip]].unsqueeze(0)
        for block in model.trunk.blocks:
            encoded = block(encoded)
        whole = torch.zeros(1, model.trunk.tokens, 32) + model.mask_token
        whole[:, visible[clip]] = model.decoder_embed(model.encoder_norm(encoded))
        whole = whole + model.positions
        for block in model.decoder_blocks:
            whole = block(whole)
        drawn = model.decoder_head(model.decoder_norm(whole))[0]
        errors = []
        for token in masked[clip].tolist():
            wanted = tubelets[token].flatten(1)  # a row for each channel
            if target == "normalized_per_channel":
                mean, std = wanted.mean(1, keepdim=True), wanted.std(1, keepdim=True)
                wanted = (wanted - mean) / (std + 1e-6)
            if target == "normalized_jointly":
                wanted = (wanted - wanted.mean()) / (wanted.var() + 1e-6).sqrt()
            errors.append((drawn[token] - wanted.flatten()).square())
        expected = torch.cat(errors).mean()
        torch.testing.assert_close(loss[clip], expected, rtol=1e-4, atol=1e-5)


def test_difference_tubelets_are_drawn_as_differences() -> None:
    model = autoencoder("pixels", "difference")
    for parameter in (model.decoder_head.weight, model.decoder_head.bias):
        torch.nn.init.zeros_(parameter)
    video = torch.randn(1, 3, 4, 32, 32)
    visible, masked = masks(model, [3])
    drawn_zero = model.trunk.tubelets(video)[0, masked[0]].square().mean()
    torch.testing.assert_close(model(video, visible, masked)[0], drawn_zero)


@pytest.mark.parametrize("masking", ["random", "tube"])
def test_a_mask_follows_from_its_clip_s_seed_alone(masking: Any) -> None:
    visible, masked = draw_masks([5, 6, 7], (4, 5, 5), 0.9, masking)
    again = draw_masks([7, 5], (4, 5, 5), 0.9, masking)
    assert torch.equal(again[0], visible[[2, 0]])
    assert torch.equal(again[1], masked[[2, 0]])
    assert not torch.equal(masked[0], masked[1])


def test_a_mask_divides_the_tokens_in_the_stated_ratio() -> None:
    visible, masked = draw_masks([1], (8, 14, 14), 0.9, "random")
    assert masked.shape == (1, 1411)  # int(0.9 * 1568), as VideoMAE rounds
    assert sorted(torch.cat([visible, masked], dim=1)[0].tolist()) == list(range(1568))


def test_a_tube_hides_the_same_places_at_all_times() -> None:
    visible, masked = draw_masks([1, 2], (8, 14, 14), 0.9, "tube")
    assert masked.shape == (2, 8 * 176)  # int(0.9 * 196) places, as VideoMAE rounds
    for clip in range(2):
        hidden = torch.zeros(1568, dtype=torch.bool)
        hidden[masked[clip]] = True
        assert not hidden[visible[clip]].any()
        assert hidden.sum() + len(visible[clip].unique()) == 1568
        by_time = hidden.reshape(8, 196)
        assert (by_time == by_time[0]).all()
    assert not torch.equal(masked[0].sort().values, masked[1].sort().values)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.01, 1), (0.99, 3)])
def test_something_is_hidden_and_something_is_not(ratio: float, hidden: int) -> None:
    assert draw_masks([0], (1, 2, 2), ratio, "random")[1].shape == (1, hidden)
    assert draw_masks([0], (5, 2, 2), ratio, "tube")[1].shape == (1, 5 * hidden)
    with pytest.raises(ValueError, match=r"tube.*\(5, 1, 1\)"):
        draw_masks([0], (5, 1, 1), ratio, "tube")


def copied(module: nn.Module, source: nn.Module) -> None:
    """Weights and epsilon; transformers' norms have others."""
    module.load_state_dict(source.state_dict())
    if isinstance(module, nn.LayerNorm):
        assert isinstance(source, nn.LayerNorm)
        module.eps = source.eps


def copied_block(layer: Any, block: Any) -> None:
    """timm's block to transformers' layer, which has no bias on the keys."""
    attention = layer.attention.attention
    parts = zip(block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3), strict=True)
    named = (attention.query, attention.key, attention.value)
    for linear, (weight, bias) in zip(named, parts, strict=True):
        linear.weight.copy_(weight)
        if linear.bias is not None:
            linear.bias.copy_(bias)
    copied(layer.attention.output.dense, block.attn.proj)
    copied(layer.intermediate.dense, block.mlp.fc1)
    copied(layer.output.dense, block.mlp.fc2)
    copied(layer.layernorm_before, block.norm1)
    copied(layer.layernorm_after, block.norm2)


@torch.no_grad()
def test_the_loss_per_channel_is_that_of_transformers_videomae() -> None:
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    model = autoencoder("normalized_per_channel")
    reference = VideoMAEForPreTraining(
        VideoMAEConfig(
            **{"image_size": 32, "patch_size": 16, "num_frames": 4, "tubelet_size": 2},
            **{"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4},
            **{"intermediate_size": 288, "use_mean_pooling": False, "norm_pix_loss": True},
            **{"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1},
            **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 128},
        )
    ).eval()
    inside, decoder = reference.videomae, reference.decoder
    embedding = inside.embeddings.patch_embeddings.projection
    embedding.weight.copy_(model.trunk.patch_embed.weight.reshape(embedding.weight.shape))
    embedding.bias.copy_(model.trunk.patch_embed.bias)
    for layer, block in zip(inside.encoder.layer, model.trunk.blocks, strict=True):
        copied_block(layer, block)
    for layer, block in zip(decoder.decoder_layers, model.decoder_blocks, strict=True):
        copied_block(layer, block)
    copied(inside.layernorm, model.encoder_norm)
    copied(reference.encoder_to_decoder, model.decoder_embed)
    reference.mask_token.copy_(model.mask_token)
    copied(decoder.norm, model.decoder_norm)
    # Ours draws channel, frame, row, column; theirs frame, row, column, channel.
    order = torch.arange(3 * 2 * 16 * 16).reshape(3, -1).T.flatten()
    decoder.head.weight.copy_(model.decoder_head.weight[order])
    decoder.head.bias.copy_(model.decoder_head.bias[order])

    video = torch.randn(2, 3, 4, 32, 32)
    visible, masked = draw_masks([3, 4], model.trunk.grid, 0.6, "random")
    hidden = torch.zeros(2, model.trunk.tokens, dtype=torch.bool).scatter(1, masked, True)
    expected = reference(video.transpose(1, 2), hidden).loss
    torch.testing.assert_close(model(video, visible, masked).mean(), expected)


@torch.no_grad()
def test_joint_normalisation_is_that_of_transformers_image_mae() -> None:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(0)
    # A tubelet is to it a patch of an image with 2 x 3 channels; its decoder draws all alike.
    config = ViTMAEConfig(
        **{"image_size": 32, "patch_size": 16, "num_channels": 6, "norm_pix_loss": True},
        **{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1},
        **{"decoder_num_attention_heads": 2},
    )
    reference = ViTMAEForPreTraining(config)
    nn.init.zeros_(reference.decoder.decoder_pred.weight)
    drawn = nn.init.normal_(reference.decoder.decoder_pred.bias)
    video = 0.01 * torch.randn(1, 3, 2, 32, 32) + torch.arange(3.0).view(3, 1, 1, 1)
    output = reference(video.flatten(1, 2))
    values = normalized_jointly(to_tubelets(video, 16))
    theirs = values.permute(0, 1, 4, 2, 3).flatten(2)  # row, column, channel
    errors = (theirs - drawn).square().mean(dim=-1)
    torch.testing.assert_close(errors[output.mask == 1].mean(), output.loss)


@pytest.mark.parametrize("final_norm", ["fresh", "kept"])
def test_the_encoder_s_last_norm_is_kept_where_that_is_asked_for(final_norm: Any) -> None:
    model = autoencoder("pixels")
    nn.init.uniform_(model.encoder_norm.weight)
    nn.init.uniform_(model.encoder_norm.bias)
    nn.init.constant_(model.trunk.norm.bias, 7.0)
    before = {name: tensor.clone() for name, tensor in model.trunk.state_dict().items()}
    tensors = model.trunk_tensors(final_norm)
    assert tensors.keys() == before.keys()
    norm = model.encoder_norm if final_norm == "kept" else model.trunk.norm
    expected = {**before, "norm.weight": norm.weight, "norm.bias": norm.bias}
    assert [n for n in expected if not torch.equal(tensors[n], expected[n])] == []


def test_the_trunk_s_last_norm_is_not_trained_by_stage_1() -> None:
    model = autoencoder("pixels")
    video = torch.randn(1, 3, 4, 32, 32)
    model(video, *masks(model, [0])).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"trunk.norm.weight", "trunk.norm.bias"}
