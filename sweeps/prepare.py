"""All that comes before training: settings, space, data and store read, checked and planned."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from search_spaces.candidates import few_points, random_points
from search_spaces.points import edges
from search_spaces.space import Space, load_space
from sweeps.checks import (
    check_comparable,
    check_execution,
    check_models,
    check_sources,
    check_space,
    sources_of,
    within_limits,
)
from sweeps.datasets import sweep_datasets
from sweeps.mixture_limits import limited
from sweeps.planning.costs import StageCosts
from sweeps.planning.forecast import Forecast, forecast, reported
from sweeps.planning.plan import Plan, make_plan
from sweeps.records import check_same_sweep, read_records, read_sweep
from sweeps.searching.given import RANDOM_WEIGHTS, GivenTrial, given_trials
from sweeps.searching.search import Search
from sweeps.searching.warm_start import WarmStart, warm_start
from sweeps.storage_use import StorageUse, storage_use
from sweeps.sweep import MAY_CHANGE, Sweep
from trainables.bias import IN_WORDS, Measured, bias_measures
from trainables.data.catalog import Dataset
from trainables.settings import load_yaml
from trainables.stage import Stage
from trainables.stage_store import StageStore

PRICED = 768  # points of a space, at the most, before a budget is refused as too small for each


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sweep that is ready to run."""

    sweep: Sweep
    space: Space
    data: dict[str, Dataset]
    resolved: dict[str, Any]  # what sweep.json keeps
    store: StageStore
    search: Search
    costs: StageCosts
    plan: Plan
    warm_start: WarmStart
    use: StorageUse
    bias: list[Measured]  # of each dataset, in both views
    of_no_trial: list[Stage]  # what is made beside the trials; see `make_plan`
    notes: list[str]  # on the trials: why each baseline that does not run does not, ...

    def bias_stages(self) -> list[Stage]:
        return _stages(self.bias)

    def forecast(self) -> Forecast:
        """What the sweep comes to, with the trials that are not known yet."""
        return forecast(
            self.sweep,
            self.space,
            self.search,
            self.plan,
            self.data,
            self.costs,
            self.of_no_trial,
        )


def prepare(sweep: Sweep, console: Console, *, dry_run: bool) -> Prepared:
    """Read and check everything. A dry run touches nothing, and renders no demo world.

    Raises:
        ValueError: what the user can mend.
    """
    settings = sweep.settings
    stored = read_sweep(sweep.folder)
    resolved = _resolved(sweep, stored)
    if stored is not None:
        check_same_sweep({**stored, "data": None}, {**resolved, "data": None}, MAY_CHANGE)
    space = Space({}) if sweep.space_file is None else load_space(sweep.space_file)
    check_space(sweep, space)
    check_models(sweep, space)
    check_comparable(sweep, space)
    check_execution(sweep, space)
    sources = sources_of(sweep, space, read_records(sweep.folder))
    named = dict.fromkeys(settings.trial.downstream, "trial.downstream") | sources
    data = sweep_datasets(sweep, named, console, dry_run=dry_run)
    check_sources(sweep, sources, data)
    sizes = {source: len(data[source].split("train")) for source in sources}
    space = limited(space, settings.trial, data, str(settings.search.space))
    given, notes = within_limits(sweep, space, given_trials(sweep, space, sizes), data)
    notes += [
        f"{name} is left out: it pre-trains on real people and allow_real_humans is false."
        for name in sweep.not_allowed
    ]
    resolved["data"] = _hashes(data)
    if stored is not None:
        _check_same_data(stored["data"], resolved["data"])
    store = StageStore(sweep.storage / "stages")
    begun = warm_start(sweep, space, data, store)
    search = Search(sweep, space, [*given, *begun.given], data, earlier=begun.observations)
    search.proposals.check([*given, *begun.given], search.trials)
    if not search.records:
        search.spending.check(_maybe_cheap(space, [*given, *begun.given]))
    known = search.known()
    costs = StageCosts(data, store, settings.execution)
    bias = bias_measures(settings.bias, data)
    of_no_trial = [*_stages(bias), *search.proposals.stages()]
    to_come = search.to_come()[len(known) - len(search.records) :]
    if to_come and not search.spending.used_up:
        names = ", ".join(given.name for given in to_come)
        notes.append(f"Left out, for search.trials is {search.trials}; raise it: {names}.")
    soups = sum(record.origin == "soup" for record in search.records)
    to_suggest = max(0, search.trials - (len(known) - soups))
    plan = make_plan(known, to_suggest, data, costs, reported(search), of_no_trial)
    plan.budget = search.spending.in_words()
    return Prepared(
        sweep=sweep,
        space=space,
        data=data,
        resolved=resolved,
        store=store,
        search=search,
        costs=costs,
        plan=plan,
        warm_start=begun,
        use=storage_use(store, settings.execution.storage.budget_gb),
        bias=bias,
        of_no_trial=of_no_trial,
        notes=[
            *notes,
            *_not_measured(bias),
            *begun.notes,
            *([dear] if (dear := search.too_dear()) else []),
            *search.proposals.lines(data),
            *_on_early_stopping(sweep, data),
        ],
    )


def _maybe_cheap(space: Space, given: Sequence[GivenTrial]) -> Iterator[Mapping[str, Any]]:
    """Trials among which a budget needs room for one, likely ones first.

    In a space not the one of random weights: what that takes says nothing of what is searched.
    """
    if not space.parameters:
        yield from (each.values for each in given)
        return
    yield from (each.values for each in given if each.name != RANDOM_WEIGHTS)
    yield from edges(space)
    # An edge has the first value of all parameters but one: of several the cheapest is none.
    every = few_points(space, PRICED)
    yield from random_points(space, PRICED, np.random.default_rng(0)) if every is None else every


def _resolved(sweep: Sweep, stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """What sweep.json keeps beside the hashes of the data: its id, the settings and the space.

    The id tells a sweep from others of its name; those that an earlier version began have none.
    """
    return {
        "id": secrets.token_hex(8) if stored is None else stored.get("id"),
        **sweep.settings.model_dump(mode="json"),
        "space": sweep.space_file and load_yaml(sweep.space_file),
    }


def _stages(bias: list[Measured]) -> list[Stage]:
    return [each.stage for each in bias if each.stage is not None]


def _not_measured(bias: list[Measured]) -> list[str]:
    return [
        f"The scene bias of {each.dataset}, {IN_WORDS[each.view]}, is left out: {each.reason}."
        for each in bias
        if each.reason
    ]


def _on_early_stopping(sweep: Sweep, data: Mapping[str, Dataset]) -> list[str]:
    probes = sweep.probes()
    if probes is None:
        return []
    rungs = ", ".join(f"{rung:.0%}" for rung in probes.rungs)
    return [
        f"Early stopping: weak trials stop when {rungs} of their alignment is done; the probes for "
        f"it pass at most {probes.clips(data):,} clips through the model in each alignment, beside "
        "those of the plan."
    ]


def _hashes(data: Mapping[str, Dataset]) -> dict[str, str]:
    return {name: dataset.content_hash for name, dataset in sorted(data.items())}


def _check_same_data(stored: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Another space may name other datasets; those that both name must be the same."""
    both = stored.keys() & new.keys()
    then, now = ({name: hashes[name] for name in sorted(both)} for hashes in (stored, new))
    check_same_sweep({"data": then}, {"data": now}, ())
