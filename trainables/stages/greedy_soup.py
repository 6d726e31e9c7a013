"""The greedy soup (Wortsman et al. 2022): endpoints join while the probe's score does not fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from trainables.settings import parse
from trainables.stage import Stage
from trainables.stage_run import Outcome, StageRun
from trainables.stages.average import Weights, endpoints_of, uniform
from trainables.stages.features import features_under, group_ids, over_views, split_of
from trainables.stages.probe import Features, accuracy, best_fit
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
    alone = selection_scores(run, endpoints)
    # Of equals the earlier one comes first, for sorting is stable.
    order = sorted(range(len(endpoints)), key=lambda index: -alone[index])

    def score(soup: Sequence[int]) -> float:
        if len(soup) == 1:
            return alone[soup[0]]
        (found,) = selection_scores(run, [uniform([endpoints[index] for index in soup])])
        return found

    steps = greedy(order, score)
    soup = [step.endpoint for step in steps if step.kept]
    passes = len(endpoints)  # one for all endpoints, one for each that asks to join the first
    read = [run.datasets[name] for name in run.stage.settings["downstream"]]
    return Outcome(
        write={"weights.safetensors": writer(uniform([endpoints[index] for index in soup]))},
        metrics={
            "score": max(step.score for step in steps if step.kept),
            "kept": [f"w{index}" for index in soup],
            "alone": {f"w{index}": value for index, value in enumerate(alone)},
            "steps": [{**asdict(step), "endpoint": f"w{step.endpoint}"} for step in steps],
        },
        clips=passes * sum(len(d.split("train")) + len(d.split("selection")) for d in read),
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


def selection_scores(run: StageRun, candidates: Sequence[Weights]) -> list[float]:
    """What the probes of a trial would score under each of K sets of weights, from one decode.

    As in the features stage, all K are held on the device together.
    """
    settings = run.stage.settings
    clip = parse(ClipSettings, settings["clip"], "clip")
    model = parse(ModelSettings, settings["model"], "model")
    trunk = trunk_from(run.input_file("w0", "weights"), model, clip).to(run.device).eval()
    for weights in candidates:
        check_same_tensors(weights, trunk.state_dict(), "an endpoint does not fit the model")
    precision = settings["probe"].get("precision", "fp32")
    on_device = [
        {name: tensor.to(run.device) for name, tensor in weights.items()} for weights in candidates
    ]

    def features(dataset: str, split: str) -> list[Features]:
        described = {
            "dataset": dataset,
            "split": split,
            "views": {"clips": 1, "crops": 1} if split == "train" else settings["test"],
            "max_unreadable": settings["probe"]["max_unreadable"],
            "clip": settings["clip"],
        }
        part = replace(run, stage=Stage(kind="features", settings=described))
        values, index = over_views(part, features_under(trunk, on_device, precision))
        clips = split_of(part)
        label = torch.tensor([each.label for each in clips])[index]
        group, left_out = group_ids(clips)[index], len(clips) - len(index)
        return [
            Features(of_one.to(run.device), label, group, left_out)
            for of_one in values.unbind(dim=2)
        ]

    totals = [0.0] * len(candidates)
    for name in settings["downstream"]:
        pairs = zip(features(name, "train"), features(name, "selection"), strict=True)
        classes = len(run.datasets[name].classes)
        for place, (train, selection) in enumerate(pairs):
            grid = settings["probe"]["l2_grid"]
            probe = best_fit(train, selection, grid, classes, run.beat)
            totals[place] += accuracy(probe, selection)
    return [total / len(settings["downstream"]) for total in totals]
