"""The answer as summary.json: a function of the trials and stages on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sweeps.planning.costs import devices_per_worker
from sweeps.planning.stage_facts import describe
from sweeps.records import GIVEN, TrialRecord
from sweeps.reporting.bias_summary import bias_summary
from sweeps.reporting.curves import curve_summary
from sweeps.reporting.law_summary import law_summary, merge_summary
from sweeps.reporting.pareto import pareto
from sweeps.searching.sampler_view import costs_alone
from sweeps.searching.search import Search
from sweeps.searching.trial_names import trial_name
from sweeps.sweep import ExecutionSettings, Sweep
from sweeps.watching.usage import counted, read_usage
from trainables.bias import Measured
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import Record, StageStore
from trainables.trial import TrialStages, trial_score, trial_stages

WEIGHTS_FILE = "recommended.safetensors"


def recommended(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best score on the selection split; the earlier of two equals."""
    complete = [record for record in records if record.score is not None]
    return max(complete, key=lambda r: (r.score, -r.number), default=None)


def reported(search: Search) -> list[TrialRecord]:
    """The trials whose report split is read, once the search is over: the best, and all that were
    given before it (baselines, points), of which the search chose none."""
    best = recommended(search.records)
    return [
        record
        for record in search.records
        if record.state == "complete" and (record is best or record.origin in GIVEN)
    ]


def report_stages(search: Search, data: Mapping[str, Dataset]) -> list[Stage]:
    """Every way of scoring the reported trials, on both splits.

    Nothing else in a sweep reads the report split.
    """
    return [
        stage
        for record in reported(search)
        for split in ("selection", "report")
        for scored in trial_stages(search.config(record), data, split).results.values()
        for stage in scored.values()
    ]


def make_summary(
    sweep: Sweep,
    search: Search,
    data: Mapping[str, Dataset],
    store: StageStore,
    bias: Sequence[Measured] = (),
) -> dict[str, Any]:
    """`summary.json`: a function of what is on disk, so that it is the same when made again."""
    on_report = {record.number for record in reported(search)}
    seen: dict[str, str | None] = {}  # identity -> when its first trial here had ended
    trials = [_trial(record, search, data, store, seen, on_report) for record in search.records]
    trials.sort(key=lambda t: (t["score"] is None, -(t["score"] or 0), t["number"]))
    best = recommended(search.records)
    paid = [r for r in (store.record(identity) for identity in seen) if r is not None]
    summary: dict[str, Any] = {
        "sweep": sweep.settings.name,
        "question": sweep.settings.question,
        "downstream": list(sweep.settings.trial.downstream),
        "trial": sweep.settings.trial.model_dump(mode="json"),
        "recommended": None,
        "trials": trials,
        "pareto": pareto(search),
        "curves": curve_summary(search, data, store),
        "law": law_summary(search.proposals, search.records),
        "merge_proxy": merge_summary(search.proposals, search.records),
        "bias": bias_summary(bias, trials, sweep.settings.trial.downstream, data, store),
        "counts": {
            state: sum(record.state == state for record in search.records)
            for state in ("complete", "failed", "pruned")
        }
        | {"stages": len(seen), "to_do": search.unfinished()},
        "cost": _cost(paid),
        "usage": read_usage(sweep.folder, counted(sweep.settings.execution)).as_json(),
        "budget": search.budget(),
        "storage": search.storage(),
        "allow_real_humans": sweep.settings.allow_real_humans,
        "data": {name: dataset.content_hash for name, dataset in sorted(data.items())},
        "licences": {name: each.licence for name, each in sorted(data.items()) if each.licence},
    }
    if best is not None:
        stages = trial_stages(search.config(best), data)
        weights = stages.weights
        record = store.record(weights.identity)
        assert record is not None, f"weights {weights.identity} of a complete trial are missing"
        chosen = next(trial for trial in trials if trial["number"] == best.number)
        summary["recommended"] = {
            "trial": best.number,
            **{key: chosen[key] for key in ("name", "config", "score", "scores", "report")},
            "money": _money_alone(chosen["stages"], sweep.settings.execution),
            "weights": {"stage": weights.identity, "file": WEIGHTS_FILE},
            "adapted": {
                name: {"stage": stage.identity, "file": f"recommended-{name}.safetensors"}
                for name, stage in stages.adapted.items()
                if stage is not weights
            },
            "trained_on": record.trained_on,
        }
    return summary


