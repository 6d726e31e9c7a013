"""Trials as the sampler sees them: their values at the paths of the space, their objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.study import RungPoint
from search_spaces.space import Space, encode
from search_spaces.study import Observation
from sweeps.records import TrialRecord
from sweeps.searching.objectives import values_of
from sweeps.sweep import Sweep
from trainables.config import TrialConfig
from trainables.stage import TRUNKS, line_of
from trainables.stage_store import Record, StageStore
from trainables.trial import trial_score


class SamplerView:
    """Of one sweep. By their values, so that the space may be another than they came from."""

    def __init__(self, sweep: Sweep, space: Space) -> None:
        self._sweep, self._space = sweep, space
        self._store = StageStore(sweep.storage / "stages")
        self._fixed = sweep.settings.trial.model_dump(mode="json")
        self._configs: dict[int, TrialConfig] = {}

    def config(self, record: TrialRecord) -> TrialConfig:
        if record.number not in self._configs:  # a trial keeps its settings
            where = f"trial {record.number}"
            self._configs[record.number] = self._sweep.trial_with(record.values, where)
        return self._configs[record.number]

    def at_space(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's values at the paths of the space, and those by which it lies outside."""
        at_paths = {path: at(self._fixed, path) for path in self._space.parameters}
        return at_paths | {
            path: value
            for path, value in values.items()
            if path in at_paths or value != at(self._fixed, path)
        }

    def varied(self, record: TrialRecord) -> dict[str, Any]:
        """The trial's value of each setting that the space varies; empty if it lies outside."""
        values, varied = self.at_space(record.values), dict[str, Any]()
        try:
            encode(self._space, values)
        except ValueError:
            return {}
        for path, parameter in self._space.parameters.items():
            if parameter.holds(varied):
                varied[path] = values[path]
        return varied

    def observation(self, record: TrialRecord) -> Observation:
        return Observation(
            values=self.at_space(record.values),
            state=record.state,
            objectives=self.objectives(record),
            intermediate=dict(self.step(record, rung) for rung in record.rungs),
        )

    def objectives(self, record: TrialRecord) -> tuple[float, ...] | None:
        """None where the trial is not complete, or one of them is not known."""
        if record.score is None:
            return None
        alone = record.device_seconds
        if alone is None:  # written before it was kept
            alone = device_seconds(self._store, record.stages)
        objectives = self._sweep.settings.search.objectives
        return values_of(objectives, record.score, record.scores, alone)

    def step(self, record: TrialRecord, point: RungPoint) -> tuple[int, float]:
        return step_of(self.config(record), point)

    def device_seconds(self, stages: Mapping[str, str]) -> float | None:
        return device_seconds(self._store, stages)


def step_of(trial: TrialConfig, point: RungPoint) -> tuple[int, float]:
    """A rung as Optuna has it: a whole number that grows with the fidelity, and a score."""
    return round(1000 * point.rung), trial_score(trial, point.accuracies)


def device_seconds(store: StageStore, stages: Mapping[str, str]) -> float | None:
    """Of all `stages` (role -> identity), as if no other trial shared them; None if not known."""
    records = [store.record(identity) for identity in stages.values()]
    known = [record for record in records if record is not None]
    if len(known) < len(records):
        return None
    return sum(cost["device_seconds"] for cost in costs_alone(known).values())


def costs_alone(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """By identity what each of a trial's finished stages costs where no other trial shares any.

    A trunk that went on from a shorter one was charged from there. Charged from the first step,
    the trunks of a run take their time a clip for all clips of the longest.
    """
    found = {record.identity: record.cost for record in records}
    lines: dict[str, list[Record]] = {}
    for record in records:
        if record.stage["kind"] in TRUNKS:
            lines.setdefault(line_of(record.stage), []).append(record)
    for line in lines.values():
        whole = max(_clips_to_its_end(trunk) for trunk in line)
        charged = sum(trunk.cost["clips"] for trunk in line)
        for trunk in line if charged else ():
            scaled = {name: value * whole / charged for name, value in trunk.cost.items()}
            found[trunk.identity] = scaled
    return found


def _clips_to_its_end(trunk: Record) -> int:
    settings = trunk.stage["settings"]
    run = settings[TRUNKS[trunk.stage["kind"]]]
    return int(settings["step"] * run["optimizer"]["batch_size"])


def at(tree: Mapping[str, Any], path: str) -> Any:
    """What nested `tree` has at a dotted path; None where it has nothing there."""
    found: Any = tree
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
