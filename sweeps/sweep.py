"""What a sweep file means: one question, its trial's settings, its search, where it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from sweeps.place import on_disk, storage_url
from sweeps.search_settings import SearchSettings
from trainables.bias import BiasSettings
from trainables.config import Execution, TrialConfig
from trainables.data.demo_world.settings import WorldSettings
from trainables.intermediate_probes import IntermediateProbes
from trainables.settings import (
    Settings,
    check_setting,
    load_yaml,
    nearest,
    parse,
    parse_yaml_value,
    with_overrides,
)
from trainables.storage.folder import Folder
from trainables.training_settings import AsTuple, Positive

EXECUTED_AS = ["mae", "align", "finetune", "tasks"]


class DatasetSettings(Settings):
    """Catalog files (relative to the sweep file), a demo world that is rendered, or both.

    Of datasets of one name the last counts: the world comes first, then the catalogs in order.

    `demo_views`: scales of w. Then there is one source more, `views`: the demo's people as a
    generator, as many clips as the other sources have, with a view of each scale.
    """

    catalog: str | Annotated[tuple[str, ...], AsTuple, Field(min_length=1)] | None = None
    demo_world: WorldSettings | None = None
    demo_views: Annotated[tuple[Annotated[float, Field(gt=0)], ...], AsTuple] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.catalog is None and self.demo_world is None:
            raise ValueError("give 'catalog' (a file, or several), 'demo_world' (settings) or both")
        if self.demo_views is not None and self.demo_world is None:
            raise ValueError("demo_views are a demo world's; a catalog lists `views` itself")
        return self

    @property
    def catalogs(self) -> tuple[str, ...]:
        return (self.catalog,) if isinstance(self.catalog, str) else self.catalog or ()


class StorageSettings(Settings):
    """How the storage is used. Changes no result."""

    budget_gb: Annotated[float, Field(gt=0)] | None  # that all stages may take; null: no limit
    patience_minutes: Annotated[float, Field(ge=0)]  # that a storage which refuses is asked again
    cache_gb: Annotated[float, Field(ge=0)]  # of an object store's files that a node keeps copies


class ExecutionSettings(Settings):
    """How each kind of stage runs: `finetune` is all downstream training, `tasks` what is left."""

    mae: Execution
    align: Execution
    finetune: Execution
    tasks: Execution
    attempts: Positive  # of a stage whose worker dies or hangs
    # A stage that takes no step (or batch of clips) for so long hangs: its workers are killed and
    # it is tried again from its checkpoint. Before an attempt's first step, which may compile or
    # wait for a cold disk, the other limit holds. null: for ever.
    hang_seconds: Annotated[float, Field(gt=0)] | None
    first_step_seconds: Annotated[float, Field(gt=0)] | None
    # A custom resource of the nodes that stay (not spot): what only waits for training runs there,
    # that is the trials' drivers, the `Stages` actor and Train's controllers. null: anywhere.
    driver_resource: Annotated[str, Field(min_length=1)] | None
    storage: StorageSettings
    # Clips a second of one device (mae, align, finetune, tasks), for a price before any was timed.
    clips_per_second: dict[str, Annotated[float, Field(gt=0)]] | None
    # What one device sustains, in 10^12 FLOP a second, where neither is known.
    device_teraflops: Annotated[float, Field(gt=0)] | None
    device_price_per_hour: Annotated[float, Field(ge=0)] | None  # in any currency; null: no money

    @model_validator(mode="after")
    def _known_entries(self) -> Self:
        for name in self.clips_per_second or {}:
            if name not in EXECUTED_AS:
                raise ValueError(f"clips_per_second: {name!r} is none{nearest(name, EXECUTED_AS)}")
        return self


class TrackingSettings(Settings):
    """`uri: null` is $MLFLOW_TRACKING_URI, else a database in the storage folder."""

    uri: str | None

    @model_validator(mode="after")
    def _no_password(self) -> Self:
        if self.uri is not None and "@" in self.uri.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "uri holds a user or a password, and settings are stored and shown; give the "
                "address alone, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the "
                "environment"
            )
        return self


class SweepSettings(Settings):
    """A sweep file, whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    question: str
    storage: str
    allow_real_humans: bool
    datasets: DatasetSettings
    trial: TrialConfig
    search: SearchSettings
    bias: BiasSettings | None  # scene bias of the downstream datasets and sources; null: none
    execution: ExecutionSettings
    tracking: TrackingSettings

    @model_validator(mode="after")
    def _known_datasets(self) -> Self:
        for objective in self.search.objectives:
            for name in () if isinstance(objective, str) else objective.mean_of:
                if name not in self.trial.downstream:
                    raise ValueError(
                        f"search.objectives: {name!r} is not in trial.downstream"
                        f"{nearest(name, list(self.trial.downstream))}"
                    )
        law, downstream = self.search.law, list(self.trial.downstream)
        for name in (law and law.weights) or {}:
            if name not in downstream:
                raise ValueError(
                    f"search.law.weights: {name!r} is no downstream dataset"
                    f"{nearest(name, downstream)}"
                )
        if law and law.weights is not None and not any(law.weights.values()):
            raise ValueError("search.law.weights: no weight is above 0; raise one, or give null")
        return self


