from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import plain_training
from benchmarks.training_step import KINDS, TOLERANCE, disagreement, recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_the_peer_trains_as_we_do(kind: str, tmp_path: Path) -> None:
    trial = recipe("vit_tiny", "fp32", checked=True)
    assert disagreement(kind, trial, CPU, tmp_path, compiled=False) < TOLERANCE / 10


def test_a_peer_that_trains_otherwise_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = recipe("vit_tiny", "fp32", checked=True)
    values = plain_training.Autoencoder.values
    monkeypatch.setattr(plain_training.Autoencoder, "values", lambda *a: values(*a).square())
    assert disagreement("mae", trial, CPU, tmp_path, compiled=False) > TOLERANCE
