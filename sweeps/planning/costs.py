"""What stages cost, in seconds of one device: as timed on this storage, as given, or by FLOPs.

What is finished costs nothing more, nor does what only finished stages need.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import median
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from sweeps.planning.stage_facts import batch_size, stage_clips
from sweeps.sweep import ExecutionSettings
from sweeps.watching.usage import counted
from trainables.config import Execution, TrialConfig
from trainables.data.catalog import Dataset
from trainables.models import flops
from trainables.stage import TRAINED, TRUNKS, Stage, executed_as, line_of
from trainables.stage_store import Record, StageStore
from trainables.trial import trial_stages

FLOPS_UNKNOWN_SPEED = 1e12  # FLOP/s where nothing is known: then only ratios mean anything


# 0 s of a kind whose time does not go by clips (a probe's fit), while none was timed.
NOT_COUNTED: Final = "never timed, not counted"


class Price(NamedTuple):
    seconds: float  # of one device
    basis: Literal["timed", "given", "by FLOPs", "never timed, not counted"]


class Timed(NamedTuple):
    """What a finished stage says of the time that others will take."""

    like: str  # `rate_key`
    kind: str
    seconds: float  # of one device
    clips: float
    flops_per_clip: float | None


class StageCosts:
    """Prices of stages against one storage, read anew by `refresh`. For one thread.

    Where a kind of stage has not been timed for a model and clip, and `clips_per_second` gives
    nothing for it, its FLOPs are divided by the FLOP/s that other stages reached here, or else by
    `execution.device_teraflops`.
    """

    def __init__(
        self, data: Mapping[str, Dataset], store: StageStore, execution: ExecutionSettings
    ) -> None:
        self._data, self._store = data, store
        self._given = {n: 1 / rate for n, rate in (execution.clips_per_second or {}).items()}
        self._execution = execution
        teraflops = execution.device_teraflops
        self._stated_speed = None if teraflops is None else teraflops * 1e12
        self._clips: dict[str, int] = {}
        self._timed: dict[str, Timed] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what has been finished since."""
        self._records = {record.identity: record for record in self._store.records()}
        for identity, record in self._records.items():
            known = self._timed.get(identity)
            if known is None or known.seconds != record.cost["device_seconds"]:
                self._timed[identity] = timed(record)
        self._rates = measured_rates(self._timed.values())
        self._fixed = measured_fixed(self._timed.values())
        self._speed = measured_speed(self._timed.values()) or self._stated_speed
        self._trunks: dict[str, list[int]] = {}  # line -> the steps of its finished trunks
        for record in self._records.values():
            if record.stage["kind"] in TRUNKS and not record.given_up:
                step = record.stage["settings"]["step"]
                self._trunks.setdefault(line_of(record.stage), []).append(step)

    @property
    def known(self) -> bool:
        """Whether anything gives seconds, not ratios alone."""
        return bool(self._rates or self._given or self._speed)

    def finished(self, stage: Stage) -> bool:
        record = self._records.get(stage.identity)
        return record is not None and not record.given_up

    def missing(self, ends: Iterable[Stage]) -> Iterator[Stage]:
        """See `missing`, as the last `refresh` saw the store."""
        return missing(ends, self.finished)

    def clips(self, stage: Stage, coming: Iterable[Stage] = ()) -> int:
        """Clips through the model; of a trunk, those that no other trunk of its run has that is
        finished or among those `coming`, which it waits for."""
        clips = self.clips_alone(stage)
        if stage.kind in TRUNKS and not self.finished(stage):
            step = stage.settings["step"]
            trunks = [each for each in coming if each.kind in TRUNKS and each.line == stage.line]
            steps = [*self._trunks.get(stage.line, ()), *(t.settings["step"] for t in trunks)]
            behind = [other for other in steps if other < step]
            clips = min(clips, (step - max(behind, default=0)) * batch_size(stage))
        return clips

    def clips_alone(self, stage: Stage) -> int:
        """Likewise, if nothing but the stages before it were there."""
        if stage.identity not in self._clips:
            self._clips[stage.identity] = stage_clips(stage, self._data)
        return self._clips[stage.identity]

    def price(self, stage: Stage, clips: int | None = None) -> Price | None:
        """Of a finished stage what it took, else of such a stage over so many clips.

        `clips`: those that it still needs where none are given. None where nothing tells.
        """
        if self.finished(stage):
            return Price(self._records[stage.identity].cost["device_seconds"], "timed")
        return self._expected(stage, self.clips(stage) if clips is None else clips)

    def _expected(self, stage: Stage, clips: int) -> Price | None:
        key, entry = rate_key(stage.kind, stage.settings), executed_as(stage.kind)
        if not clips:
            seconds = self._fixed.get(stage.kind)
            return Price(0.0, NOT_COUNTED) if seconds is None else Price(seconds, "timed")
        if key in self._rates:
            return Price(self._rates[key] * clips, "timed")
        if entry in self._given:
            return Price(self._given[entry] * clips, "given")
        each = flops_per_clip(stage.kind, stage.settings)
        if each is None or self._speed is None:
            return None
        return Price(each * clips / self._speed, "by FLOPs")

    def alone(self, stage: Stage) -> Price | None:
        """If nothing but the stages before it were there.

        A finished trunk may have been charged for another part of its run: from another trial's
        shorter trunk on, or with the longer one that it was made in passing of.
        """
        clips = self.clips_alone(stage)
        if stage.kind in TRUNKS and self.finished(stage):
            if self._records[stage.identity].cost["clips"] != clips:
                return self._expected(stage, clips)
        return self.price(stage, clips)

    def devices(self, stage: Stage) -> tuple[int, float]:
        """Its workers, at the most, and the devices of each."""
        runs: Execution = getattr(self._execution, executed_as(stage.kind))
        workers = max(runs.counts) if stage.kind in TRAINED else 1
        return workers, devices_per_worker(stage.kind, self._execution)

    def money(self, stage: Stage, price: Price | None) -> float | None:
        """At `execution.device_price_per_hour`; None without one, or where nothing is known."""
        per_hour = self._execution.device_price_per_hour
        if price is None or per_hour is None:
            return None
        return price.seconds / 3600 * self.devices(stage)[1] * per_hour

    def left(
        self, trial: TrialConfig, coming: Mapping[str, Stage] = MappingProxyType({})
    ) -> dict[str, float]:
        """Device-seconds that `trial` adds, by the identity of each stage it still needs.

        `coming`: stages that others run or wait for already, by identity. They cost it nothing,
        and its trunks go on from theirs. Where nothing tells seconds the values are FLOPs over an
        assumed speed: ratios. Stages of unknown cost (a convolutional network that was never
        timed) count as 0.
        """
        parts, found = trial_stages(trial, self._data), {}
        for stage in self.missing([parts.weights, *parts.scored.values()]):
            if stage.identity in coming:
                continue
            clips = self.clips(stage, coming.values())
            price = self.price(stage, clips)
            if price is None:
                each = flops_per_clip(stage.kind, stage.settings) or 0.0
                price = Price(each * clips / FLOPS_UNKNOWN_SPEED, "by FLOPs")
            found[stage.identity] = price.seconds
        return found


