"""The report for a person: tables and plots as Markdown; the recommended weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.plots import plot_scores
from trainables.stage_store import StageStore


def write_weights(summary: Mapping[str, Any], store: StageStore, folder: Path) -> list[Path]:
    """The recommended trial's weights, with what they were trained on in their metadata.

    One file; where the average was learned for each downstream dataset, one more for each.
    """
    from safetensors.numpy import load_file, save_file

    best = summary["recommended"]
    if best is None:
        return []
    metadata = {
        "sweep": summary["sweep"],
        "trial": str(best["trial"]),
        "config": json.dumps(best["config"]),
        "trained_on": json.dumps(best["trained_on"]),
        "allow_real_humans": json.dumps(summary["allow_real_humans"]),
    }
    files = []
    for stage, file in (each.values() for each in [best["weights"], *best["adapted"].values()]):
        partial = folder / f".{file}.tmp"
        weights = load_file(store.file(stage, "weights"))
        save_file(weights, partial, {**metadata, "stage": stage})
        files.append(partial.replace(folder / file))
    return files


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
            + f". Weights: `{best['weights']['file']}`.",
            "",
        ]
    else:
        lines += ["No trial was completed, so nothing is recommended.", ""]
    trials = summary["trials"]
    lines += _table(trials, downstream, "Selection split, top-1 in %")
    on_report = [t["report"] | {"name": t["name"]} for t in trials if t["report"]]
    lines += _table(on_report, downstream, "Report split, read once after the search, top-1 in %")
    lines += method_table(on_report or trials, downstream)
    lines += _best_coefficients(summary["curves"])
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


def _best_coefficients(curves: list[Any]) -> list[str]:
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


SHORT = {"probe": "probe", "augmented_probe": "LP", "finetune": "FT"}


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
        lines.append(f"| {row['name']} | {' | '.join(shown)} |")
    return [*lines, "", "LP: the head trained with augmentation; FT: all weights trained.", ""]
