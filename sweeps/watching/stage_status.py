"""The stages of a sweep from its files: what is finished, begun or missing, spent and to spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from sweeps.planning.costs import devices_per_worker, measured_rates, timed
from sweeps.records import CHOSEN, TrialRecord
from sweeps.sweep import ExecutionSettings
from trainables.config import Execution
from trainables.stage import TRAINED, canonical_hash, executed_as
from trainables.stage_store import Record, StageStore


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """A stage that runs or waits, or did so when the sweep was last heard."""

    identity: str
    kind: str
    what: str
    trials: Sequence[int]
    seconds: float  # since its attempt began, or since it waits
    hosts: Sequence[str] = ()
    attempt: int = 0
    epoch: float = 0.0
    epochs: int | None = None  # None: it does not train in epochs
    workers: int = 0
    on_gpus: bool = False
    clips_per_second: float | None = None  # of the last epoch
    gpu_utilisation: float | None = None  # 0 to 1, in the last epoch; None: not known
    why: str = ""  # what it waits for, or why its last attempt failed


@dataclass(frozen=True, kw_only=True)
class Cost:
    device_seconds: float
    finished: int  # stages that it made, or that were made for it
    begun: int  # stages that have trained an epoch and are not finished
    money: float | None  # None where `execution` gives no price


@dataclass(frozen=True, kw_only=True)
class ToDo:
    """What is left, by stages timed on this storage and else by the sweep's `clips_per_second`."""

    known_seconds: float  # device-seconds of the known trials
    to_suggest: int  # trials that are not known yet
    suggested_seconds: float | None  # device-seconds of those; None: nothing to go by
    untimed: Sequence[str]  # kinds that are to do and have not been timed
    devices: int  # at work now
    ends: float | None  # seconds since 1970, if as many devices stay at work; None: not known


