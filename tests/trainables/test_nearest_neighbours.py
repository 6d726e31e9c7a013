from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.nearest_neighbours import mean_direction, votes

neighbors = pytest.importorskip("sklearn.neighbors")

DRAW = torch.Generator().manual_seed(0)
LABEL = torch.arange(700) % 5
MEMORY = torch.randn(700, 8, generator=DRAW) + 0.5 * torch.eye(8)[LABEL]
QUERIES = torch.randn(600, 8, generator=DRAW) + 0.5  # more than are looked at together


def test_the_votes_are_scikit_learn_s() -> None:
    reference = neighbors.KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    expected = reference.fit(MEMORY.double(), LABEL).predict_proba(QUERIES.double())
    found = votes(MEMORY, LABEL, QUERIES, neighbours=20, classes=7)
    assert found[:, 5:].eq(0).all()  # classes that the memory does not hold
    shares = found[:, :5] / found.sum(dim=1, keepdim=True)
    torch.testing.assert_close(shares, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_length_does_not_count() -> None:
    length = torch.linspace(0.1, 10, 700).unsqueeze(1)
    found = votes(length * MEMORY, LABEL, QUERIES, neighbours=20, classes=5)
    expected = votes(MEMORY, LABEL, QUERIES, neighbours=20, classes=5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0.0)


def test_of_fewer_clips_than_neighbours_all_vote() -> None:
    found = votes(MEMORY[:3], LABEL[:3], QUERIES[:1], neighbours=20, classes=5)
    similarity = torch.cosine_similarity(MEMORY[:3].double(), QUERIES[:1].double())
    torch.testing.assert_close(found[0, :3], (similarity / 0.07).exp())


def test_every_view_of_a_clip_weighs_the_same() -> None:
    views = torch.tensor([[[3.0, 0.0], [0.0, 100.0]]])
    assert mean_direction(views).tolist() == [[0.5, 0.5]]
