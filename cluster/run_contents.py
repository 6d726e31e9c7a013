"""What a run in MLflow should hold: names, parameters, metrics, notes. Plain values, no MLflow."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARAMETER_LIMIT, TAG_LIMIT, KEY_LIMIT = 6000, 8000, 250  # MLflow's, in characters
STATUS = {"complete": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What one run should hold. `kind` and `key` find it again; `name` None keeps the name."""

    kind: str  # sweep, trial or stage
    key: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    name: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    points: Sequence[Mapping[str, float]] = ()  # of curves, each with its `epoch`
    stages: Mapping[str, str] = field(default_factory=dict)  # role -> identity, for the note
    note: str = ""  # Markdown
    artifacts: Mapping[Path, str] = field(default_factory=dict)  # file -> hash of its content
    at: float = field(default_factory=time.time)  # seconds since the epoch


def of_trial(
    number: int,
    state: str,
    metrics: Mapping[str, Any],
    stages: Mapping[str, str],
    reason: str | None,
) -> Contents:
    """A trial that has ended: complete, failed or pruned."""
    return Contents(
        kind="trial",
        key=str(number),
        status=STATUS[state],
        tags={
            "state": state,
            **{f"stage.{role}": identity for role, identity in stages.items()},
            **({"reason": reason} if reason else {}),
        },
        metrics=metrics,
        stages=stages,
        note=_note(state, metrics, reason),
    )


def of_stage(record: Mapping[str, Any], inherited: Sequence[str]) -> Contents:
    """A finished stage from its record as a dict; `inherited`: the datasets its inputs name."""
    stage = record["stage"]
    datasets = sorted(stage["data"]) or sorted(set(inherited))
    realised = record["mixture"].get("realised", {})
    total = sum(realised.values())
    return Contents(
        kind="stage",
        key=record["identity"],
        status="FINISHED",
        name=_stage_name(record["identity"], stage, datasets),
        parameters={
            **stage["settings"],
            "inputs": stage["inputs"],
            "code_version": stage["code_version"],
            "requested": record["mixture"].get("requested", {}),
        },
        tags={
            "state": "complete",
            "stage_kind": stage["kind"],
            "datasets": ", ".join(datasets),
            **{f"data.{name}": content_hash for name, content_hash in stage["data"].items()},
            **{
                f"trained_on.{name}": f"{source['content_hash']} (humans: {source['humans']})"
                for name, source in record["trained_on"].items()
            },
            **{
                f"replaced.{name}": json.dumps(paths)
                for name, paths in record["mixture"].get("replaced", {}).items()
                if paths
            },
        },
        metrics={
            **record["metrics"],
            "cost": record["cost"],
            "attempts": record["attempts"],
            "realised_share": {name: count / total for name, count in realised.items() if total},
            "repetition": record["mixture"].get("repetition", {}),
        },
        stages=stage["inputs"],
        note=_note("complete", record["metrics"]),
    )


def of_failed_stage(identity: str, kind: str, reason: str) -> Contents:
    return Contents(
        kind="stage",
        key=identity,
        status="FAILED",
        tags={"state": "failed", "stage_kind": kind, "reason": reason},
        note=_note("failed", {}, reason),
    )


def stage_title(kind: str, identity: str) -> str:
    """The name of a stage's run before its record says more."""
    return f"{kind} · {identity[:6]}"


def _stage_name(identity: str, stage: Mapping[str, Any], datasets: Sequence[str]) -> str:
    kind, settings = stage["kind"], stage["settings"]
    shares = settings.get(kind, {}).get("mixture", {}).get("shares")
    if shares:
        what = " + ".join(f"{name} {share}" for name, share in shares.items())
    elif kind == "average":
        what = " ".join(str(value) for value in settings.values())
    else:
        what = " ".join([", ".join(datasets), settings.get("split", "")]).strip()
    return f"{kind} {what} · {identity[:6]}" if what else stage_title(kind, identity)


def trials_view(datasets: Sequence[str], varied: Sequence[str]) -> dict[str, Any]:
    """MLflow's table of the trials, best first."""
    columns = [
        "metrics.`score`",
        *(f"metrics.`accuracy/{name}`" for name in datasets),
        *(f"params.`{key}`" for key in varied),
        "tags.`state`",
    ]
    return _view("trial", "metrics.`score`", columns)


def stages_view() -> dict[str, Any]:
    """MLflow's table of the stages, newest first."""
    scores = ("accuracy", "top5", "mean_class_accuracy", "knn_accuracy")
    metrics = ("loss", *scores, "cost/device_seconds", "cost/clips")
    columns = [*(f"metrics.`{key}`" for key in metrics), "tags.`state`"]
    return _view("stage", "attributes.`Created`", columns)


def _view(kind: str, order_by: str, columns: Sequence[str]) -> dict[str, Any]:
    """What "Share" in MLflow's runs table would keep; columns are as wide as their names."""
    return {
        "searchFilter": f'tags.kind = "{kind}"',
        "orderByKey": order_by,
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", "attributes.`Date`", *columns],
        "columnWidths": {
            "attributes.`Run Name`": 300,
            **{column: max(90, 7 * len(column) - 20) for column in columns},
        },
    }


def as_parameters(nested: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys and texts, as long as MLflow takes them; what is cut ends with an ellipsis."""
    return {
        _key(".".join(path)): _cut(
            value if isinstance(value, str) else json.dumps(value, default=str), PARAMETER_LIMIT
        )
        for path, value in _leaves(nested)
    }


def as_metrics(nested: Mapping[str, Any]) -> dict[str, float]:
    """Keys joined by slashes, and finite numbers; anything else is no metric and is left out."""
    return {
        _key("/".join(path)): float(value)
        for path, value in _leaves(nested)
        if isinstance(value, int | float) and math.isfinite(value)
    }


def as_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {_key(key): _cut(str(value), TAG_LIMIT) for key, value in tags.items()}


def _leaves(nested: Mapping[str, Any], *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, *above, str(key))
        else:
            yield (*above, str(key)), value


def _note(state: str, metrics: Mapping[str, Any], reason: str | None = None) -> str:
    told = [f"**{state}**", *(f"{key} {value:.4g}" for key, value in as_metrics(metrics).items())]
    return " · ".join(told) + (f"\n\n```\n{reason}\n```" if reason else "")


def _key(key: str) -> str:
    return _cut(re.sub(r"[^\w./ :-]", "_", key), KEY_LIMIT, "_")


def _cut(text: str, limit: int, end: str = "…") -> str:
    return text if len(text) <= limit else text[: limit - len(end)] + end
