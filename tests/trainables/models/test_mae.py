from __future__ import annotations

import pytest
import torch

from tests.toy import toy_trial
from trainables.models.mae import MaskedAutoencoder, draw_masks
from trainables.models.video_vit import VideoViT, to_tubelets


def autoencoder(target: str, tubelet: str) -> MaskedAutoencoder:
    trial = toy_trial(mae__target=target, model__vit__tubelet=tubelet)
    torch.manual_seed(0)
    trunk = VideoViT(trial.model, trial.clip)
    return MaskedAutoencoder(trunk, trial.mae.decoder, trial.mae.target)


@pytest.mark.parametrize("target", ["pixels", "normalized_per_channel"])
def test_the_loss_is_the_squared_error_on_masked_tubelets_alone(target: str) -> None:
    model = autoencoder(target, "linear")
    video = torch.randn(2, 3, 4, 32, 32)
    visible, masked = draw_masks([3, 4], model.trunk.tokens, 0.6)
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
            errors.append((drawn[token] - wanted.flatten()).square())
        expected = torch.cat(errors).mean()
        torch.testing.assert_close(loss[clip], expected, rtol=1e-4, atol=1e-5)


def test_difference_tubelets_are_drawn_as_differences() -> None:
    model = autoencoder("pixels", "difference")
    for parameter in (model.decoder_head.weight, model.decoder_head.bias):
        torch.nn.init.zeros_(parameter)
    video = torch.randn(1, 3, 4, 32, 32)
    visible, masked = draw_masks([3], model.trunk.tokens, 0.6)
    drawn_zero = model.trunk.tubelets(video)[0, masked[0]].square().mean()
    torch.testing.assert_close(model(video, visible, masked)[0], drawn_zero)


def test_a_mask_follows_from_its_clip_s_seed_alone() -> None:
    visible, masked = draw_masks([5, 6, 7], 100, 0.9)
    again = draw_masks([7, 5], 100, 0.9)
    assert torch.equal(again[0], visible[[2, 0]])
    assert torch.equal(again[1], masked[[2, 0]])
    assert not torch.equal(masked[0], masked[1])


def test_a_mask_divides_the_tokens_in_the_stated_ratio() -> None:
    visible, masked = draw_masks([1], 1568, 0.9)
    assert masked.shape == (1, 1411)  # int(0.9 * 1568), as VideoMAE rounds
    assert sorted(torch.cat([visible, masked], dim=1)[0].tolist()) == list(range(1568))


def test_the_trunk_s_last_norm_is_not_trained_by_stage_1() -> None:
    model = autoencoder("pixels", "linear")
    video = torch.randn(1, 3, 4, 32, 32)
    model(video, *draw_masks([0], model.trunk.tokens, 0.5)).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"trunk.norm.weight", "trunk.norm.bias"}
