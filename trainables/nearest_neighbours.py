"""Weighted k-nearest-neighbour classification of frozen features, as in DINO's evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07  # DINO's, from Wu et al., "Unsupervised Feature Learning" (2018)
AT_ONCE = 512  # queries whose similarities to all of the memory are held at once


def votes(
    memory: Tensor, label: Tensor, queries: Tensor, *, neighbours: int, classes: int
) -> Tensor:
    """float64 [Q, classes]: what the nearest of memory [M, D] vote for each of queries [Q, D].

    Each of the min(neighbours, M) nearest by cosine similarity s adds exp(s / 0.07) to its class
    in label [M].
    """
    memory, queries = (F.normalize(values.double(), dim=1) for values in (memory, queries))
    counted = []
    for part in queries.split(AT_ONCE):
        similarity, nearest = (part @ memory.T).topk(min(neighbours, len(memory)), dim=1)
        empty = part.new_zeros(len(part), classes)
        counted.append(empty.scatter_add(1, label[nearest], (similarity / TEMPERATURE).exp()))
    return torch.cat(counted)


def mean_direction(features: Tensor) -> Tensor:
    """float64 [N, D]: the mean over the views of features [N, V, D], each of length 1."""
    return F.normalize(features.double(), dim=2).mean(dim=1)
