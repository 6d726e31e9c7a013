"""What the trials of a finished sweep shared: the tree of their stages, and what sharing saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.planning.costs import duration
from sweeps.planning.stage_facts import SHOWN

MOST_CHILDREN = 12  # of one stage that are listed one by one

Stages = dict[str, dict[str, Any]]  # identity -> a stage of summary.json, with its `trials`


def sharing_lines(summary: Mapping[str, Any]) -> list[str]:
    """Markdown: how much sharing saved, then what hangs on what."""
    stages = _stages(summary)
    if not stages:
        return []
    return [
        "## Stages: what was shared, what it saved",
        "",
        _saved(stages, summary["trials"]),
        "",
        *_tree(stages),
        "",
    ]


def alone_seconds(trial: Mapping[str, Any]) -> float:
    """Device-seconds of a trial of summary.json if it shared nothing."""
    return sum(stage["alone"].get("device_seconds", 0.0) for stage in trial["stages"].values())


def _stages(summary: Mapping[str, Any]) -> Stages:
    stages: Stages = {}
    for trial in sorted(summary["trials"], key=lambda trial: trial["number"]):
        for identity, stage in trial["stages"].items():
            stages.setdefault(identity, {**stage, "trials": []})["trials"].append(trial["number"])
    return stages


def _saved(stages: Stages, trials: Sequence[Mapping[str, Any]]) -> str:
    uses = [stage["alone"] for trial in trials for stage in trial["stages"].values()]
    costs = [stage["cost"] for stage in stages.values()]
    spent, clips = (
        sum(cost.get(what, 0.0) for cost in costs) for what in ("device_seconds", "clips")
    )
    alone, clips_alone = (
        sum(cost.get(what, 0.0) for cost in uses) for what in ("device_seconds", "clips")
    )
    ratio = f" ({alone / spent:.1f} times as much)" if spent else ""
    return (
        f"{len(stages)} stages served {len(uses)} uses. They took **{duration(spent)}** of device "
        f"time and {clips:,.0f} clips; each trial by itself would have taken **{duration(alone)}**"
        f"{ratio} and {clips_alone:,.0f} clips."
    )


def _tree(stages: Stages) -> list[str]:
    """A nested list. A run hangs on the trunk that it branches off; any other stage of two inputs
    hangs on the first of them and names the other."""
    shown = {identity: stage for identity, stage in stages.items() if stage["kind"] in SHOWN}
    children: dict[str | None, list[str]] = {}
    for identity, stage in shown.items():
        inputs = stage["inputs"]
        before = [each for each in (inputs.get("trunk"), *inputs.values()) if each in shown]
        children.setdefault(before[0] if before else None, []).append(identity)

    def branch(parent: str | None, depth: int) -> list[str]:
        ours = children.get(parent, [])
        ours = sorted(ours, key=lambda identity: -len(shown[identity]["trials"]))
        lines = []
        for identity in ours[:MOST_CHILDREN]:
            lines.append(f"{'  ' * depth}- {_node(identity, shown, parent)}")
            lines += branch(identity, depth + 1)
        if rest := ours[MOST_CHILDREN:]:
            trials = len({n for identity in rest for n in shown[identity]["trials"]})
            lines.append(f"{'  ' * depth}- and {len(rest)} more, of {trials} trials")
        return lines

    return branch(None, 0)


def _node(identity: str, shown: Stages, parent: str | None) -> str:
    stage = shown[identity]
    others = [each for each in stage["inputs"].values() if each in shown and each != parent]
    if parent is not None and parent == stage["inputs"].get("trunk"):
        others = []  # the trunk starts from the same, and hangs on it
    beside = "".join(f", with `{each[:6]}`" for each in others)
    seconds, trials = stage["cost"].get("device_seconds", 0.0), stage["trials"]
    used = f"trial {trials[0]}" if len(trials) == 1 else f"**{len(trials)} trials**"
    what = f" {stage['what']}" if stage["what"] else ""
    return f"{stage['kind']} `{identity[:6]}`{what}{beside}: {duration(seconds)}, {used}"
