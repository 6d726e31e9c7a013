"""The plan of a sweep: the stages that its known trials stand on, what is there, what is to do.

Trials that the sampler will suggest are not known yet: see `forecast`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from sweeps.planning.costs import Price, StageCosts
from sweeps.planning.stage_facts import batch_size, describe, repetition
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import TRUNKS, Stage
from trainables.training_descriptions import Pretraining
from trainables.trial import trial_stages

COSINES = ("cosine", "cosine_as_released")


@dataclass(kw_only=True)
class PlannedStage:
    stage: Stage
    what: str
    cached: bool
    needed: bool  # it is to be made: not there, and something that is not there needs it
    clips: int  # that it trains on, or would still
    price: Price | None  # taken or still to pay; None where nothing tells
    money: float | None  # likewise; None without a price of a device
    workers: int
    devices: float  # that a worker holds
    repetition: dict[str, float]  # source -> clips drawn / clips that exist
    waits_for: list[str]  # identities of what it is made from, or goes on from
    trials: list[int] = field(default_factory=list)
    scored: bool = False  # a trial's score needs it; else it runs when the search is over


@dataclass(kw_only=True)
class Plan:
    stages: list[PlannedStage]  # in an order in which they can run
    known_trials: dict[int, str]
    to_suggest: int  # trials that the sampler will add
    trial_clips: int  # of the longest known trial, if it were alone
    alone_clips: int  # of all known trials, each alone, and of what no trial asks for
    alone_seconds: float | None  # likewise; None where some stage's time is not known
    alone_money: float | None  # likewise; None without a price of a device
    not_neutral: list[int]  # trials whose mix changes the length of training
    lengths: list[str]  # what stands in the way of runs that differ in length alone
    budget: str | None = None  # what is spent and left of it, in words

    @property
    def missing(self) -> list[PlannedStage]:
        return [planned for planned in self.stages if planned.needed]


def make_plan(
    trials: Mapping[int, tuple[str, TrialConfig]],
    to_suggest: int,
    data: Mapping[str, Dataset],
    costs: StageCosts,
    reported: Collection[int] | None = None,
    of_no_trial: Iterable[Stage] = (),
) -> Plan:
    """`trials`: number -> (name, settings) of every trial that is known before the search.

    `reported`: numbers of those that are scored in every way that they ask for, None: all. Of the
    others only what their score is made of runs.
    `of_no_trial`: stages that the sweep asks for beside its trials (scene bias, merges), inputs
    first. What is made from weights that no known trial trains is left out, as it never runs.
    """
    stages: dict[str, PlannedStage] = {}
    alone: dict[int, int] = {}
    once = 0  # clips that no trial asks for: the same with and without sharing
    prices: list[Price | None] = []
    money: list[float | None] = []
    ends: list[Stage] = []
    for number, (_, trial) in trials.items():
        alone[number] = 0
        parts = trial_stages(trial, data)
        searched_only = reported is not None and number not in reported
        for_score = {stage.identity for stage in parts.searched()}
        results = [parts.scored] if searched_only else parts.results.values()
        ends += [parts.weights, *(end for scored in results for end in scored.values())]
        for stage in parts.searched() if searched_only else parts.all():
            if stage.identity not in stages:
                stages[stage.identity] = _planned(stage, data, costs)
            stages[stage.identity].trials.append(number)
            stages[stage.identity].scored |= stage.identity in for_score
            alone[number] += costs.clips_alone(stage)
            prices.append(costs.alone(stage))
            money.append(costs.money(stage, prices[-1]))
    for stage in of_no_trial:
        unknown = any(each.identity not in stages for each in stage.inputs.values())
        if unknown or stage.identity in stages:
            continue
        stages[stage.identity] = _planned(stage, data, costs)
        ends.append(stage)
        once += costs.clips_alone(stage)
        prices.append(costs.alone(stage))
        money.append(costs.money(stage, prices[-1]))
    for stage in costs.missing(ends):
        stages[stage.identity].needed = True
    _follow_shorter(stages, costs)
    return Plan(
        stages=list(stages.values()),
        known_trials={number: name for number, (name, _) in trials.items()},
        to_suggest=to_suggest,
        trial_clips=max(alone.values(), default=0),
        alone_clips=sum(alone.values()) + once,
        alone_seconds=total_seconds(prices),
        alone_money=_sum_of_known(money),
        not_neutral=[
            number
            for number, (_, trial) in trials.items()
            if any(run.clips_per_epoch == "sum_of_sources" for _, run in _pretraining(trial))
        ],
        lengths=_lengths(trial for _, trial in trials.values()),
    )


def _planned(stage: Stage, data: Mapping[str, Dataset], costs: StageCosts) -> PlannedStage:
    return PlannedStage(
        stage=stage,
        what=describe(stage),
        cached=costs.finished(stage),
        needed=False,
        clips=costs.clips(stage),
        price=costs.price(stage),
        money=costs.money(stage, costs.price(stage)),
        workers=costs.devices(stage)[0],
        devices=costs.devices(stage)[1],
        repetition=repetition(stage, data),
        waits_for=[each.identity for each in stage.before()],
    )


def _follow_shorter(stages: Mapping[str, PlannedStage], costs: StageCosts) -> None:
    """Let each trunk that is to be made go on from the longest shorter one of its run."""
    lines: dict[str, list[PlannedStage]] = {}
    for planned in stages.values():
        if planned.needed and planned.stage.kind in TRUNKS:
            lines.setdefault(planned.stage.line, []).append(planned)
    for line in lines.values():
        line.sort(key=lambda planned: int(planned.stage.settings["step"]))
        for shorter, longer in reversed(list(pairwise(line))):
            shorter.trials = sorted({*shorter.trials, *longer.trials})
            between = longer.stage.settings["step"] - shorter.stage.settings["step"]
            longer.clips = min(longer.clips, between * batch_size(longer.stage))
            longer.price = costs.price(longer.stage, longer.clips)
            longer.money = costs.money(longer.stage, longer.price)
            longer.waits_for.append(shorter.stage.identity)


def _lengths(trials: Iterable[TrialConfig]) -> list[str]:
    """What stands in the way where runs differ in length alone."""
    settings = [each for trial in trials for each in _pretraining(trial)]
    lines = []
    for kind in TRUNKS.values():
        runs = [run for name, run in settings if name == kind and run.epochs]
        lengths = {run.epochs for run in runs}
        if len(lengths) < 2:
            continue
        if any(run.optimizer.lr_schedule in COSINES for run in runs):
            lines.append(
                f"{kind}: runs of {_listed(lengths)} epochs share nothing, for under a cosine the "
                f"learning rate of every step depends on the length; {kind}.optimizer.lr_schedule: "
                "constant_then_decay lets them share all but the decay."
            )
        elif not_kept := lengths - _kept(runs) - {max(lengths)}:
            lines.append(
                f"{kind}.branch_epochs lacks {_listed(not_kept)}: where such a length is tried "
                "after a longer one its trunk is trained again."
            )
    return lines


def _pretraining(trial: TrialConfig) -> list[tuple[str, Pretraining]]:
    found = {kind: getattr(trial, kind) for kind in TRUNKS.values()}
    return [(kind, run) for kind, run in found.items() if run is not None]


def _kept(runs: Iterable[Pretraining]) -> set[int]:
    return {epochs for run in runs for epochs in run.branch_epochs}


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def total_seconds(prices: Iterable[Price | None]) -> float | None:
    """Device-seconds together; None where one is not known."""
    seconds = [None if price is None else price.seconds for price in prices]
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def money_of(stages: Iterable[PlannedStage]) -> float | None:
    """Together, as far as it is known; None without a price of a device."""
    return _sum_of_known(planned.money for planned in stages)


def _sum_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