def _trial(
    record: TrialRecord,
    search: Search,
    data: Mapping[str, Dataset],
    store: StageStore,
    seen: dict[str, str | None],
    on_report: set[int],
) -> dict[str, Any]:
    config = search.config(record)
    stages = trial_stages(config, data)
    described: dict[str, dict[str, Any]] = {}
    made: list[Record] = []
    paid: list[Record] = []
    for stage in stages.all():
        known = store.record(stage.identity)
        if known is None:
            continue
        reused = stage.identity in seen
        seen.setdefault(stage.identity, record.finished_at)
        described[stage.identity] = {
            "kind": stage.kind,
            "what": describe(stage),
            "inputs": {role: each.identity for role, each in stage.inputs.items()},
            "reused": reused,
            "metrics": _brief(known.metrics),
            "mixture": known.mixture,
            "cost": known.cost,
        }
        made.append(known)
        if not reused:
            paid.append(known)
    for identity, cost in costs_alone(made).items():
        described[identity]["alone"] = cost  # "cost" if no other trial shared any stage
    intervals = _intervals(stages, store)
    return {
        "number": record.number,
        "name": trial_name(record),
        "origin": record.origin,
        "state": record.state,
        "reason": record.reason,
        "values": record.values,
        "varied": search.varied(record),
        "config": config.model_dump(mode="json"),
        "shares": _shares(stages.weights),
        "aligned_from": _aligned_from(stages.weights, data),
        "score": record.score,
        "scores": record.scores,
        "rungs": [asdict(point) for point in record.rungs],
        "interval": _score_interval(config, record.score, intervals),
        "intervals": intervals,
        "results": _results(stages, store),
        "report": _report(search, record, data, store) if record.number in on_report else None,
        "stages": described,
        "cost": _cost(paid),
        "device_seconds": record.device_seconds,  # as if it shared no stage
        "mlflow_run_id": record.mlflow_run_id,
    }


def _shares(weights: Stage) -> dict[str, float]:
    """The mix that stage 2 trained on, or the contrastive stage instead of it; empty where there
    was none, or several."""
    if weights.kind not in ("contrastive", "align"):
        return {}
    shares = weights.settings[weights.kind]["mixture"]["shares"]
    return {source: float(share) for source, share in shares.items()}


def _aligned_from(weights: Stage, data: Mapping[str, Dataset]) -> dict[str, Any] | None:
    """What one alignment started from: the stage, and what the stages before it `saw`: mae and
    contrastive -> source -> humans. None where stage 2 was none, or several."""
    if weights.kind != "align":
        return None
    start = weights.inputs["start"]
    saw = {
        stage.kind: {
            source: data[source].humans
            for source, share in stage.settings[stage.kind]["mixture"]["shares"].items()
            if share
        }
        for stage in start.chain()
        if stage.kind in ("mae", "contrastive")
    }
    imported = any(stage.kind == "import" for stage in start.chain())
    return {"stage": start.identity, "saw": saw, "imported": imported}


def _report(
    search: Search, record: TrialRecord, data: Mapping[str, Dataset], store: StageStore
) -> dict[str, Any] | None:
    config = search.config(record)
    stages = trial_stages(config, data, split="report")
    known = {name: store.record(stage.identity) for name, stage in stages.scored.items()}
    scores = {name: r.metrics["accuracy"] for name, r in known.items() if r is not None}
    if len(scores) < len(known):  # a stage of it failed
        return None
    score, intervals = trial_score(config, scores), _intervals(stages, store)
    return {
        "score": score,
        "scores": scores,
        "interval": _score_interval(config, score, intervals),
        "intervals": intervals,
        "results": _results(stages, store),
    }


MEASURES = (
    "accuracy",
    "interval_low",
    "interval_high",
    "top5",
    "mean_class_accuracy",
    "knn_accuracy",
)


def _results(stages: TrialStages, store: StageStore) -> dict[str, dict[str, dict[str, float]]]:
    """probe, augmented_probe, finetune -> downstream dataset -> what was measured."""
    return {
        kind: {
            name: {key: record.metrics[key] for key in MEASURES if key in record.metrics}
            for name, stage in scored.items()
            if (record := store.record(stage.identity)) is not None
        }
        for kind, scored in stages.results.items()
    }


def _intervals(stages: TrialStages, store: StageStore) -> dict[str, list[float]]:
    """90 % bootstrap intervals of the top-1, over groups where the dataset has them."""
    known = {name: store.record(stage.identity) for name, stage in stages.scored.items()}
    return {
        name: [record.metrics["interval_low"], record.metrics["interval_high"]]
        for name, record in known.items()
        if record is not None
    }


def _score_interval(
    config: TrialConfig, score: float | None, intervals: Mapping[str, list[float]]
) -> list[float] | None:
    """90 % interval of a mean over datasets; None for the worst of them, or what is not scored.

    The datasets are independent, so the half-widths of their intervals add as squares do.
    """
    if score is None or config.score.combine != "mean" or len(intervals) < len(config.downstream):
        return None
    half = math.hypot(*((high - low) / 2 for low, high in intervals.values())) / len(intervals)
    return [score - half, score + half]


def _brief(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if isinstance(value, int | float | str)}


def _money_alone(
    stages: Mapping[str, Mapping[str, Any]], execution: ExecutionSettings
) -> float | None:
    """Of a trial that shares no stage; None without `device_price_per_hour`."""
    per_hour = execution.device_price_per_hour
    if per_hour is None:
        return None
    return per_hour * sum(
        stage["alone"]["device_seconds"] / 3600 * devices_per_worker(stage["kind"], execution)
        for stage in stages.values()
    )


def _cost(records: list[Record]) -> dict[str, float]:
    return {
        key: sum(record.cost.get(key, 0.0) for record in records)
        for key in ("device_seconds", "clips")
    }