def missing(ends: Iterable[Stage], finished: Callable[[Stage], bool]) -> Iterator[Stage]:
    """Every stage that is to be made for `ends`, once, inputs before what needs them."""
    seen: set[str] = set()

    def needed(stage: Stage) -> Iterator[Stage]:
        if stage.identity in seen or finished(stage):
            return
        seen.add(stage.identity)
        for other in stage.before():
            yield from needed(other)
        yield stage

    for end in ends:
        yield from needed(end)


def devices_per_worker(kind: str, execution: ExecutionSettings) -> float:
    """GPUs that a worker has; where a sweep uses none, a worker is a device."""
    runs: Execution = getattr(execution, executed_as(kind))
    return runs.gpus_per_worker if counted(execution) == "GPU" else 1.0


def rate_key(kind: str, settings: Mapping[str, Any]) -> str:
    """Stages with the same key take about the same time a clip."""
    kind = TRUNKS.get(kind, kind)
    return json.dumps([kind, settings.get("model"), settings.get("clip")], sort_keys=True)


def timed(record: Record) -> Timed:
    kind, settings = record.stage["kind"], record.stage["settings"]
    return Timed(
        like=rate_key(kind, settings),
        kind=kind,
        seconds=record.cost["device_seconds"],
        clips=record.cost.get("clips", 0),
        flops_per_clip=flops_per_clip(kind, settings),
    )


def measured_rates(stages: Iterable[Timed]) -> dict[str, float]:
    """Median device-seconds a clip of the finished stages, by kind, model and clip."""
    seen: dict[str, list[float]] = {}
    for each in stages:
        if each.clips:
            seen.setdefault(each.like, []).append(each.seconds / each.clips)
    return {key: median(rates) for key, rates in seen.items()}


def measured_fixed(stages: Iterable[Timed]) -> dict[str, float]:
    """Median device-seconds of the finished stages by kind, for those priced by no clips."""
    seen: dict[str, list[float]] = {}
    for each in stages:
        seen.setdefault(each.kind, []).append(each.seconds)
    return {kind: median(seconds) for kind, seconds in seen.items()}


def measured_speed(stages: Iterable[Timed]) -> float | None:
    """Median FLOP/s that one device reached in the finished stages whose FLOPs are known."""
    speeds = [
        each.flops_per_clip * each.clips / each.seconds
        for each in stages
        if each.flops_per_clip and each.clips and each.seconds
    ]
    return median(speeds) if speeds else None


def flops_per_clip(kind: str, settings: Mapping[str, Any]) -> float | None:
    """See `models.flops`; None for kinds and models that are not modelled there."""
    kind = TRUNKS.get(kind, kind)
    if "model" not in settings:
        return None
    model, clip = settings["model"], settings["clip"]
    match kind:
        case "mae":
            return flops.mae_flops(model, clip, settings["mae"])
        case "contrastive" | "align" | "finetune":
            return flops.classification_flops(model, clip, frozen=False)
        case "augmented_probe":
            return flops.classification_flops(model, clip, frozen=True)
        case "learned_average":  # backward through the trunk, to the coefficients
            return flops.classification_flops(model, clip, frozen=False)
        case "features" | "evaluate" | "greedy_soup":
            return flops.features_flops(model, clip)
        case "bias":
            return flops.image_flops(model, clip)
    return None


def duration(seconds: float | None) -> str:
    """'42 s', '7 min', '3.5 h', or '?' when not known."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def priced(seconds: float | None, money: float | None) -> str:
    """'3.5 h', and where an hour of a device has a price the money too: '3.5 h (7.00)'."""
    return duration(seconds) + ("" if money is None else f" ({money:,.2f})")
