"""Learning from a generator's views: the projection of features, and the losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Sequential):
    """Feature [B, width] -> a point on the unit sphere [B, size]: one hidden layer (SimCLR)."""

    def __init__(self, width: int, hidden: int, size: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, feature: Tensor) -> Tensor:
        return F.normalize(super().forward(feature).float(), dim=1)


def contrastive_loss(
    own: Tensor, every: Tensor, label: Tensor, first: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """The loss [B] of each of `own`, and if the nearest other is a positive, bool [B].

    -1/|P(i)| sum_{p in P(i)} log( exp(s_ip / t) / sum_{a != i} exp(s_ia / t) ), with s the dot
    product and P(i) the others of i's label: SupCon (Khosla et al. 2020, their L_out). Where a
    label stands for one pair of views it is SimCLR's NT-Xent (Chen et al. 2020).

    Args:
        own: unit vectors [B, D], those from `first` on of `every`.
        every: unit vectors [N, D] of the whole batch.
        label: int64 [N]. Each occurs twice at the least.
    """
    mine = torch.arange(first, first + len(own), device=own.device)
    itself = mine[:, None] == torch.arange(len(every), device=own.device)
    positive = (label[mine][:, None] == label) & ~itself
    similar = (own @ every.T / temperature).masked_fill(itself, -torch.inf)
    log_p = F.log_softmax(similar, dim=1).masked_fill(~positive, 0.0)
    nearest = positive.gather(1, similar.argmax(dim=1, keepdim=True)).squeeze(1)
    return -log_p.sum(dim=1) / positive.sum(dim=1), nearest


def inverter_loss(
    found: Tensor, latent: Tensor, logits: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """MSE(z) and CE(y) of each clip, [B] each, whose sum GenRep's inverter minimises.

    `found` and `latent`: [B, D], the mean is over D; `logits` [B, classes], `target` [B].
    """
    error = (found.float() - latent).pow(2).mean(dim=1)
    return error, F.cross_entropy(logits, target, reduction="none")