# What a continued sweep may change: it decides no trial's result.
MAY_CHANGE = (
    "question",
    "storage",
    "execution",
    "tracking",
    "trial.mae.branch_epochs",  # who shares a trunk, not what comes of it
    "trial.contrastive.branch_epochs",
    "trial.align.branch_epochs",
    "space",  # stored trials are encoded anew, by their values
    "search.space",
    "search.sampler",
    "search.seed",
    "search.objectives",
    "search.trials",
    "search.budget",
    "search.concurrent",
    "search.baselines",
    "search.points",
    "search.greedy_soup",
    "search.warm_start",
    "search.law",
    "search.merge_proxy",
    "bias",
)


class Sweep:
    """A checked sweep file with its paths worked out."""

    def __init__(self, path: Path, overrides: Mapping[str, Any]) -> None:
        """Raises ValueError for anything in the file or in `overrides` (dotted path -> value)."""
        for key in overrides:
            check_setting(SweepSettings, key)
        data = with_overrides(load_yaml(path), dict(overrides))
        self.file = path
        self.settings = parse(SweepSettings, data, "")
        # As written, for points to be laid over: parsing a point checks it whole.
        self._trial_data: dict[str, Any] = data["trial"]
        use = self.settings.execution.storage
        self.storage = Folder(
            storage_url(self.settings.storage),
            patience_seconds=60 * use.patience_minutes,
            cache_gb=use.cache_gb,
        )
        self.folder = self.storage / self.settings.name
        self.disk = on_disk(self.storage)
        self.tracking_uri = self.settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
        space = self.settings.search.space
        self.space_file = None if space is None else path.parent / space
        allowed = self.settings.allow_real_humans
        points = self.settings.search.points
        self.points = [point for point in points if allowed or not point.real_humans]
        self.not_allowed = [point.name for point in points if point not in self.points]
        for point in points:
            self.trial_with(point.set, f"search.points {point.name!r}")

    def trial_with(self, values: Mapping[str, Any], where: str) -> TrialConfig:
        """The sweep's trial with dotted settings set to `values`."""
        for key in values:
            try:
                check_setting(TrialConfig, key)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        return parse(TrialConfig, with_overrides(self._trial_data, dict(values)), where)

    def probes(self) -> IntermediateProbes | None:
        """What early stopping goes by; None where it is off."""
        stopping, trial = self.settings.search.early_stopping, self.settings.trial
        if stopping is None:
            return None
        return IntermediateProbes(
            rungs=stopping.rungs,
            downstream=trial.downstream,
            train_clips=stopping.train_clips,
            selection_clips=stopping.selection_clips,
            l2_grid=trial.probe.l2_grid,
            max_unreadable=trial.probe.max_unreadable,
            precision=trial.probe.precision,
        )

    def identity(self) -> dict[str, Any]:
        """The settings as JSON values, as sweep.json keeps them."""
        return self.settings.model_dump(mode="json")


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`--set key.path=value` arguments as a mapping; values read as YAML does."""
    overrides = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {text}: is not key.path=value; for example trial.seed=1")
        overrides[key.strip()] = parse_yaml_value(value)
    return overrides
