"""The tables of the report, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.importance import ENOUGH_TRIALS, importances
from trainables.stage import TRUNKS

SHORT = {"probe": "probe", "augmented_probe": "LP", "finetune": "FT"}


def score_table(rows: list[Any], downstream: list[str], title: str) -> list[str]:
    lines = [f"## {title}", "", f"| trial | score | {' | '.join(downstream)} |"]
    lines.append("|---|---:|" + "---:|" * len(downstream))
    for row in rows:
        if row["score"] is None:
            continue
        cells = [
            f"{100 * row['scores'][name]:.1f}{span(row['intervals'].get(name))}"
            for name in downstream
        ]
        score = f"{100 * row['score']:.1f}{span(row['interval'])}"
        lines.append(f"| {cell(row['name'])} | {score} | {' | '.join(cells)} |")
    return [*lines, "", "*In brackets: 90 % bootstrap interval of one training run.*", ""]


def span(interval: Any) -> str:
    return "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def cell(text: str) -> str:
    """`text` for a table, whose columns a bar would end."""
    return text.replace("|", "\\|")


def coefficient_lines(curves: list[Any]) -> list[str]:
    """A line for each pair of weights: which coefficient between them a probe likes best."""
    lines = []
    for number, curve in enumerate(curves, start=1):
        means = {point["coefficient"]: point["mean"] for point in curve["points"]}
        if means:
            best = max(means, key=lambda coefficient: means[coefficient])
            ends = " and ".join(f"`{identity[:6]}`" for identity in curve["between"].values())
            lines.append(
                f"Averaging curve {number}, between weights {ends}: the probes' mean on the "
                f"selection split is highest at coefficient {best:g}, {100 * means[best]:.1f}."
            )
    return [*lines, ""] if lines else []


def method_table(rows: list[Any], downstream: list[str]) -> list[str]:
    """PPMA's table: a row a method; for each dataset and in the mean, every way it was scored.

    Empty where there is but one way, for then the tables above it say all.
    """
    rows = [row for row in rows if row["score"] is not None]
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["results"]))
    if len(kinds) < 2:
        return []
    columns = [f"{name} {SHORT[kind]}" for name in [*downstream, "mean"] for kind in kinds]
    lines = ["## Methods, top-1 in %", "", f"| method | {' | '.join(columns)} |"]
    lines.append("|---|" + "---:|" * len(columns))
    for row in rows:
        by_kind = {
            kind: [
                row["results"].get(kind, {}).get(name, {}).get("accuracy") for name in downstream
            ]
            for kind in kinds
        }
        means = {
            kind: None if None in values else sum(values) / len(values)
            for kind, values in by_kind.items()
        }
        cells = [by_kind[kind][place] for place in range(len(downstream)) for kind in kinds]
        shown = ["" if x is None else f"{100 * x:.1f}" for x in [*cells, *means.values()]]
        lines.append(f"| {cell(row['name'])} | {' | '.join(shown)} |")
    return [*lines, "", "LP: the head trained with augmentation; FT: all weights trained.", ""]


def importance_table(summary: Mapping[str, Any]) -> list[str]:
    """How much of what sets the best trials apart each setting explains."""
    tried = [
        trial
        for trial in summary["trials"]
        if trial["score"] is not None and trial["origin"] != "soup" and trial["varied"]
    ]
    found = importances([t["varied"] for t in tried], [t["score"] for t in tried])
    if len(found) < 2:
        return []
    lines = ["## Which settings matter", ""]
    if len(tried) < ENOUGH_TRIALS:
        lines += [
            f"**Read with care**: these are {len(tried)} trials; with fewer than {ENOUGH_TRIALS} "
            "chance decides most of it.",
            "",
        ]
    lines += ["| setting | importance |", "|---|---:|"]
    lines += [f"| `{path}` | {value:.0%} |" for path, value in found.items()]
    return [*lines, "", "*PED-ANOVA: what sets the best quarter of the trials apart.*", ""]


def mixture_table(summary: Mapping[str, Any]) -> list[str]:
    """What each training run was asked to draw and what came, clip by clip."""
    stages = {i: s for trial in summary["trials"] for i, s in trial["stages"].items()}
    rows = [
        f"| {stage['kind']} `{identity[:6]}` | {cell(source)} | {100 * float(share):g} % "
        f"| {realised:,} | {100 * realised / sum(mixture['realised'].values()):.2f} % "
        f"| {mixture['repetition'].get(source, 0):.2f} "
        f"| {sum(mixture['replaced'].get(source, {}).values())} |"
        for identity, stage in stages.items()
        if stage["kind"] in TRUNKS.values() and (mixture := stage["mixture"])
        for source, share in mixture["requested"].items()
        for realised in [mixture["realised"][source]]
    ]
    if not rows:
        return []
    return [
        "## Mixtures: asked and drawn",
        "",
        "| stage | source | asked | clips | drawn | times each | replaced |",
        "|---|---|---:|---:|---:|---:|---:|",
        *rows,
        "",
        "*Times each: clips drawn over clips that exist. Replaced: could not be read.*",
        "",
    ]


def ended_lines(trials: list[Any], state: str, title: str) -> list[str]:
    """The trials that failed, or were stopped, with their reasons."""
    ended = [trial for trial in trials if trial["state"] == state]
    if not ended:
        return []
    lines = [f"- trial {t['number']}, {t['name']}: {t['reason']}" for t in ended]
    return [f"## {title}", "", *lines, ""]
