"""Training steps of a video ViT as one writes them in plain PyTorch: the peer of training_step.py.

Attention is a softmax over the matrix of all pairs of tokens, tubelets are embedded by a Conv3d,
masks are boolean, the decoder and its head run over all tokens, the optimizer is AdamW as it comes,
and the loss is looked at after every step. Weights have the names of ours; the loss is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config import AlignSettings, DecoderSettings, FinetuneSettings
from trainables.data.mixup import draw_mixing
from trainables.models import heads
from trainables.models.mae import MaskedAutoencoder
from trainables.models.sizes import DECODER_MLP_RATIO, SIZES, TUBELET_FRAMES
from trainables.models.video_vit import VideoViT
from trainables.optimization import parameter_groups, set_learning_rate
from trainables.training_settings import ModelSettings, OptimizerSettings


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        mixed: Tensor = self.proj((attention @ v).transpose(1, 2).reshape(batch, tokens, width))
        return mixed


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width, int(width * mlp_ratio))
        self.drop_path = drop_path

    def dropped(self, x: Tensor) -> Tensor:
        if self.drop_path == 0 or not self.training:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropped(self.attn(self.norm1(x)))
        return x + self.dropped(self.mlp(self.norm2(x)))


class Encoder(nn.Module):
    positions: Tensor

    def __init__(self, model: ModelSettings, positions: Tensor, drop_path: float) -> None:
        super().__init__()
        assert model.vit is not None and model.vit.tubelet == "linear"
        size, self.patch = SIZES[model.name], model.vit.patch_size
        tubelet = (TUBELET_FRAMES, self.patch, self.patch)
        self.patch_embed = nn.Conv3d(3, size.width, kernel_size=tubelet, stride=tubelet)
        self.register_buffer("positions", positions, False)
        self.blocks = nn.ModuleList(
            Block(size.width, size.heads, size.mlp_ratio, drop_path * i / (size.depth - 1))
            for i in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def forward(self, video: Tensor, masked: Tensor | None = None) -> Tensor:
        x = self.patch_embed(video).flatten(2).transpose(1, 2) + self.positions
        if masked is not None:
            x = x[~masked].reshape(len(x), -1, x.shape[-1])
        for block in self.blocks:
            x = block(x)
        return x


class Classifier(nn.Module):
    def __init__(
        self, trunk: Encoder, classes: int, settings: AlignSettings | FinetuneSettings
    ) -> None:
        super().__init__()
        self.trunk, self.settings = trunk, settings
        self.head = nn.Linear(trunk.norm.normalized_shape[0], classes)

    def forward(self, video: Tensor, label: Tensor, step: int, seed: int) -> Tensor:
        """The loss, mean over clips; soft targets, as in timm's Mixup."""
        smoothing, classes = self.settings.label_smoothing, self.head.out_features
        target = F.one_hot(label, classes) * (1 - smoothing) + smoothing / classes
        assert self.settings.mixup is not None
        mixing = draw_mixing(self.settings.mixup, seed, step, *video.shape[-2:])
        assert mixing is not None
        partner = torch.arange(len(video), device=video.device) ^ 1
        if mixing.box is None:
            video = mixing.share * video + (1 - mixing.share) * video[partner]
        else:
            inside = (..., *mixing.box)
            video, other = video.clone(), video[partner]
            video[inside] = other[inside]
        target = mixing.share * target + (1 - mixing.share) * target[partner]
        logits = self.head(self.trunk.norm(self.trunk(video).mean(dim=1)))
        return -(target * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()


class Autoencoder(nn.Module):
    positions: Tensor

    def __init__(self, trunk: Encoder, decoder: DecoderSettings, positions: Tensor) -> None:
        super().__init__()
        width = trunk.norm.normalized_shape[0]
        self.trunk, self.encoder_norm = trunk, nn.LayerNorm(width, eps=1e-6)
        trunk.norm.requires_grad_(False)
        self.decoder_embed = nn.Linear(width, decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(decoder.width))
        self.register_buffer("positions", positions, False)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder.width, decoder.heads, DECODER_MLP_RATIO, 0.0)
            for _ in range(decoder.depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder.width, eps=1e-6)
        self.decoder_head = nn.Linear(decoder.width, 3 * TUBELET_FRAMES * trunk.patch**2)

    def forward(self, video: Tensor, masked: Tensor) -> Tensor:
        """The loss, mean over clips; `masked` bool [B, N]."""
        encoded = self.decoder_embed(self.encoder_norm(self.trunk(video, masked)))
        tokens = self.mask_token.to(encoded.dtype).expand(*masked.shape, -1).clone()
        tokens[~masked] = encoded.flatten(0, 1)
        tokens = tokens + self.positions
        for block in self.decoder_blocks:
            tokens = block(tokens)
        drawn = self.decoder_head(self.decoder_norm(tokens)).float()
        values = self.values(video)
        mean, deviation = values.mean(dim=-1, keepdim=True), values.std(dim=-1, keepdim=True)
        wanted = ((values - mean) / (deviation + 1e-6)).flatten(2)
        error = (drawn - wanted).square().mean(dim=-1)
        return ((error * masked).sum(dim=1) / masked.sum(dim=1)).mean()

    def values(self, video: Tensor) -> Tensor:
        """[B, N, 3, values of a channel in a tubelet]."""
        batch, _, frames, height, width = video.shape
        p, f = self.trunk.patch, TUBELET_FRAMES
        parts = video.reshape(batch, 3, frames // f, f, height // p, p, width // p, p)
        return parts.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, 3, f * p * p)


def plain_autoencoder(
    ours: MaskedAutoencoder, model: ModelSettings, decoder: DecoderSettings
) -> nn.Module:
    """With the weights of `ours`."""
    plain = Autoencoder(Encoder(model, ours.trunk.positions, 0.0), decoder, ours.positions)
    return _with_weights(plain, ours.state_dict())


def plain_classifier(
    ours: heads.Classifier, model: ModelSettings, settings: AlignSettings | FinetuneSettings
) -> nn.Module:
    """With the weights of `ours`, which has a ViT."""
    assert isinstance(ours.trunk, VideoViT)
    encoder = Encoder(model, ours.trunk.positions, settings.drop_path)
    plain = Classifier(encoder, ours.head.out_features, settings)
    return _with_weights(plain, ours.state_dict())


def _with_weights(plain: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    own = plain.state_dict()  # a Conv3d's weight lies as the linear layer's does
    plain.load_state_dict({name: tensor.view_as(own[name]) for name, tensor in weights.items()})
    return plain


class PlainTraining:
    """A model, its optimizer, and a step."""

    def __init__(
        self, model: nn.Module, depth: int, settings: OptimizerSettings, device: torch.device
    ) -> None:
        assert settings.betas is not None
        self.model, self.settings, self.device = model.to(device), settings, device
        groups = parameter_groups(model, depth, settings)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr_peak, betas=settings.betas)
        self.trained = [parameter for group in groups for parameter in group["params"]]

    def step(self, loss_of: Callable[[nn.Module], Tensor], lr: float) -> float:
        """Returns the loss. bf16 by autocast, as ours."""
        self.model.train()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"
        ):
            loss = loss_of(self.model)
        value = loss.item()
        assert math.isfinite(value)
        loss.backward()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.trained, self.settings.clip_norm)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value
