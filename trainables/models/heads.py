"""One linear head over the classes of several sources, and how their labels share its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.models.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Where each source's labels lie among the outputs; sources count in sorted order of name."""

    outputs: int
    output_of: Tensor  # int64 [sources, most classes]: output of (source, label)
    allowed: Tensor  # bool [sources, outputs]: outputs that compete in the source's softmax


def label_space(
    classes: Mapping[str, Sequence[str]], head: Literal["union", "per_source", "by_index"]
) -> LabelSpace:
    """`union` joins classes by name, `per_source` keeps sources apart, `by_index` overlays them.

    Under `per_source` a clip competes only among its own source's classes; under the other two
    among all. `by_index` lets unrelated actions share an output: what PPMA released.
    """
    sources = sorted(classes)
    rows: list[list[int]]
    if head == "union":
        names = sorted({name for source in sources for name in classes[source]})
        rows = [[names.index(name) for name in classes[source]] for source in sources]
        outputs = len(names)
    elif head == "by_index":
        rows = [list(range(len(classes[source]))) for source in sources]
        outputs = max(len(row) for row in rows)
    else:
        rows, outputs = [], 0
        for source in sources:
            rows.append(list(range(outputs, outputs + len(classes[source]))))
            outputs += len(classes[source])

    output_of = torch.zeros(len(sources), max(len(row) for row in rows), dtype=torch.int64)
    allowed = torch.full((len(sources), outputs), head != "per_source")
    for index, row in enumerate(rows):
        output_of[index, : len(row)] = torch.tensor(row)
        allowed[index, row] = True
    return LabelSpace(outputs=outputs, output_of=output_of, allowed=allowed)


class Classifier(nn.Module):
    """Trunk and one linear head (init N(0, 0.01)); logits that do not compete are -inf."""

    output_of: Tensor
    allowed: Tensor

    def __init__(self, trunk: Trunk, space: LabelSpace) -> None:
        super().__init__()
        self.trunk = trunk
        self.trunk_frozen = False
        self.head = nn.Linear(trunk.width, space.outputs)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("output_of", space.output_of, False)
        self.register_buffer("allowed", space.allowed, False)

    def freeze_trunk(self) -> None:
        """From now on only the head trains, on features that follow from the view alone."""
        self.trunk.requires_grad_(False)
        self.trunk_frozen = True

    def train(self, mode: bool = True) -> Self:
        """A frozen trunk stays in evaluation: no drop path, no new batch statistics."""
        super().train(mode)
        if self.trunk_frozen:
            self.trunk.eval()
        return self

    def forward(self, video: Tensor, source: Tensor, partner: Tensor | None = None) -> Tensor:
        """Logits [B, outputs], in float32, of `video` [B, 3, T, H, W] from sources [B].

        `partner` [B]: the source of what a clip is mixed with, whose outputs then compete too.
        """
        return self.logits(self.trunk(video), source, partner)

    def logits(self, feature: Tensor, source: Tensor, partner: Tensor | None = None) -> Tensor:
        """The same of features [B, width]."""
        logits: Tensor = self.head(feature)
        allowed = self.allowed[source]
        if partner is not None:
            allowed = allowed | self.allowed[partner]
        return logits.float().masked_fill(~allowed, -torch.inf)

    def target(self, source: Tensor, label: Tensor) -> Tensor:
        """The output [B] that stands for each source's label [B]."""
        return self.output_of[source, label]


def smoothed_cross_entropy(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy per clip [B]; `smoothing` is spread over the outputs that are not -inf."""
    log_p = F.log_softmax(logits, dim=-1)
    loss = -log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    if smoothing == 0:
        return loss
    competes = logits > -torch.inf
    uniform = -log_p.masked_fill(~competes, 0.0).sum(dim=1) / competes.sum(dim=1)
    return (1 - smoothing) * loss + smoothing * uniform
