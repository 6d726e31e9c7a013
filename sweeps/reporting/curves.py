"""The scores of all coefficients between two sets of weights that some trials averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.searching.search import Search
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The scores of all coefficients between two sets of weights; no more training, one pass."""

    between: dict[str, str]  # endpoint -> identity of its weights
    probes: dict[float, dict[str, Stage]]  # coefficient -> downstream dataset -> its probe


def curves(search: Search, data: Mapping[str, Dataset]) -> list[Curve]:
    """One for each pair of endpoints that some trial has averaged with `scored_together`."""
    found: dict[tuple[str, ...], Curve] = {}
    for record in search.records:
        config = search.config(record)
        average = config.average
        coefficients = sorted({*average.scored_together, average.coefficient})
        if record.state != "complete" or len(coefficients) < 2:
            continue
        if average.method not in ("interpolate", "wise_ft") or not config.align.epochs:
            continue
        weights = trial_stages(config, data).weights
        if weights.kind != "average":  # an endpoint alone: the other may not have been trained
            continue
        between = {role: stage.identity for role, stage in weights.inputs.items()}
        if tuple(between.values()) in found:
            continue
        found[tuple(between.values())] = Curve(
            between=between,
            probes={
                coefficient: trial_stages(_at(config, coefficient), data).results["probe"]
                for coefficient in coefficients
            },
        )
    return list(found.values())


def _at(config: TrialConfig, coefficient: float) -> TrialConfig:
    average = config.average.model_copy(update={"coefficient": coefficient})
    return config.model_copy(update={"average": average})


def curve_stages(search: Search, data: Mapping[str, Dataset]) -> list[Stage]:
    return [
        stage
        for curve in curves(search, data)
        for probes in curve.probes.values()
        for stage in probes.values()
    ]


def curve_summary(
    search: Search, data: Mapping[str, Dataset], store: StageStore
) -> list[dict[str, Any]]:
    """Top-1 on the selection split by coefficient, as far as it has been scored."""
    found = []
    for curve in curves(search, data):
        points = []
        for coefficient, probes in curve.probes.items():
            known = {name: store.record(stage.identity) for name, stage in probes.items()}
            scores = {name: r.metrics["accuracy"] for name, r in known.items() if r is not None}
            if len(scores) == len(known):
                mean = sum(scores.values()) / len(scores)
                points.append({"coefficient": coefficient, "scores": scores, "mean": mean})
        found.append({"between": curve.between, "points": points})
    return found
