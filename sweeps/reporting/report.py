"""The report for a person: Markdown, the same as one HTML page, plots; the recommended weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.planning.costs import priced
from sweeps.planning.storage_room import left_out
from sweeps.reporting.bias_report import bias_lines, plot_bias
from sweeps.reporting.law_plots import plot_laws
from sweeps.reporting.law_report import law_lines, merge_lines
from sweeps.reporting.pareto import pareto_lines, plot_pareto
from sweeps.reporting.plots import plot_parallel, plot_scores
from sweeps.reporting.report_page import html_page
from sweeps.reporting.report_tables import (
    coefficient_lines,
    ended_lines,
    importance_table,
    method_table,
    mixture_table,
    score_table,
    span,
)
from sweeps.reporting.sharing import alone_seconds, sharing_lines
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
    """report.md and its plots, and both as one page, report.html. Returns the files."""
    plots = plot_scores(summary, folder)
    fronts, parallel = plot_pareto(summary, folder), plot_parallel(summary, folder)
    laws, bias = plot_laws(summary, folder), plot_bias(summary, folder)
    markdown = "\n".join(_lines(summary, plan_lines, plots, fronts, parallel, laws, bias)) + "\n"
    text, page = folder / "report.md", folder / "report.html"
    text.write_text(markdown)
    page.write_text(html_page(markdown, summary["sweep"], folder))
    return [text, page, *plots, *fronts, *parallel, *laws, *bias]


def _lines(
    summary: Mapping[str, Any],
    plan_lines: list[str],
    plots: list[Path],
    fronts: list[Path],
    parallel: list[Path],
    laws: list[Path],
    bias: list[Path],
) -> list[str]:
    """The report from its answer down to how it came about."""
    trials, downstream = summary["trials"], summary["downstream"]
    on_report = [t["report"] | {"name": t["name"]} for t in trials if t["report"]]
    without = left_out(summary["storage"])
    return [
        f"# {summary['sweep']}",
        "",
        summary["question"],
        "",
        *_so_far(summary["counts"]),
        *_paragraphs([without] if without else []),
        *_answer(summary),
        *_figures(plots),
        *coefficient_lines(summary["curves"]),
        *law_lines(summary),
        *_figures(laws),
        *merge_lines(summary),
        *score_table(trials, downstream, "Selection split, top-1 in %"),
        *score_table(on_report, downstream, "Report split, read once after the search, top-1 in %"),
        *method_table(on_report or trials, downstream),
        *bias_lines(summary),
        *_figures(bias),
        *pareto_lines(summary),
        *_figures(fronts),
        *importance_table(summary),
        *_figures(parallel),
        *sharing_lines(summary),
        *mixture_table(summary),
        *ended_lines(trials, "failed", "Failed"),
        *ended_lines(trials, "pruned", "Stopped early"),
        *(["## The plan it began with", "", *_paragraphs(plan_lines)] if plan_lines else []),
    ]


def _so_far(counts: Mapping[str, int]) -> list[str]:
    ended = counts["complete"] + counts["failed"] + counts["pruned"]
    if not counts["to_do"]:
        return []
    return [
        f"**So far**: {ended} of {ended + counts['to_do']} trials have ended; this page is written "
        "again as more do.",
        "",
    ]


def _answer(summary: Mapping[str, Any]) -> list[str]:
    """The recommendation in a sentence or two: what, how good, how sure, at what price."""
    best = summary["recommended"]
    if best is None:
        return ["> No trial was completed, so nothing is recommended.", ""]
    report = best["report"]
    trial = next(trial for trial in summary["trials"] if trial["number"] == best["trial"])
    return [
        f"> **Recommended: trial {best['trial']}, {best['name']}** with a score of "
        f"{best['score']:.1%}{span(trial['interval'])} on the selection split"
        + (
            f" and {report['score']:.1%}{span(report['interval'])} on the report split"
            if report
            else ""
        )
        + f".{_by_the_laws(summary)} Trained alone it costs "
        f"{priced(alone_seconds(trial), best['money'])} of device time. "
        f"Weights: `{best['weights']['file']}`.",
        "",
        *_no_difference(summary),
    ]


def _by_the_laws(summary: Mapping[str, Any]) -> str:
    """What the laws over the mix expect of the recommended one; empty where they say nothing."""
    law = summary["law"]
    if law is None or law["reason"]:
        return ""
    number = summary["recommended"]["trial"]
    mixes = [each["shares"] for each in law["trials"] if each["number"] == number]
    points = [each for each in law["curve"] if each["shares"] in mixes]
    if not points:
        return ""
    mean, *interval = points[0]["mean"]
    return f" Of its mix the laws expect {mean:.1%}{span(interval)} on the selection split."


def _no_difference(summary: Mapping[str, Any]) -> list[str]:
    scores = [trial["score"] for trial in summary["trials"] if trial["score"] is not None]
    if len(scores) < 2 or len(set(scores)) > 1:
        return []
    return [
        f"**All {len(scores)} complete trials have the same score**: nothing that was varied shows "
        "in it, and the first of them is recommended. Look for a downstream dataset that is too "
        "easy, too hard or too small.",
        "",
    ]


def _figures(plots: list[Path]) -> list[str]:
    return [line for plot in plots for line in (f"![{plot.stem}]({plot.name})", "")]


def _paragraphs(lines: list[str]) -> list[str]:
    return [part for line in lines for part in (line, "")]
