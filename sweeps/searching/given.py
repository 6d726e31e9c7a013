"""The trials that run before the sampler is asked: baselines, and points of the sweep file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.points import standard_baselines
from search_spaces.space import Space
from sweeps.records import Origin
from sweeps.sweep import Sweep

RANDOM_WEIGHTS = "baseline: random weights"


@dataclass(frozen=True, kw_only=True)
class GivenTrial:
    """A trial that runs before the sampler is asked."""

    name: str
    origin: Origin
    values: dict[str, Any]  # dotted path -> value, laid over the sweep's trial


def given_trials(sweep: Sweep, space: Space, sizes: Mapping[str, int]) -> list[GivenTrial]:
    """Baselines (random weights, each source alone, equal, proportional), then the file's points.

    `sizes`: training clips of each source.
    """
    given = []
    if sweep.settings.search.baselines:
        given = [
            GivenTrial(name=point.name, origin="baseline", values=dict(point.values))
            for point in standard_baselines(space, sizes)
        ]
        nothing: dict[str, Any] = {"align.epochs": 0, "start": {"weights": "random", "path": None}}
        if sweep.settings.trial.mae is not None:
            nothing["mae.epochs"] = 0
        if sweep.settings.trial.contrastive is not None:
            nothing["contrastive.epochs"] = 0
        vit = sweep.settings.trial.model.vit
        if vit is not None and vit.positions == "imported":  # which random weights do not bring
            nothing["model.vit.positions"] = "sincos_1d"
        given.insert(0, GivenTrial(name=RANDOM_WEIGHTS, origin="baseline", values=nothing))
    given += [
        GivenTrial(name=point.name, origin="point", values=dict(point.set))
        for point in sweep.points
    ]
    return given
