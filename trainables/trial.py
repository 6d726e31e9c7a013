"""A trial: the stages in their order. Everything a trial trains and scores is on this screen.

Building the stages touches nothing but the settings, so a plan is made without training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from trainables import pretraining_descriptions as pretraining
from trainables import stage_descriptions as stages
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import Stage

Scored = dict[str, Stage]  # downstream dataset -> the stage whose record holds its accuracy


@dataclass(frozen=True, kw_only=True)
class TrialStages:
    """The stages of one trial."""

    weights: Stage  # what is recommended; where the average is learned, its uniform start
    adapted: dict[str, Stage]  # downstream dataset -> its own weights; the same unless learned
    results: dict[str, Scored]  # probe, augmented_probe, finetune: those the trial asks for
    scored: Scored  # the one of `results` that the score is made of, all that a search runs

    def all(self) -> Iterator[Stage]:
        """Every stage once, inputs before what needs them."""
        ends = (end for scored in self.results.values() for end in scored.values())
        yield from _chains([self.weights, *ends])

    def searched(self) -> Iterator[Stage]:
        """Those that the score needs; the others are for the trials that are reported."""
        yield from _chains([self.weights, *self.scored.values()])


def _chains(ends: Iterable[Stage]) -> list[Stage]:
    return list({stage.identity: stage for end in ends for stage in end.chain()}.values())


def trial_stages(
    trial: TrialConfig, data: Mapping[str, Dataset], split: str = "selection"
) -> TrialStages:
    """The stages of `trial`, scored on `split` ("selection", or "report" after the search)."""
    weights = _weights(trial, data, start_of_alignment(trial, data))
    adapted = {name: weights for name in trial.downstream}
    if trial.average.method == "learned" and trial.align.epochs:
        endpoints = list(weights.inputs.values())
        adapted = {
            name: stages.learned_average(trial, data[name], endpoints) for name in trial.downstream
        }

    results: dict[str, Scored] = {
        "probe": {n: stages.probe(trial, data[n], adapted[n], split) for n in trial.downstream}
    }
    for kind, settings in (
        ("augmented_probe", trial.augmented_probe),
        ("finetune", trial.finetune),
    ):
        if settings is not None:
            results[kind] = {
                name: stages.trained_on_downstream(
                    kind, trial, settings, data[name], adapted[name], split
                )
                for name in trial.downstream
            }
    return TrialStages(
        weights=weights, adapted=adapted, results=results, scored=results[trial.score.use]
    )


def start_of_alignment(trial: TrialConfig, data: Mapping[str, Dataset]) -> Stage:
    """The last stage before stage 2, or where there is none what training starts from."""
    start = stages.start(trial)
    if trial.mae is not None and trial.mae.epochs:
        start = pretraining.mae(trial, trial.mae, data, start)
    if trial.contrastive is not None and trial.contrastive.epochs:
        start = pretraining.contrastive(trial, trial.contrastive, data, start)
    return start


def _weights(trial: TrialConfig, data: Mapping[str, Dataset], start: Stage) -> Stage:
    """Stage 2 and its average, from what came before it."""
    average = trial.average
    if trial.align.epochs == 0:
        return start
    if average.method in ("none", "wise_ft", "last_k", "ema", "posthoc_ema"):
        aligned = pretraining.align(trial, trial.align, data, start)
        match average.method:
            case "wise_ft":
                return _between(trial, {"w0": start, "w1": aligned})
            case "last_k" | "ema" | "posthoc_ema":
                return stages.average(trial, average.method, {"aligned": aligned})
        return aligned
    endpoints = {
        f"w{index}": pretraining.align(trial, trial.endpoint(index), data, start)
        for index in range(len(average.endpoints))
    }
    match average.method:
        case "interpolate":
            return _between(trial, endpoints)
        case "model_stock":
            return stages.average(trial, "model_stock", {"base": start, **endpoints})
        case "greedy_soup":
            return stages.greedy_soup(trial, data, endpoints)
        case "learned":
            return stages.average(trial, "uniform", endpoints)
    return stages.average(trial, average.method, endpoints)


def _between(trial: TrialConfig, endpoints: dict[str, Stage]) -> Stage:
    """The mean of two sets of weights, w0 and w1; where it is one of them, that one alone.

    So a coefficient of 0 or 1 trains and scores no more than its own endpoint.
    """
    same = endpoints["w0"].identity == endpoints["w1"].identity
    if trial.average.coefficient == 0 or same:
        return endpoints["w0"]
    if trial.average.coefficient == 1:
        return endpoints["w1"]
    return stages.average(trial, "interpolate", endpoints)


def trial_score(trial: TrialConfig, accuracies: Mapping[str, float]) -> float:
    """One number: the mean, or the worst, of the top-1 accuracies over `trial.downstream`."""
    values = [accuracies[name] for name in trial.downstream]
    return sum(values) / len(values) if trial.score.combine == "mean" else min(values)
