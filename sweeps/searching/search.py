"""The trials of a sweep: stored ones first, then baselines and points, then suggestions.

Every change is written to `trials/NNNN.json` before anything acts on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cluster.study import Assignment, RungPoint
from search_spaces.space import Space
from search_spaces.study import Observation, Study
from sweeps.planning.spending import Spending
from sweeps.planning.stage_facts import excess_repetition
from sweeps.records import Origin, TrialRecord, read_records, write_record
from sweeps.searching.early_stopping import reason_to_stop
from sweeps.searching.given import GivenTrial
from sweeps.searching.objectives import directions, values_of
from sweeps.searching.proposals import Proposals
from sweeps.searching.sampler_view import SamplerView
from sweeps.searching.soup import FinishedTrial, soup_of
from sweeps.searching.trial_names import trial_name
from sweeps.sweep import Sweep
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.storage.folder import Folder
from trainables.trial import trial_score


class Search:
    """Hands out trials and takes their results; what the cluster layer sees of a sweep.

    `earlier` is what other sweeps found. Safe to call from several threads.
    """

    def __init__(
        self,
        sweep: Sweep,
        space: Space,
        given: list[GivenTrial],
        data: Mapping[str, Dataset],
        earlier: Iterable[Observation] = (),
    ) -> None:
        self._sweep = sweep
        self._space = space
        self._given = given
        self._data = data
        self._on_change: Callable[[TrialRecord], None] = lambda record: None
        self.before_writing: Callable[[], None] = lambda: None  # what it raises, the writer does
        self._view = SamplerView(sweep, space)
        self.objectives = sweep.settings.search.objectives
        self.given_only = False  # as long as it is set, nothing is handed out but given trials
        self.proposals = Proposals(sweep, space, data)
        self._lock = threading.RLock()
        self.records = read_records(sweep.folder)
        # With nothing to suggest from, the given trials are all there are.
        all_given = sum(r.origin != "soup" for r in self.records) + len(self.to_come())
        asked = sweep.settings.search.trials
        self.trials = all_given if asked is None else asked
        if not space.parameters:
            self.trials = min(self.trials, all_given)
        self._no_more = False  # all trials there are to be have begun
        self.spending = Spending(sweep, data, self._view.config, self.proposals.stages())
        self.spending.refresh(self.records)
        # Written down before they start; a sweep that is continued hands these out first.
        self._pending = [record.number for record in self.records if not record.finished]
        self._study = Study(
            space,
            sampler=sweep.settings.search.sampler,
            seed=sweep.settings.search.seed,
            startup_trials=len(given) + 1,
            directions=directions(self.objectives),
            past=self.observations(),
            earlier=earlier,
            costs=self.spending.left_where_it_tells,
        )

    @property
    def folder(self) -> Folder:
        return self._sweep.folder

    def listen(self, on_change: Callable[[TrialRecord], None]) -> None:
        """`on_change` is called with each record that was written."""
        self._on_change = on_change

    def observations(self) -> list[Observation]:
        """All trials that there are, as the sampler sees them."""
        return [self._view.observation(record) for record in self.records]

    def unfinished(self) -> int:
        """How many trials are still to run, as far as they are known."""
        begun = sum(not record.finished for record in self.records)
        return begun if self._no_more or self.spending.used_up else begun + self._to_begin()

    def budget(self) -> dict[str, float] | None:
        """Device-seconds of the budget, spent and left; None where there is none."""
        with self._lock:
            return self.spending.summary(self.records)

    def too_dear(self) -> str | None:
        """See `Spending.too_dear`, of the given trials that have not begun."""
        with self._lock:
            self.spending.refresh(self.records)
            return self.spending.too_dear({e.name: e.values for e in self.to_come()})

    def storage(self) -> dict[str, int] | None:
        """See `StorageRoom.summary`."""
        with self._lock:
            return self.spending.room.summary(self.records, self._to_begin())

    def add_soup(self) -> str | None:
        """One more trial where the sweep asks for it: the greedy soup of those that are finished.

        Returns `Soup.in_words`; None where it is not asked for, or is there already.
        """
        if not self._sweep.settings.search.greedy_soup:
            return None
        ended = [
            FinishedTrial(number=r.number, trial=self.config(r), score=r.score)
            for r in self.records
            if r.origin != "soup"
        ]
        soup = soup_of(ended, self._data)
        if not soup.values or soup.base is None:
            return soup.in_words()
        values = {**self.records[soup.base].values, **soup.values}
        with self._lock:
            if any(record.values == values for record in self.records):
                return None
            record = TrialRecord(
                number=len(self.records),
                name=f"greedy soup of {len(soup.members)} trials",
                origin="soup",
                values=values,
                params=self._study.add(self._view.at_space(values)).params,
                state="waiting",
            )
            self.records.append(record)
            self._write(record)
            self._pending.append(record.number)
        return soup.in_words()

    def known(self) -> dict[int, tuple[str, TrialConfig]]:
        """Number -> (name, settings) of the trials that are known before the sampler is asked."""
        known = {r.number: (trial_name(r), self.config(r)) for r in self.records}
        to_come = self.to_come()[: max(0, self._to_begin())]
        for number, given in enumerate(to_come, len(self.records)):
            known[number] = (given.name, self._sweep.trial_with(given.values, given.name))
        return known

    def config(self, record: TrialRecord) -> TrialConfig:
        return self._view.config(record)

    def objectives_of(self, record: TrialRecord) -> tuple[float, ...] | None:
        """In the order of `objectives`; None where the trial is not complete."""
        return self._view.objectives(record)

    def varied(self, record: TrialRecord) -> dict[str, Any]:
        """The trial's value of each setting that the space varies; empty if it lies outside."""
        return self._view.varied(record)

    # The Study protocol of cluster.tune.

    def ask(self) -> Assignment | None:
        """The next trial; None when the sweep has its trials, the grid or a budget is used up."""
        with self._lock:
            record = self.records[self._pending.pop(0)] if self._pending else self._new()
            while record is not None and (
                excess := excess_repetition(self.config(record), self._data)
            ):
                self.failed(record.number, excess)
                record = self._new()
            if record is None:
                self._no_more = not self.given_only
                return None
            record = self._write(
                record,
                state="running",
                started_at=record.started_at or now(),
                attempts=record.attempts + 1,
            )
            return Assignment(
                number=record.number,
                trial=self.config(record).model_dump(mode="json"),
                name=trial_name(record),
            )

    def reached(self, number: int, point: RungPoint) -> bool:
        """Whether the trial may go on; one that may not is put down as pruned."""
        with self._lock:
            record = self.records[number]
            if any(rung.rung == point.rung for rung in record.rungs):
                return True  # it is handed out again, and went on there
            settings = self._sweep.settings.search.early_stopping
            assert settings is not None, "a rung without early stopping"
            earlier = ((self.config(r), rung) for r in self.records for rung in r.rungs)
            reason = reason_to_stop(settings, self.objectives, self.config(record), point, earlier)
            if reason and (record.origin != "suggested" or not self.spending.still_trains(record)):
                reason = None  # a given one is never stopped, nor one whose training is all paid
            record = replace(record, rungs=[*record.rungs, point])
            self._study.report(number, *self._view.step(record, point))
            if reason is None:
                self._write(record)
                return True
            self._study.tell(number, "pruned")
            self._finish(record, state="pruned", reason=reason)
            return False

    def complete(
        self, number: int, accuracies: Mapping[str, float], stages: Mapping[str, str]
    ) -> None:
        """The trial's top-1 per downstream dataset, and its stages (role -> identity)."""
        with self._lock:
            record = self.records[number]
            score = trial_score(self.config(record), accuracies)
            alone = self._view.device_seconds(stages)
            objectives = values_of(self.objectives, score, accuracies, alone)
            if self._study.tell(number, "complete", objectives) == "failed":
                self._finish(record, state="failed", reason=f"its score is {score}")
                return
            self._finish(
                record,
                state="complete",
                score=score,
                scores=dict(accuracies),
                stages=dict(stages),
                device_seconds=alone,
            )

    def failed(self, number: int, reason: str) -> None:
        with self._lock:
            self._study.tell(number, "failed")
            self._finish(self.records[number], state="failed", reason=reason)

    def tracked(self, number: int, mlflow_run_id: str) -> None:
        """Remember where MLflow keeps the trial."""
        with self._lock:
            if self.records[number].mlflow_run_id != mlflow_run_id:
                self._write(self.records[number], mlflow_run_id=mlflow_run_id)

    def _new(self) -> TrialRecord | None:
        number = len(self.records)
        if (left := self._to_begin()) <= 0:
            return None
        name: str | None = None
        origin: Origin
        self.spending.refresh(self.records)
        fits = self.spending.trials_left(left)
        payable = (each for each in self.to_come() if self.spending.affords(each.values))
        if given := next(payable, None):
            name, origin, values = given.name, given.origin, given.values
            params = self._study.add(self._view.at_space(values)).params
        elif self.given_only:
            return None
        elif (own := self.proposals.next(self.records, fits)) and self.spending.affords(own[1]):
            origin, values = own
            params = self._study.add(self._view.at_space(values)).params
        else:
            suggestion = self._study.ask(
                spent=self.spending.part(self.trials - left, self.trials),
                affordable=self.spending.affords,
            )
            if suggestion is None:
                return None
            origin, values = "suggested", suggestion.values
            params = suggestion.params
        record = TrialRecord(
            number=number, name=name, origin=origin, values=values, params=params, state="waiting"
        )
        self.records.append(record)
        return record

    def _to_begin(self) -> int:
        """Trials that have no record yet; soups stand outside the number asked for."""
        return self.trials - sum(record.origin != "soup" for record in self.records)

    def to_come(self) -> list[GivenTrial]:
        """The given trials that have no record yet; some may have been added to a begun sweep."""
        there = [(record.name, record.values) for record in self.records]
        return [given for given in self._given if (given.name, given.values) not in there]

    def _finish(self, record: TrialRecord, **changes: Any) -> None:
        self._write(record, finished_at=now(), **changes)

    def _write(self, record: TrialRecord, **changes: Any) -> TrialRecord:
        record = replace(record, **changes)
        self.before_writing()
        write_record(self.folder, record)
        self.records[record.number] = record
        self._on_change(record)
        return record


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
