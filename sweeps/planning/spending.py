"""What a sweep has spent, what trials would add to it, and what its budget has room for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from sweeps.planning.costs import StageCosts, duration, missing
from sweeps.planning.storage_room import StorageRoom
from sweeps.records import TrialRecord
from sweeps.sweep import Sweep
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import TRAINED, Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


class Spending:
    """Of one sweep, as `refresh` last saw its trials and the store. For one thread.

    A sweep has spent what the stages of its trials took that were made after its first trial
    began: what lay in the store before it costs it nothing.
    """

    def __init__(
        self,
        sweep: Sweep,
        data: Mapping[str, Dataset],
        config: Callable[[TrialRecord], TrialConfig],
        beside: Sequence[Stage] = (),
    ) -> None:
        """`beside`: stages that the sweep makes and no trial asks for (those of its merges)."""
        settings = sweep.settings
        budget = settings.search.budget
        self.budget_seconds = None if budget is None else budget.gpu_hours * 3600
        self._asked = budget is not None or settings.search.sampler == "cost_aware"
        self.spent_seconds = 0.0
        self._sweep, self._data, self._config, self._beside = sweep, data, config, beside
        self._store = StageStore(sweep.storage / "stages")
        self.costs = StageCosts(data, self._store, settings.execution)
        storage_gb = settings.execution.storage.budget_gb
        self.room = StorageRoom(self._store, storage_gb, self._stages_of)
        self._stages: dict[int, dict[str, Stage]] = {}  # of each trial
        self._took: dict[str, tuple[float, float]] = {}  # finished: device-seconds, finished at
        self._each = 0.0  # device-seconds that a trial adds; 0: not known
        self._coming: dict[str, Stage] = {}  # of unfinished trials, by identity
        self._to_pay: dict[str, float] = {}  # what they, and those beside the trials, still take
        self._tried: list[dict[str, Stage]] = []  # the stages of each trial that did not fail

    def refresh(self, records: Sequence[TrialRecord]) -> None:
        """See what has been finished since. Does nothing in a sweep that asks for no costs, nor for
        a budget of its storage."""
        self.room.refresh(records)
        if not self._asked:
            return
        self.costs.refresh()
        self._coming, self._to_pay = {}, {}
        for record in records:  # in their order: who comes later shares what is coming
            if not record.finished:
                left = self.costs.left(self._config(record), self._coming)
                self._to_pay |= left
                self._coming |= {identity: self._stages_of(record)[identity] for identity in left}
        for stage in self._beside:
            if not self.costs.finished(stage) and (price := self.costs.price(stage)):
                self._to_pay[stage.identity] = price.seconds
        self._tried = [self._stages_of(each) for each in records if each.state != "failed"]
        if self.budget_seconds is None:
            return
        began = min((r.started_at for r in records if r.started_at), default=None)
        since = 0.0 if began is None else datetime.fromisoformat(began).timestamp()
        stages: dict[str, Stage] = {}
        own: list[float] = []  # of each trial, the stages that none before it needed
        for record in records:
            new = {i: s for i, s in self._stages_of(record).items() if i not in stages}
            prices = [price.seconds for s in new.values() if (price := self.costs.price(s))]
            own += [sum(prices)] if any(prices) and record.state != "failed" else []
            stages |= new
        stages |= {stage.identity: stage for stage in self._beside}
        self._each = median(own) if own else 0.0
        self.spent_seconds = sum(self._spent(stage, since) for stage in stages.values())

    def part(self, trials: int, of_trials: int) -> float:
        """How much of the budget or of the trials is spent, whichever is further, 0 to 1."""
        parts = [trials / max(of_trials, 1)]
        if self.budget_seconds is not None:
            parts.append(self.spent_seconds / self.budget_seconds)
        return min(max(parts), 1.0)

    def left(self, points: Iterable[Mapping[str, Any]]) -> list[float]:
        """Device-seconds that a trial at each point adds to what is there and what is coming."""
        return [self._left(self._at(point)) for point in points]

    def left_where_it_tells(self, points: Iterable[Mapping[str, Any]]) -> list[float]:
        """The same; infinite where the budget is known to have no room for it, and where a trial
        has the same results already: two mixes, at a coefficient that leaves the mix out."""
        room, found = self._room(), []
        for trial in map(self._at, points):
            seconds = self._left(trial)
            known = not seconds and self._is_known(trial)
            found.append(math.inf if known or seconds > room else seconds)
        return found

    def _at(self, point: Mapping[str, Any]) -> TrialConfig:
        return self._sweep.trial_with(point, "a suggestion")

    def _left(self, trial: TrialConfig) -> float:
        return sum(self.costs.left(trial, self._coming).values())

    def _is_known(self, trial: TrialConfig) -> bool:
        """Whether another trial has all stages that its score is made of."""
        scored = {s.identity for s in trial_stages(trial, self._data).scored.values()}
        return any(scored <= stages.keys() for stages in self._tried)

    def still_trains(self, record: TrialRecord) -> bool:
        """Whether a stage that trains is still to be made for a trial, as the store is now."""
        parts = trial_stages(self._config(record), self._data)
        ends = [parts.weights, *parts.scored.values()]
        lacking = missing(ends, lambda stage: self._store.finished(stage.identity) is not None)
        return any(stage.kind in TRAINED for stage in lacking)

    def affords(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial is not known to exceed what the budget has left."""
        room = self._room()
        return math.isinf(room) or (room > 0 and self.left([values])[0] <= room)

    def too_dear(self, trials: Mapping[str, Mapping[str, Any]]) -> str | None:
        """Those of `trials` (name -> values) that the budget has no room for, in words; None where
        it has for all. They are passed over, not put down: with a larger budget they run."""
        dear = {name: each for name, each in trials.items() if not self.affords(each)}
        if self.budget_seconds is None or not dear:
            return None
        seconds = zip(dear, self.left(dear.values()), strict=True)
        names = ", ".join(f"{name!r} (about {duration(takes)})" for name, takes in seconds)
        return (
            f"The budget has no room for {names}: passed over for trials that cost less. Raise "
            "search.budget.gpu_hours, and search.trials if all of these have begun."
        )

    def trials_left(self, of_trials: int) -> int:
        """Of `of_trials` that have not begun, how many the budget has room for, about.

        One is taken to cost the median of those that there are, each without the stages that an
        earlier one needed: the next find these too.
        """
        room = self._room()
        if math.isinf(room) or not self._each:
            return of_trials
        return min(of_trials, int(max(room, 0.0) / self._each))

    def _room(self) -> float:
        """Device-seconds that are left for trials that have not begun; infinite: no limit known."""
        if self.used_up:
            return 0.0
        if self.budget_seconds is None or not self.costs.known:
            return math.inf
        return self.budget_seconds - self.spent_seconds - sum(self._to_pay.values())

    @property
    def used_up(self) -> bool:
        """Whether no trial may begin any more, for want of device time or of storage."""
        budget = self.budget_seconds
        return self.room.used_up or (budget is not None and self.spent_seconds >= budget)

    def check(self, trials: Iterable[Mapping[str, Any]]) -> None:
        """Raises ValueError where the budget is smaller than every one of `trials`, which are
        looked at up to the first that it has room for."""
        if self.budget_seconds is None or not self.costs.known:
            return
        least = math.inf
        for values in trials:
            least = min(least, *self.left([values]))
            if least <= self.budget_seconds:
                return
        if math.isfinite(least):
            raise ValueError(
                f"search.budget.gpu_hours {self.budget_seconds / 3600:g} is "
                f"{duration(self.budget_seconds)} of device time and the cheapest trial of the "
                f"search space takes about {duration(least)}; raise it to {least / 3600:.2g} at "
                "least, or set budget: null"
            )

    def in_words(self) -> str | None:
        """What the plan says of the budget; None where there is none."""
        if self.budget_seconds is None:
            return None
        left = max(0.0, self.budget_seconds - self.spent_seconds)
        line = (
            f"Budget: {duration(self.budget_seconds)} of device time, "
            f"{duration(self.spent_seconds)} spent, {duration(left)} left."
        )
        if not self.costs.known:
            line += " No stage was timed here: at first only what was spent is held against it."
        return line

    def summary(self, records: Sequence[TrialRecord]) -> dict[str, float] | None:
        """Device-seconds of the budget, spent and left as things are now; None: no budget."""
        if self.budget_seconds is None:
            return None
        self.refresh(records)
        return {
            "device_seconds": self.budget_seconds,
            "spent": self.spent_seconds,
            "left": max(0.0, self.budget_seconds - self.spent_seconds),
        }

    def _stages_of(self, record: TrialRecord) -> dict[str, Stage]:
        if record.number not in self._stages:
            parts = trial_stages(self._config(record), self._data)
            ends = [parts.weights, *parts.scored.values()]
            self._stages[record.number] = {s.identity: s for end in ends for s in end.chain()}
        return self._stages[record.number]

    def _spent(self, stage: Stage, since: float) -> float:
        """What it took if it was made after `since`; if it only began, what it took so far."""
        identity = stage.identity
        if identity not in self._took:
            record = self._store.record(identity)
            if record is None:
                return self._begun(stage)
            self._took[identity] = (record.cost["device_seconds"], record.finished_at)
        seconds, finished_at = self._took[identity]
        return seconds if finished_at >= since else 0.0

    def _begun(self, stage: Stage) -> float:
        """What it took up to its last whole epoch or rung. Of a stage that is still to come
        nothing: it is counted whole there."""
        if stage.kind not in TRAINED or stage.identity in self._coming:
            return 0.0
        points = [*self._store.progress(stage.identity), *self._rungs(stage)]
        return max((float(point["device_seconds"]) for point in points), default=0.0)

    def _rungs(self, stage: Stage) -> list[dict[str, Any]]:
        probes = self._sweep.probes()
        if probes is None:
            return []
        return self._store.probes(stage.identity, probes.key(self._data))
