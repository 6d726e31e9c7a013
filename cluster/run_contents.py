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
# In which a run stays when it is told that it runs. A stage that failed or was stopped may be tried
# again, and a sweep be continued.
ENDED = {"sweep": (), "trial": ("FINISHED", "FAILED", "KILLED"), "stage": ("FINISHED",)}


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
    # Of curves, each with its `epoch` and, where it is known, the `time` when it was there.
    points: Sequence[Mapping[str, float]] = ()
    stages: Mapping[str, str] = field(default_factory=dict)  # role -> identity, for the note
    note: str = ""  # Markdown
    artifacts: Mapping[Path, str] = field(default_factory=dict)  # file -> hash of its content
    at: float = field(default_factory=time.time)  # seconds since the epoch
    began: float | None = None  # when the run did, where that was before `at`

    def followed_by(self, later: Contents) -> Contents:
        """What the run should hold after both."""
        late = later.status == "RUNNING" and self.status in ENDED[self.kind]
        return Contents(
            kind=self.kind,
            key=self.key,
            status=self.status if late else later.status,
            name=later.name or self.name,
            parameters={**self.parameters, **later.parameters},
            tags={**self.tags, **({} if late else later.tags)},
            metrics={**self.metrics, **later.metrics},
            points=[*self.points, *later.points],
            stages=later.stages or self.stages,
            note=later.note or self.note,
            artifacts={**self.artifacts, **later.artifacts},
            at=self.at if late else later.at,
            began=self.at if self.began is None else self.began,
        )


@dataclass(kw_only=True)
class Run:
    """What MLflow holds of one run."""

    run_id: str
    name: str
    status: str
    tags: dict[str, str]
    parameters: dict[str, str]
    metrics: dict[str, float]  # the latest value of each
    whole: bool = True  # tags, parameters and metrics are all there, not only what finds the run


def of_trial(
    number: int,
    state: str,
    metrics: Mapping[str, Any],
    stages: Mapping[str, str],
    reason: str | None,
    at: float,
) -> Contents:
    """A trial that has ended: complete, failed or pruned."""
    return Contents(
        kind="trial",
        key=str(number),
        status=STATUS[state],
        at=at,
        tags={
            "state": state,
            **{f"stage.{role}": identity for role, identity in stages.items()},
            **({"reason": reason} if reason else {}),
        },
        metrics=metrics,
        stages=stages,
        note=_note(state, metrics, reason),
    )


def of_stage(record: Mapping[str, Any], datasets: Sequence[str]) -> Contents:
    """A finished stage from its record as a dict; `datasets` are those it or its inputs name."""
    stage = record["stage"]
    realised = record["mixture"].get("realised", {})
    total = sum(realised.values())
    return Contents(
        kind="stage",
        key=record["identity"],
        status="FINISHED",
        at=record["finished_at"],
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
                f"trained_on.{name}": f"{source['content_hash']} ({_made_how(source)})"
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


def _made_how(source: Mapping[str, str]) -> str:
    leak = f", leak rate {source['leak_rate']}" if "leak_rate" in source else ""
    version = f", version: {source['version']}" if "version" in source else ""
    return f"humans: {source['humans']}{leak}{version}"


def of_unfinished_stage(identity: str, kind: str, state: str, reason: str) -> Contents:
    """A stage that failed, or was stopped because no trial wanted it any more."""
    return Contents(
        kind="stage",
        key=identity,
        status={"failed": "FAILED", "stopped": "KILLED"}[state],
        tags={"state": state, "stage_kind": kind, "reason": reason},
        note=_note(state, {}, reason),
    )


def missing_points(contents: Contents, last_epoch: float) -> list[tuple[str, float, int, int]]:
    """Key, value, time in ms and step of the points past `last_epoch`, in order, each once.

    Times come from the points, so that one which is sent twice, because MLflow took it without
    saying so, is the same metric, and MLflow keeps one.
    """
    by_epoch = {point["epoch"]: point for point in contents.points}
    start = contents.at if contents.began is None else contents.began
    return [
        (key, value, int(1000 * point.get("time", start)), int(epoch))
        for epoch, point in sorted(by_epoch.items())
        if epoch > last_epoch
        # `epoch` comes last: it says that the whole point is there
        for key, value in sorted(as_metrics(point).items(), key=lambda item: item[0] == "epoch")
        if key != "time"
    ]


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
        shown = settings.get("split", settings.get("view", "")).replace("_", " ")
        what = " ".join([", ".join(datasets), shown]).strip()
    return f"{kind} {what} · {identity[:6]}" if what else stage_title(kind, identity)


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
