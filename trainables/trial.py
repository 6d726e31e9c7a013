"""A trial: the stages in their order. Everything a trial trains and scores is on this screen.

Building the stages touches nothing but the settings, so a plan is made without training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.data.mixture import parse_shares
from trainables.stage import Stage

Shares = Mapping[str, Decimal | float | int | str]


@dataclass(frozen=True, kw_only=True)
class TrialStages:
    """The stages of one trial; `scored` gives a top-1 per downstream dataset."""

    weights: Stage
    probes: dict[str, Stage]
    finetunes: dict[str, Stage]
    scored: dict[str, Stage]

    def all(self) -> Iterator[Stage]:
        """Every stage once, inputs before what needs them."""
        ends = [self.weights, *self.probes.values(), *self.finetunes.values()]
        unique = {stage.identity: stage for end in ends for stage in end.chain()}
        yield from unique.values()


def trial_stages(
    trial: TrialConfig, data: Mapping[str, Dataset], split: str = "selection"
) -> TrialStages:
    """The stages of `trial`, scored on `split` ("selection", or "report" after the search)."""
    start = Stage(
        kind="init",
        settings={"seed": trial.seed, "model": _json(trial.model), "clip": _json(trial.clip)},
    )
    if trial.mae.epochs:
        start = _pretrain("mae", trial, data, start, trial.mae.mixture.shares)

    if trial.align.epochs == 0:
        weights = start
    elif trial.average.method == "none":
        weights = _pretrain("align", trial, data, start, trial.align.mixture.shares)
    else:
        endpoints = [_pretrain("align", trial, data, start, s) for s in trial.average.between]
        weights = Stage(
            kind="average",
            settings={"method": "interpolate", "coefficient": trial.average.coefficient},
            inputs={"w0": endpoints[0], "w1": endpoints[1]},
        )

    probes = {name: _probe(trial, data[name], weights, split) for name in trial.downstream}
    finetunes = (
        {name: _finetune(trial, data[name], weights, split) for name in trial.downstream}
        if trial.finetune
        else {}
    )
    scored = {"probe": probes, "finetune": finetunes}[trial.score.use]
    return TrialStages(weights=weights, probes=probes, finetunes=finetunes, scored=scored)


def trial_score(trial: TrialConfig, accuracies: Mapping[str, float]) -> float:
    """One number: the mean, or the worst, of the top-1 accuracies over `trial.downstream`."""
    values = [accuracies[name] for name in trial.downstream]
    return sum(values) / len(values) if trial.score.combine == "mean" else min(values)


def _pretrain(
    kind: str, trial: TrialConfig, data: Mapping[str, Dataset], start: Stage, shares: Shares
) -> Stage:
    settings = trial.mae if kind == "mae" else trial.align
    exact = parse_shares(shares)
    if settings.mixture.match_repetition:  # then the clips kept depend on every source's size
        named = [settings.mixture.shares, *(trial.average.between if kind == "align" else ())]
        exact = {name: exact.get(name, Decimal(0)) for each in [*named, exact] for name in each}
    else:
        exact = {name: share for name, share in exact.items() if share}
    described = _json(settings)
    described["mixture"]["shares"] = {
        name: f"{share.normalize():f}" for name, share in exact.items()
    }
    del described["mixture"]["max_repetition"]  # a limit on what may be asked, not on how it runs
    if settings.clips_per_epoch == "sum_of_sources":
        described["clips_per_epoch"] = sum(
            len(data[name].split("train")) for name, share in exact.items() if share
        )
    return Stage(
        kind=kind,
        settings={
            "seed": trial.seed,
            "model": _json(trial.model),
            "clip": _json(trial.clip),
            kind: described,
        },
        data={source: data[source].content_hash for source in exact},
        inputs={"start": start},
    )


def _probe(trial: TrialConfig, dataset: Dataset, weights: Stage, split: str) -> Stage:
    splits = ["train", "selection"] if split == "selection" else ["train", "selection", "report"]
    features = {
        name: Stage(
            kind="features",
            settings={
                "dataset": dataset.name,
                "split": name,
                "model": _json(trial.model),
                "clip": _json(trial.clip),
                "max_unreadable": trial.probe.max_unreadable,
            },
            data={dataset.name: dataset.content_hash},
            inputs={"weights": weights},
        )
        for name in splits
    }
    return Stage(
        kind="probe",
        settings={"l2_grid": list(trial.probe.l2_grid), "split": split},
        inputs=features,
    )


def _finetune(trial: TrialConfig, dataset: Dataset, weights: Stage, split: str) -> Stage:
    assert trial.finetune is not None
    common: dict[str, Any] = {
        "dataset": dataset.name,
        "model": _json(trial.model),
        "clip": _json(trial.clip),
    }
    tuned = Stage(
        kind="finetune",
        settings={**common, "seed": trial.seed, "finetune": _json(trial.finetune)},
        data={dataset.name: dataset.content_hash},
        inputs={"weights": weights},
    )
    return Stage(
        kind="evaluate",
        settings={**common, "split": split, "max_unreadable": trial.finetune.max_unreadable},
        data={dataset.name: dataset.content_hash},
        inputs={"model": tuned},
    )


def _json(settings: Any) -> dict[str, Any]:
    described: dict[str, Any] = settings.model_dump(mode="json")
    return described