class SweepStages:
    """All stages that are known to belong to the sweep, and what the store has of them."""

    def __init__(
        self,
        planned: Mapping[str, dict[str, Any]],
        records: Sequence[TrialRecord],
        store: StageStore,
        execution: ExecutionSettings,
        began: float | None,
    ) -> None:
        """`began`: when its first trial did, in seconds since 1970."""
        self._planned = planned
        self._trials = {record.number: record for record in records}
        self._store = store
        self._execution = execution
        self._began = began or 0.0
        named = [identity for record in records for identity in record.stages.values()]
        self._finished: dict[str, Record] = {}
        self._points: dict[str, list[dict[str, float]]] = {}  # of those that are not finished
        for identity in dict.fromkeys([*planned, *named]):
            record = store.record(identity)
            if record is not None:
                self._finished[identity] = record
            elif points := store.progress(identity):
                self._points[identity] = points

    def status(self, told: Mapping[str, Any], until: float) -> StageStatus:
        """`told`: an entry of the sweep's last word, see `Stages.status`."""
        identity = told["identity"]
        planned = self._planned.get(identity, {})
        point = self._points.get(identity, [{}])[-1]
        runs: Execution = getattr(self._execution, executed_as(told["kind"]))
        return StageStatus(
            identity=identity,
            kind=told["kind"],
            what=planned.get("what", ""),
            trials=[number for number in told["trials"] if number >= 0],
            seconds=max(0.0, until - told.get("since", told["time"])),
            hosts=told.get("hosts", ()),
            attempt=told.get("attempt", 0),
            epoch=point.get("epoch", 0.0),
            epochs=planned.get("epochs"),
            workers=told.get("workers", 0),
            on_gpus=runs.gpus_per_worker > 0,
            clips_per_second=point.get("clips_per_second"),
            gpu_utilisation=point.get("gpu_utilisation"),
            why=told.get("why") or told.get("reason") or "",
        )

    def finished(self, identity: str) -> bool:
        return identity in self._finished

    def gpu_utilisation(self) -> float | None:
        """The mean over all epochs for which it is known, 0 to 1."""
        trained = [id_ for id_, r in self._finished.items() if r.stage["kind"] in TRAINED]
        curves = [*self._points.values(), *map(self._store.progress, trained)]
        known = [point.get("gpu_utilisation") for points in curves for point in points]
        busy = [each for each in known if each is not None]
        return mean(busy) if busy else None

    def missing(self) -> list[str]:
        """Stages that are not finished and that something still needs."""
        return [
            identity
            for identity, planned in self._planned.items()
            if identity not in self._finished and self._needed(planned["trials"])
        ]

    def _needed(self, trials: Sequence[int]) -> bool:
        """Those of no trial are wanted whatever becomes of the trials."""
        ended = [number in self._trials and self._trials[number].finished for number in trials]
        return not ended or not all(ended)

    def cost(self) -> Cost:
        """Spent so far; of a stage that is not finished, up to its last whole epoch.

        By the rule of `Spending`: what lay in the store before it began costs it nothing.
        """
        spent: dict[str, float] = {}  # by kind
        paid = [each for each in self._finished.values() if each.finished_at >= self._began]
        for record in paid:
            kind = record.stage["kind"]
            spent[kind] = spent.get(kind, 0.0) + record.cost["device_seconds"]
        for identity in self._points:
            kind = self._planned.get(identity, {"kind": ""})["kind"]
            spent[kind] = spent.get(kind, 0.0) + self._begun_seconds(identity)
        price = self._execution.device_price_per_hour
        devices = {kind: devices_per_worker(kind, self._execution) for kind in spent}
        hours = sum(seconds * devices[kind] for kind, seconds in spent.items()) / 3600
        return Cost(
            device_seconds=sum(spent.values()),
            finished=len(paid),
            begun=len(self._points),
            money=None if price is None else hours * price,
        )

    def to_do(self, running: Sequence[StageStatus], to_suggest: int, now: float | None) -> ToDo:
        """`now`: None where nothing is at work, so that no end can be foreseen."""
        prices = self._prices()
        missing = self.missing()
        known = sum(self._left(identity, prices.get(identity, 0.0)) for identity in missing)
        untimed = {
            self._planned[identity]["kind"]
            for identity in missing
            if identity not in prices and self._planned[identity]["clips"]
        }
        alone = self._price_of_one_more(prices) if to_suggest else 0.0
        devices = sum(each.workers for each in running)
        left = None if alone is None or untimed else known + alone * to_suggest
        return ToDo(
            known_seconds=known,
            to_suggest=to_suggest,
            suggested_seconds=None if alone is None else alone * to_suggest,
            untimed=sorted(untimed),
            devices=devices,
            ends=None if now is None or left is None or not devices else now + left / devices,
        )

    def _prices(self) -> dict[str, float]:
        """Device-seconds of each stage, as far as it or such stages have been timed."""
        rates = measured_rates(map(timed, self._store.records()))
        measured = {canonical_hash(key): rate for key, rate in rates.items()}
        given = self._execution.clips_per_second or {}
        prices = {}
        for identity, planned in self._planned.items():
            entry = executed_as(planned["kind"])
            if identity in self._finished:
                prices[identity] = self._finished[identity].cost["device_seconds"]
            elif planned["like"] in measured:
                prices[identity] = measured[planned["like"]] * planned["clips"]
            elif entry in given:
                prices[identity] = planned["clips"] / given[entry]
            elif done := self._done(identity):  # by its own first epochs
                prices[identity] = self._begun_seconds(identity) / done
        return prices

    def _price_of_one_more(self, prices: Mapping[str, float]) -> float | None:
        """Device-seconds that another trial adds to what the trials before it need.

        The mean over those of the sampler so far; before there are any, the median over the
        others, for one of them pays for what all share. None: no trial is known.
        """
        added = dict.fromkeys(self._trials, 0.0)
        for identity, price in prices.items():
            if trials := self._planned[identity]["trials"]:
                added[min(trials)] = added.get(min(trials), 0.0) + price
        suggested = [n for n, record in self._trials.items() if record.origin in CHOSEN]
        if suggested:
            return mean(added[number] for number in suggested)
        return median(added.values()) if added else None

    def _left(self, identity: str, price: float) -> float:
        return price * (1 - self._done(identity))

    def _done(self, identity: str) -> float:
        """The part of an unfinished stage that is done, 0 to 1."""
        epochs = self._planned[identity]["epochs"]
        points = self._points.get(identity)
        return min(1.0, points[-1]["epoch"] / epochs) if points and epochs else 0.0

    def _begun_seconds(self, identity: str) -> float:
        return self._points[identity][-1].get("device_seconds", 0.0)
