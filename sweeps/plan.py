"""The plan of a sweep: which stages its known trials stand on, what is there already, the price.

Trials that the sampler will suggest are not known yet; the plan says how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.data.mixture import kept_clips, largest_remainder, parse_shares
from trainables.stage import TRAINED, Stage, executed_as
from trainables.stage_store import Record, StageStore
from trainables.trial import trial_stages


@dataclass(kw_only=True)
class PlannedStage:
    stage: Stage
    cached: bool
    clips: int
    seconds: float | None  # device-seconds; None while no such stage has been timed
    repetition: dict[str, float]  # source -> clips drawn / clips that exist
    trials: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class Plan:
    stages: list[PlannedStage]  # in an order in which they can run
    known_trials: dict[int, str]
    to_suggest: int  # trials that the sampler will add
    trial_clips: int  # of the longest known trial, if it were alone
    not_neutral: list[int]  # trials whose mix changes the length of training

    @property
    def missing(self) -> list[PlannedStage]:
        return [planned for planned in self.stages if not planned.cached]


def make_plan(
    trials: Mapping[int, tuple[str, TrialConfig]],
    to_suggest: int,
    data: Mapping[str, Dataset],
    store: StageStore,
    clips_per_second: Mapping[str, float] | None = None,
) -> Plan:
    """`trials`: number -> (name, settings) of every trial that is known before the search.

    `clips_per_second`: of one device, by the entry of `execution`, where none was timed yet.
    """
    rates = measured_rates(store)
    given = {name: 1 / rate for name, rate in (clips_per_second or {}).items()}
    stages: dict[str, PlannedStage] = {}
    clips_alone = 0
    for number, (_, trial) in trials.items():
        alone = 0
        for stage in trial_stages(trial, data).all():
            if stage.identity not in stages:
                clips = stage_clips(stage, data)
                untimed = given.get(executed_as(stage.kind))
                rate = rates.get(rate_key(stage.kind, stage.settings), untimed)
                stages[stage.identity] = PlannedStage(
                    stage=stage,
                    cached=store.record(stage.identity) is not None,
                    clips=clips,
                    seconds=None if rate is None else rate * clips,
                    repetition=repetition(stage, data),
                )
            stages[stage.identity].trials.append(number)
            alone += stages[stage.identity].clips
        clips_alone = max(clips_alone, alone)
    return Plan(
        stages=list(stages.values()),
        known_trials={number: name for number, (name, _) in trials.items()},
        to_suggest=to_suggest,
        trial_clips=clips_alone,
        not_neutral=[
            number
            for number, (_, trial) in trials.items()
            if "sum_of_sources"
            in (trial.mae and trial.mae.clips_per_epoch, trial.align.clips_per_epoch)
        ],
    )


def stage_clips(stage: Stage, data: Mapping[str, Dataset]) -> int:
    """Clips that go through the model while the stage runs."""
    if stage.kind in ("mae", "align"):
        settings = stage.settings[stage.kind]
        return int(settings["epochs"] * settings["clips_per_epoch"])
    if stage.kind == "greedy_soup":  # each candidate is probed: the endpoints, then the soups
        clips = [data[name].split(part) for name in stage.data for part in ("train", "selection")]
        return 2 * len(stage.inputs) * sum(map(len, clips))
    settings = stage.settings
    if stage.kind in ("finetune", "augmented_probe", "learned_average"):
        training = settings["finetune" if stage.kind == "finetune" else "augmented_probe"]
        return int(training["epochs"] * len(data[settings["dataset"]].split("train")))
    if stage.kind in ("features", "evaluate"):
        views = settings["views"]["clips"] * settings["views"]["crops"]
        weights = len(settings.get("coefficients", [0]))
        return len(data[settings["dataset"]].split(settings["split"])) * views * weights
    return 0


def repetition(stage: Stage, data: Mapping[str, Dataset]) -> dict[str, float]:
    """How often a clip of each source is drawn (source -> clips drawn / clips that exist)."""
    if stage.kind not in ("mae", "align"):
        return {}
    mixture = stage.settings[stage.kind]["mixture"]
    shares = parse_shares(mixture["shares"])
    drawn = largest_remainder(shares, stage_clips(stage, data))
    kept = {source: len(data[source].split("train")) for source in drawn}
    if mixture["match_repetition"]:
        kept = kept_clips(kept, shares)
    return {source: drawn[source] / kept[source] for source in drawn if shares[source]}


def excess_repetition(trial: TrialConfig, data: Mapping[str, Dataset]) -> str | None:
    """Why the trial goes past its `max_repetition`; None if it keeps to it."""
    for stage in trial_stages(trial, data).all():
        if stage.kind not in ("mae", "align"):
            continue
        settings = trial.mae if stage.kind == "mae" else trial.align
        assert settings is not None
        cap = settings.mixture.max_repetition
        for source, times in repetition(stage, data).items():
            if cap is not None and times > cap:
                return (
                    f"{stage.kind} would draw each clip of {source!r} {times:.1f} times, "
                    f"max_repetition is {cap:g}"
                )
    return None


def measured_rates(store: StageStore) -> dict[str, float]:
    """Median device-seconds a clip of the finished stages, by kind, model and clip."""
    seen: dict[str, list[float]] = {}
    for record in finished_records(store):
        if record.cost.get("clips"):
            key = rate_key(record.stage["kind"], record.stage["settings"])
            seen.setdefault(key, []).append(record.cost["device_seconds"] / record.cost["clips"])
    return {key: median(rates) for key, rates in seen.items()}


def rate_key(kind: str, settings: Mapping[str, Any]) -> str:
    """Stages with the same key take about the same time a clip."""
    return json.dumps([kind, settings.get("model"), settings.get("clip")], sort_keys=True)


def finished_records(store: StageStore) -> Iterable[Record]:
    for path in sorted(store.root.glob("*/record.json")):
        record = store.record(path.parent.name)
        if record is not None:
            yield record


def describe(stage: Stage) -> str:
    """What tells a stage from the others of its kind, for a person."""
    if stage.kind in ("mae", "align"):
        shares = stage.settings[stage.kind]["mixture"]["shares"]
        return " + ".join(f"{share} {source}" for source, share in shares.items())
    if stage.kind == "average":
        return ", ".join(str(value) for value in stage.settings.values())
    if stage.kind == "greedy_soup":
        return f"of {len(stage.inputs)}"
    if "dataset" in stage.settings:
        split = stage.settings.get("split", "train")
        return f"{stage.settings['dataset']} {split}"
    if stage.kind == "probe":
        dataset = stage.inputs["train"].settings["dataset"]
        return f"{dataset} {stage.settings['split']}"
    return ""


SHOWN = (*TRAINED, "average", "greedy_soup")  # the others follow from these


def print_plan(plan: Plan, console: Console) -> None:
    """The plan as a table of what is trained, and a paragraph on the rest."""
    table = Table(title="Plan", title_justify="left", header_style="bold")
    for column in ("stage", "what", "clips", "repetition", "trials", "state", "time"):
        table.add_column(column, justify="right" if column in ("clips", "time") else "left")
    for planned in plan.stages:
        if planned.stage.kind not in SHOWN:
            continue
        table.add_row(
            f"{planned.stage.kind} {planned.stage.identity[:6]}",
            describe(planned.stage),
            f"{planned.clips:,}" if planned.clips else "",
            " ".join(f"{name} {times:.1f}x" for name, times in planned.repetition.items()),
            ", ".join(map(str, planned.trials)),
            "done" if planned.cached else "to do",
            "" if planned.cached else duration(planned.seconds),
        )
    console.print(table)
    for line in plan_lines(plan):
        console.print(line, highlight=False)


def plan_lines(plan: Plan) -> list[str]:
    """The plan in sentences; they also open the parent run in MLflow."""
    cached = sum(planned.cached for planned in plan.stages)
    uses = sum(len(planned.trials) for planned in plan.stages)
    lines = [
        f"{len(plan.known_trials)} trials are known and stand on {len(plan.stages)} stages "
        f"(without sharing: {uses}); {cached} are done, {len(plan.missing)} to do.",
    ]
    if plan.to_suggest:
        lines.append(
            f"{plan.to_suggest} more trials will be suggested from the scores; the longest "
            f"known one takes {plan.trial_clips:,} clips, one with more endpoints or epochs more."
        )
    if to_do := price(plan):
        lines.append(to_do)
    if plan.not_neutral:
        lines.append(
            f"NOT budget-neutral: trials {', '.join(map(str, plan.not_neutral))}, whose "
            "clips_per_epoch is sum_of_sources, so that the mix changes the length of training."
        )
    return lines


def price(plan: Plan) -> str | None:
    """What the known trials still cost, as far as stages like theirs have been timed."""
    missing = [planned for planned in plan.missing if planned.clips]
    if not missing:
        return None
    timed = sum(planned.seconds for planned in missing if planned.seconds is not None)
    untimed = sorted({planned.stage.kind for planned in missing if planned.seconds is None})
    parts = [f"about {duration(timed)} of device time, as timed here or given"] if timed else []
    if untimed:
        parts.append(f"{' and '.join(untimed)} not timed yet")
    clips = sum(planned.clips for planned in missing)
    return f"To do for the known trials: {clips:,} clips; {'; '.join(parts)}."


def duration(seconds: float | None) -> str:
    """'42 s', '7 min', '3.5 h', or '?' when not known."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
