"""The answer: summary.json, the report with its plots, the recommended weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeps.plan import describe
from sweeps.plots import plot_scores
from sweeps.records import TrialRecord
from sweeps.search import Search, trial_name
from sweeps.sweep import Sweep
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import Record, StageStore
from trainables.trial import TrialStages, trial_score, trial_stages

WEIGHTS_FILE = "recommended.safetensors"


def recommended(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best score on the selection split; the earlier of two equals."""
    complete = [record for record in records if record.score is not None]
    return max(complete, key=lambda r: (r.score, -r.number), default=None)


def reported(records: list[TrialRecord]) -> list[TrialRecord]:
    """The trials whose report split is read, once the search is over: the best, the baselines."""
    best = recommended(records)
    return [
        record
        for record in records
        if record.state == "complete" and (record is best or record.origin == "baseline")
    ]


def report_stages(search: Search, data: Mapping[str, Dataset]) -> list[Stage]:
    """The stages that score the report split; nothing else in a sweep reads it."""
    return [
        stage
        for record in reported(search.records)
        for stage in trial_stages(search.config(record), data, split="report").scored.values()
    ]


def make_summary(
    sweep: Sweep, search: Search, data: Mapping[str, Dataset], store: StageStore
) -> dict[str, Any]:
    """`summary.json`: a function of what is on disk, so that it is the same when made again."""
    on_report = {record.number for record in reported(search.records)}
    seen: dict[str, str | None] = {}  # identity -> when its first trial here had ended
    trials = [_trial(record, search, data, store, seen, on_report) for record in search.records]
    trials.sort(key=lambda t: (t["score"] is None, -(t["score"] or 0), t["number"]))
    best = recommended(search.records)
    paid = [r for r in (store.record(identity) for identity in seen) if r is not None]
    summary: dict[str, Any] = {
        "sweep": sweep.settings.name,
        "question": sweep.settings.question,
        "downstream": list(sweep.settings.trial.downstream),
        "recommended": None,
        "trials": trials,
        "counts": {
            state: sum(record.state == state for record in search.records)
            for state in ("complete", "failed", "pruned")
        }
        | {"stages": len(seen)},
        "cost": _cost(paid),
        "allow_real_humans": sweep.settings.allow_real_humans,
        "data": {name: dataset.content_hash for name, dataset in sorted(data.items())},
    }
    if best is not None:
        weights = trial_stages(search.config(best), data).weights
        record = store.record(weights.identity)
        assert record is not None, f"weights {weights.identity} of a complete trial are missing"
        chosen = next(trial for trial in trials if trial["number"] == best.number)
        summary["recommended"] = {
            "trial": best.number,
            **{key: chosen[key] for key in ("name", "config", "score", "scores", "report")},
            "weights": {"stage": weights.identity, "file": WEIGHTS_FILE},
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
    described, paid = {}, []
    for stage in stages.all():
        known = store.record(stage.identity)
        if known is None:
            continue
        reused = stage.identity in seen
        seen.setdefault(stage.identity, record.finished_at)
        described[stage.identity] = {
            "kind": stage.kind,
            "what": describe(stage),
            "reused": reused,
            "metrics": _brief(known.metrics),
            "mixture": known.mixture,
            "cost": known.cost,
        }
        if not reused:
            paid.append(known)
    return {
        "number": record.number,
        "name": trial_name(record),
        "origin": record.origin,
        "state": record.state,
        "reason": record.reason,
        "values": record.values,
        "config": config.model_dump(mode="json"),
        "score": record.score,
        "scores": record.scores,
        "intervals": _intervals(stages, store),
        "report": _report(search, record, data, store) if record.number in on_report else None,
        "stages": described,
        "cost": _cost(paid),
        "mlflow_run_id": record.mlflow_run_id,
    }


def _report(
    search: Search, record: TrialRecord, data: Mapping[str, Dataset], store: StageStore
) -> dict[str, Any] | None:
    config = search.config(record)
    stages = trial_stages(config, data, split="report")
    known = {name: store.record(stage.identity) for name, stage in stages.scored.items()}
    scores = {name: r.metrics["accuracy"] for name, r in known.items() if r is not None}
    if len(scores) < len(known):  # a stage of it failed
        return None
    return {
        "score": trial_score(config, scores),
        "scores": scores,
        "intervals": _intervals(stages, store),
    }


def _intervals(stages: TrialStages, store: StageStore) -> dict[str, list[float]]:
    """90 % bootstrap intervals of the top-1, over groups where the dataset has them."""
    known = {name: store.record(stage.identity) for name, stage in stages.scored.items()}
    return {
        name: [record.metrics["interval_low"], record.metrics["interval_high"]]
        for name, record in known.items()
        if record is not None
    }


def _brief(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if isinstance(value, int | float | str)}


def _cost(records: list[Record]) -> dict[str, float]:
    return {
        key: sum(record.cost.get(key, 0.0) for record in records)
        for key in ("device_seconds", "clips")
    }


def write_weights(summary: Mapping[str, Any], store: StageStore, folder: Path) -> Path | None:
    """The recommended trial's weights, with what they were trained on in their metadata."""
    from safetensors.numpy import load_file, save_file

    best = summary["recommended"]
    if best is None:
        return None
    metadata = {
        "sweep": summary["sweep"],
        "trial": str(best["trial"]),
        "stage": best["weights"]["stage"],
        "config": json.dumps(best["config"]),
        "trained_on": json.dumps(best["trained_on"]),
        "allow_real_humans": json.dumps(summary["allow_real_humans"]),
    }
    partial = folder / f".{WEIGHTS_FILE}.tmp"
    save_file(load_file(store.file(best["weights"]["stage"], "weights")), partial, metadata)
    return partial.replace(folder / WEIGHTS_FILE)


def write_report(summary: Mapping[str, Any], plan_lines: list[str], folder: Path) -> list[Path]:
    """report.md and its plots. Returns the files."""
    plots = plot_scores(summary, folder)
    downstream = summary["downstream"]
    lines = [f"# {summary['sweep']}", "", summary["question"], "", *plan_lines, ""]
    best = summary["recommended"]
    if best:
        lines += [
            f"**Recommended: trial {best['trial']}, {best['name']}** with a score of "
            f"{best['score']:.1%} on the selection split"
            + (f" and {best['report']['score']:.1%} on the report split" if best["report"] else "")
            + f". Weights: `{WEIGHTS_FILE}`.",
            "",
        ]
    else:
        lines += ["No trial was completed, so nothing is recommended.", ""]
    trials = summary["trials"]
    lines += _table(trials, downstream, "Selection split, top-1 in %")
    on_report = [t["report"] | {"name": t["name"]} for t in trials if t["report"]]
    lines += _table(on_report, downstream, "Report split, read once after the search, top-1 in %")
    lines += [f"![{plot.stem}]({plot.name})" for plot in plots]
    failed = [trial for trial in trials if trial["state"] == "failed"]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [
            f"- trial {trial['number']}, {trial['name']}: {trial['reason']}" for trial in failed
        ]
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return [path, *plots]


def _table(rows: list[Any], downstream: list[str], title: str) -> list[str]:
    lines = [f"## {title}", "", f"| trial | score | {' | '.join(downstream)} |"]
    lines.append("|---|---:|" + "---:|" * len(downstream))
    for row in rows:
        if row["score"] is None:
            continue
        cells = []
        for name in downstream:
            low, high = row["intervals"].get(name, (None, None))
            span = f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None else ""
            cells.append(f"{100 * row['scores'][name]:.1f}{span}")
        lines.append(f"| {row['name']} | {100 * row['score']:.1f} | {' | '.join(cells)} |")
    return [*lines, "", "In brackets: 90 % bootstrap interval of one training run.", ""]
