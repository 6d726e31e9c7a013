"""The Pareto front of a search with several objectives: the trials that no other beats in all."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from sweeps.reporting.plots import new_axes, save
from sweeps.reporting.report_tables import cell
from sweeps.searching.objectives import directions, fronts, gains, name_of
from sweeps.searching.search import Search


def pareto(search: Search) -> dict[str, Any] | None:
    """For summary.json; None where there is but one objective.

    `points`: of each complete trial by its number, a value an objective; `front`: those numbers
    that no other trial beats in all objectives, the best of the first objective first.
    """
    objectives = search.objectives
    if len(objectives) < 2:
        return None
    known = {record.number: search.objectives_of(record) for record in search.records}
    points = {number: values for number, values in known.items() if values is not None}
    heights = {number: gains(objectives, values) for number, values in points.items()}
    ranks = dict(zip(heights, fronts(list(heights.values())), strict=True))
    front = [number for number, rank in ranks.items() if rank == 0]
    return {
        "objectives": {
            name_of(objective): direction
            for objective, direction in zip(objectives, directions(objectives), strict=True)
        },
        "points": {str(number): list(values) for number, values in points.items()},
        "front": sorted(front, key=lambda number: (-heights[number][0], number)),
    }


def pareto_lines(summary: Mapping[str, Any]) -> list[str]:
    """The front as a table."""
    found = summary["pareto"]
    if found is None or not found["front"]:
        return []
    names = {trial["number"]: trial["name"] for trial in summary["trials"]}
    objectives = list(found["objectives"])
    lines = ["## Pareto front", "", f"| trial | {' | '.join(map(cell, objectives))} |"]
    lines.append("|---|" + "---:|" * len(objectives))
    for number in found["front"]:
        values = zip(objectives, found["points"][str(number)], strict=True)
        shown = " | ".join(_shown(name, value) for name, value in values)
        lines.append(f"| {number}, {cell(names[number])} | {shown} |")
    return [
        *lines,
        "",
        "Trials that no other beats in all objectives. gpu_hours are those of all stages of a "
        "trial, as if it shared none. The recommendation goes by the score alone.",
        "",
    ]


def plot_pareto(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Each pair of objectives: all complete trials, and the front of all objectives."""
    found = summary["pareto"]
    if found is None or len(found["points"]) < 2:
        return []
    best = (summary["recommended"] or {}).get("trial")
    plots = []
    for x, y in combinations(range(len(found["objectives"])), 2):
        label_x, label_y = (_label(list(found["objectives"])[place]) for place in (x, y))
        figure, axes = new_axes()
        for number, values in found["points"].items():
            on_front = int(number) in found["front"]
            colour, marker = ("C0" if on_front else "0.7"), ("*" if int(number) == best else "o")
            axes.plot(
                values[x], values[y], marker, color=colour, ms=11 if marker == "*" else 5, zorder=3
            )
            if on_front:
                place = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": "small"}
                axes.annotate(number, (values[x], values[y]), **place)
        front = sorted(found["points"][str(number)] for number in found["front"])
        front.sort(key=lambda values: values[x])
        axes.plot([v[x] for v in front], [v[y] for v in front], "C0:", lw=1)
        title = f"{summary['sweep']}: Pareto front in blue, the recommended trial a star"
        axes.set(xlabel=label_x, ylabel=label_y, title=title)
        axes.grid(alpha=0.3)
        plots.append(save(figure, folder / f"pareto_{x}_{y}.png"))
    return plots


def _label(objective: str) -> str:
    return {"gpu_hours": "GPU-hours alone", "score": "score, selection split"}.get(
        objective, f"mean top-1, {objective}"
    )


def _shown(objective: str, value: float) -> str:
    return f"{value:.3g}" if objective == "gpu_hours" else f"{100 * value:.1f} %"
