"""The greedy soup (Wortsman et al. 2022): endpoints join while the probe's score does not fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from trainables.config import ProbeSettings, TestSettings
from trainables.data.catalog import Dataset
from trainables.data.loader import eval_batches
from trainables.logistic_regression import fit
from trainables.metrics import in_top
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.average import Weights, endpoints_of, uniform
from trainables.stages.classification import EVALUATION_BATCH, ONE_VIEW
from trainables.stages.weights import check_same_tensors, trunk_from, writer
from trainables.training_settings import ClipSettings, ModelSettings


@dataclass(frozen=True, kw_only=True)
class Step:
    """One endpoint's turn: the score of the soup with it, and whether it stays."""

    endpoint: int
    score: float
    kept: bool


def run_greedy_soup(run: StageRun) -> Outcome:
    """A score is the mean over the downstream datasets of the probe's selection accuracy."""
    endpoints = endpoints_of(run)
    scorer = _Scorer(run)
    alone = [scorer.score(endpoint) for endpoint in endpoints]
    # Of equals the earlier one comes first, for sorting is stable.
    order = sorted(range(len(endpoints)), key=lambda index: -alone[index])

    def score(soup: Sequence[int]) -> float:
        if len(soup) == 1:
            return alone[soup[0]]
        return scorer.score(uniform([endpoints[index] for index in soup]))

    steps = greedy(order, score)
    soup = [step.endpoint for step in steps if step.kept]
    return Outcome(
        write={"weights.safetensors": writer(uniform([endpoints[index] for index in soup]))},
        metrics={
            "score": max(step.score for step in steps if step.kept),
            "kept": [f"w{index}" for index in soup],
            "alone": {f"w{index}": value for index, value in enumerate(alone)},
            "steps": [{**asdict(step), "endpoint": f"w{step.endpoint}"} for step in steps],
        },
        clips=scorer.clips,
    )


def greedy(order: Sequence[int], score: Callable[[list[int]], float]) -> list[Step]:
    """Recipe 1 of Wortsman et al. 2022: each of `order` in turn joins unless the score falls.

    `order`: the endpoints, best first. `score`: of the soup of the endpoints given.
    """
    first, *others = order
    steps = [Step(endpoint=first, score=score([first]), kept=True)]
    soup, best = [first], steps[0].score
    for endpoint in others:
        found = score([*soup, endpoint])
        steps.append(Step(endpoint=endpoint, score=found, kept=found >= best))
        if found >= best:
            soup, best = [*soup, endpoint], found
    return steps


class _Scorer:
    """Scores weights as the trial's probe would; counts the clips that this took."""

    def __init__(self, run: StageRun) -> None:
        settings = run.stage.settings
        self.run, self.clips = run, 0
        self.clip = parse(ClipSettings, settings["clip"], "clip")
        self.probe = parse(ProbeSettings, settings["probe"], "probe")
        self.test = parse(TestSettings, settings["test"], "test")
        self.datasets = [run.datasets[name] for name in settings["downstream"]]
        model = parse(ModelSettings, settings["model"], "model")
        trunk = trunk_from(run.input_file("w0", "weights"), model, self.clip)
        self.trunk = trunk.to(run.device).eval()

    def score(self, weights: Weights) -> float:
        check_same_tensors(weights, self.trunk.state_dict(), "the endpoint does not fit")
        self.trunk.load_state_dict(weights)
        accuracies = [self._accuracy(dataset) for dataset in self.datasets]
        return sum(accuracies) / len(accuracies)

    def _accuracy(self, dataset: Dataset) -> float:
        """Top-1 on the selection split with the penalty that is best there."""
        train, label = self._features(dataset, "train", ONE_VIEW)
        selection, wanted = self._features(dataset, "selection", self.test)
        fits = fit(train, label, self.probe.l2_grid, len(dataset.classes))
        found = [probe.logits(selection) for probe in fits]
        return max(in_top(logits, wanted, 1).double().mean().item() for logits in found)

    def _features(self, dataset: Dataset, split: str, views: TestSettings) -> tuple[Tensor, Tensor]:
        """Features [N, D], the mean over a clip's views, and label [N].

        The probe is linear: logits of the mean are the mean of the views' logits.
        """
        features, label = [], []
        per_clip = views.clips * views.crops
        for batch in eval_batches(
            dataset,
            dataset.split(split),
            self.clip,
            views,
            batch_size=EVALUATION_BATCH,
            workers=self.run.execution.loader_workers,
            max_unreadable=self.probe.max_unreadable,
        ):
            with torch.inference_mode():
                found = self.trunk(batch.video.to(self.run.device)).half().cpu().double()
            features.append(found.unflatten(0, (-1, per_clip)).mean(dim=1))
            label.append(batch.label[::per_clip])
        self.clips += sum(map(len, label))
        return torch.cat(features).clone(), torch.cat(label)
