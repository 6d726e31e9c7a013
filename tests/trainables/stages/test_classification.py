from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.toy import MIXUP, toy_trial
from trainables.data.batch import Batch
from trainables.data.mixup import Mixing
from trainables.models.heads import Classifier, label_space
from trainables.stages.classification import Classification

CLASSES = {"a": ("x", "y", "z"), "b": ("u", "v")}


class Mean(nn.Module):
    """A trunk whose feature is the mean of each channel."""

    width, depth = 3, 0

    def forward(self, video: Tensor) -> Tensor:
        return video.mean(dim=(2, 3, 4))


def objective(
    head: Literal["union", "per_source"], smoothing: float, mixup: dict[str, Any] | None
) -> Classification:
    torch.manual_seed(0)
    model = Classifier(Mean(), label_space(CLASSES, head))  # type: ignore[arg-type]
    nn.init.normal_(model.head.weight)
    align = toy_trial(align__label_smoothing=smoothing, align__mixup=mixup).align
    return Classification(model, align, seed=5)


def batch(source: list[int], label: list[int], step: int = 0) -> Batch:
    count, draw = len(source), torch.Generator().manual_seed(1)
    return Batch(
        frames=torch.randint(256, (count, 2, 4, 4, 3), dtype=torch.uint8, generator=draw),
        scale=torch.tensor([[[127.5] * 3, [60.0] * 3]] * count),
        erased=torch.zeros(count, 4, dtype=torch.int64),
        label=torch.tensor(label),
        source=torch.tensor(source),
        clip=torch.arange(count),
        seed=torch.arange(count),
        unreadable=[],
        step=step,
    )


def mixed_by(mixing: Mixing | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.stages.classification.draw_mixing", lambda *_: mixing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("across", [False, True])
def test_the_loss_of_a_mixed_clip_is_pytorch_s_for_its_soft_target(
    smoothing: float, across: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = objective("per_source", smoothing, {**MIXUP, "across_sources": across})
    mixed_by(Mixing(0.3, None), monkeypatch)
    given = batch(source=[0, 0, 0, 1, 1], label=[2, 0, 1, 0, 1])
    losses = model(given)["loss"]
    head, video = model.model.head, given.video
    outputs = [slice(0, 3), slice(3, 5)]  # of a, of b

    def expected(clip: int, partner: int, competing: slice) -> Tensor:
        blended = 0.3 * video[clip] + 0.7 * video[partner]
        logits = head(blended.mean(dim=(1, 2, 3)))[competing]
        place = [given.source[i] * 3 + given.label[i] - competing.start for i in (clip, partner)]
        soft = 0.3 * F.one_hot(place[0], len(logits)) + 0.7 * F.one_hot(place[1], len(logits))
        return F.cross_entropy(logits, soft, label_smoothing=smoothing)

    of_pair = outputs[0] if not across else slice(0, 3)
    torch.testing.assert_close(losses[0], expected(0, 1, of_pair))
    torch.testing.assert_close(losses[1], expected(1, 0, of_pair))
    if across:  # both sources' outputs compete
        torch.testing.assert_close(losses[2], expected(2, 3, slice(0, 5)))
        torch.testing.assert_close(losses[3], expected(3, 2, slice(0, 5)))
    else:
        torch.testing.assert_close(losses[2], expected(2, 2, outputs[0]))
        torch.testing.assert_close(losses[3], expected(3, 3, outputs[1]))
    torch.testing.assert_close(losses[4], expected(4, 4, outputs[1]))  # at the end, alone


def test_a_batch_that_is_not_mixed_is_as_without_mixup(monkeypatch: pytest.MonkeyPatch) -> None:
    given = batch(source=[0, 0, 1, 1], label=[2, 0, 1, 0])
    plain = objective("union", 0.1, None)(given)
    mixed = objective("union", 0.1, MIXUP)(given)
    mixed_by(None, monkeypatch)
    unmixed = objective("union", 0.1, MIXUP)(given)
    assert torch.equal(unmixed["loss"], plain["loss"])
    assert not torch.allclose(mixed["loss"], plain["loss"])


def test_the_larger_share_says_whether_a_mixed_clip_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = objective("union", 0.0, MIXUP)
    nn.init.zeros_(model.model.head.weight)
    model.model.head.bias.data[model.model.output_of[0, 2]] = 1.0  # z, always
    given = batch(source=[0, 0, 0], label=[2, 0, 2])
    for share, right in ((0.9, [True, False, True]), (0.1, [False, True, True])):
        mixed_by(Mixing(share, None), monkeypatch)
        assert model(given)["train_accuracy"].tolist() == right


def test_parts_of_a_batch_are_mixed_as_the_whole_and_each_step_in_its_own_way() -> None:
    model = objective("per_source", 0.1, MIXUP)
    source, label = [0, 0, 1, 1, 0], [2, 0, 1, 0, 1]
    by_step = []
    for step in range(4):
        whole = model(batch(source, label, step))
        parts = [model(part) for part in batch(source, label, step).split(2)]
        for name, values in whole.items():
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), values)
        by_step.append(whole["loss"][0].item())
    assert len(set(by_step)) == 4
