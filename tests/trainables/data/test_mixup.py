from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy import MIXUP
from trainables.data.mixup import MIXUP_STREAM, Mixing, draw_mixing, mixed, partners
from trainables.models.timm_models import transformer_block
from trainables.training_settings import MixupSettings

SIDES = (20, 28)


def settings(**changes: Any) -> MixupSettings:
    return MixupSettings(**{**MIXUP, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"probability": 0.7}, {"mixup_alpha": 0.0}, {"cutmix_alpha": 0.0, "probability": 0.9}],
)
def test_a_batch_is_mixed_as_timm_mixes_it(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer_block(8, 2, 1.0, 0.0)  # makes timm importable, whatever torchvision is here
    from timm.data.mixup import Mixup

    chosen = settings(**changes)
    theirs = Mixup(
        chosen.mixup_alpha,
        chosen.cutmix_alpha,
        prob=chosen.probability,
        switch_prob=chosen.switch_probability,
        label_smoothing=0.0,
        num_classes=6,
    )
    label = torch.arange(6)
    pairs = torch.tensor([0, 5, 1, 4, 2, 3])  # timm mixes a batch with its reverse
    kinds: Counter[str] = Counter()
    for step in range(40):
        video = torch.randn(6, 3, 4, *SIDES)
        mixing = draw_mixing(chosen, 7, step, *SIDES)
        rng = np.random.default_rng([7, MIXUP_STREAM, step])
        draws = SimpleNamespace(
            rand=rng.random,
            beta=rng.beta,
            randint=lambda low, high, size, rng=rng: rng.integers(high),
        )
        with monkeypatch.context() as patch:
            numpy = SimpleNamespace(random=draws, sqrt=np.sqrt, clip=np.clip)
            patch.setattr("timm.data.mixup.np", numpy)
            # Frames become channels, which timm gives the same box.
            expected, target = theirs(video.flatten(1, 2).clone(), label)
        found, share = video[pairs], torch.ones(6)
        partner = partners(torch.zeros(6, dtype=torch.int64), across_sources=False)
        if mixing is not None:
            found, share = mixed(found, partner, mixing)
        kinds["none" if mixing is None else "blend" if mixing.box is None else "box"] += 1
        torch.testing.assert_close(found.flatten(1, 2), expected[pairs])
        own, other = (torch.eye(6)[of] for of in (pairs, pairs[partner]))
        soft = share.unsqueeze(1) * own + (1 - share.unsqueeze(1)) * other
        torch.testing.assert_close(soft, target[pairs])
    assert set(kinds) == {
        *(["none"] if chosen.probability < 1 else []),
        *(["blend"] if chosen.mixup_alpha else []),
        *(["box"] if chosen.cutmix_alpha else []),
    }


def test_the_draw_follows_from_seed_and_step() -> None:
    draws = [draw_mixing(settings(), seed, step, *SIDES) for seed in (0, 1) for step in (0, 1)]
    assert len({draw.share for draw in draws if draw is not None}) == 4
    assert draws[3] == draw_mixing(settings(), 1, 1, *SIDES)


def test_partners_are_neighbours_of_one_source_unless_sources_may_mix() -> None:
    source = torch.tensor([0, 0, 1, 0, 1, 1, 2])
    assert partners(source, across_sources=False).tolist() == [1, 0, 2, 3, 5, 4, 6]
    assert partners(source, across_sources=True).tolist() == [1, 0, 3, 2, 5, 4, 6]


@pytest.mark.parametrize("box", [None, (slice(0, 5), slice(3, 28))])
def test_a_clip_without_partner_stays_as_it_is_and_the_batch_that_was_read_too(box: Any) -> None:
    video = torch.randn(3, 3, 2, *SIDES)
    before = video.clone()
    found, share = mixed(video, torch.tensor([1, 0, 2]), Mixing(0.3, box))
    assert torch.equal(video, before)
    assert torch.equal(found[2], video[2])
    assert not torch.equal(found[0], video[0])
    assert share.tolist() == pytest.approx([0.3, 0.3, 1.0])


def test_mixing_by_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="both 0, which mixes nothing; set mixup: null"):
        settings(mixup_alpha=0.0, cutmix_alpha=0.0)
