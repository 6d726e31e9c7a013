"""The adaptive average (PPMA): mixing proportions learned with a downstream dataset's probe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.config import FinetuneSettings
from trainables.models.trunk import Trunk
from trainables.stage_run import Outcome, StageRun
from trainables.stages.average import Weights, combined, endpoints_of
from trainables.stages.finetune import downstream_classifier, train_downstream
from trainables.stages.training import starting_trunk
from trainables.stages.weights import check_same_tensors
from trainables.training_descriptions import settings_of


def run_learned_average(run: StageRun) -> Outcome:
    """Trains as the augmented probe does; the head is left behind, the averaged trunk is kept."""
    stage = run.stage.settings
    settings = settings_of(FinetuneSettings, stage["augmented_probe"], "augmented_probe")
    trunk, clip = starting_trunk(run, "w0")
    endpoints = [
        {name: tensor.to(run.device) for name, tensor in endpoint.items()}
        for endpoint in endpoints_of(run)
    ]
    averaged = AveragedTrunk(trunk.to(run.device), endpoints, stage["learned"])
    # A classifier asks its trunk for a width and a forward alone.
    model = downstream_classifier(run, cast(Trunk, averaged))
    return train_downstream(
        run,
        model,
        settings,
        clip,
        depth=trunk.depth,
        tensors={"weights": averaged.weights},
        evaluate=partial(coefficient_curves, averaged),
    )


class AveragedTrunk(nn.Module):
    """A trunk of weights sum_k a_k W_k, with a = softmax(m); of it, only m trains.

    `global`: one m [K] for all tensors; `per_tensor`: one for each parameter. m starts from ones:
    the uniform average. The trunk is evaluated, never trained: no drop path, no new batch
    statistics. A BatchNorm's statistics follow the coefficients, the mean over all m's, and teach
    them nothing, as torch has no gradient for them.

    Raises:
        ValueError: tensors that one endpoint lacks, or whose shapes differ; lists them.
    """

    def __init__(
        self,
        trunk: nn.Module,
        endpoints: Sequence[Weights],
        learned: Literal["global", "per_tensor"],
    ) -> None:
        super().__init__()
        for number, endpoint in enumerate(endpoints):
            check_same_tensors(endpoint, trunk.state_dict(), f"endpoint w{number} does not fit")
        # In lists, torch does not see them: a checkpoint holds m and the head, not K trunks.
        self._trunk, self._endpoints = [trunk.eval()], list(endpoints)
        self._parameters_of = [name for name, _ in trunk.named_parameters()]
        self._statistics_of = [
            name
            for name, tensor in trunk.state_dict().items()
            if name not in self._parameters_of and tensor.is_floating_point()
        ]
        self.width = trunk.width
        rows = len(self._parameters_of) if learned == "per_tensor" else 1
        # Flat, as weight decay spares vectors.
        self.m = nn.Parameter(torch.ones(rows * len(endpoints)))

    def coefficients(self) -> Tensor:
        """a [1 or parameters of the trunk, K]; each row sums to 1."""
        return self.m.view(-1, len(self._endpoints)).softmax(dim=1)

    def forward(self, video: Tensor) -> Tensor:
        """video [B, 3, T, H, W] -> feature [B, width]."""
        values = {
            # Not one matrix product, which autocast would round.
            name: sum(part * end[name] for part, end in zip(row, self._endpoints, strict=True))
            for name, row in self._of_tensor(self.coefficients()).items()
        }
        feature: Tensor = functional_call(self._trunk[0], values, (video,))
        return feature

    def weights(self) -> dict[str, Tensor]:
        """The averaged trunk's state dict, summed in float64, in the endpoints' types."""
        a = self.m.detach().double().view(-1, len(self._endpoints)).softmax(dim=1)
        rows = self._of_tensor(a)
        return combined(self._endpoints, {name: row.tolist() for name, row in rows.items()})

    def _of_tensor(self, a: Tensor) -> dict[str, Tensor]:
        """The coefficients [K] of each tensor that is averaged."""
        rows = a.expand(len(self._parameters_of), -1).unbind()
        common = dict.fromkeys(self._statistics_of, a.detach().mean(dim=0))
        return dict(zip(self._parameters_of, rows, strict=True)) | common


def coefficient_curves(averaged: AveragedTrunk) -> dict[str, float]:
    """Each endpoint's coefficient; where every tensor has its own, their mean, least and most."""
    a = averaged.coefficients().detach()
    curves = {f"coefficient/w{k}": value for k, value in enumerate(a.mean(dim=0).tolist())}
    if len(a) > 1:
        for name, values in (("min", a.amin(dim=0)), ("max", a.amax(dim=0))):
            curves |= {f"coefficient_{name}/w{k}": v for k, v in enumerate(values.tolist())}
    return curves
