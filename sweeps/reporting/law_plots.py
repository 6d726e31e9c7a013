"""Plots of what the laws and the merges say: score against share, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.reporting.plots import finish, new_axes, save

MEAN = "black"


def plot_laws(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Of two sources one plot; of more a slice along each, of three a triangle of the mean too."""
    law = summary["law"]
    if law is None or law["reason"]:
        return []
    if len(law["sources"]) == 2:
        return [_plot_along(summary, law["sources"][0], law["curve"], folder)]
    plots = [
        _plot_along(summary, source, law["slices"][source], folder) for source in law["slices"]
    ]
    if len(law["sources"]) == 3:
        plots.insert(0, _plot_triangle(summary, folder))
    return plots


def _plot_along(
    summary: Mapping[str, Any], source: str, curve: Sequence[Mapping[str, Any]], folder: Path
) -> Path:
    """A band and the trials for each dataset, and for their weighted mean."""
    law = summary["law"]
    figure, axes = new_axes()
    xs = [point["shares"][source] for point in curve]
    names = [*law["weights"], *(["mean"] if len(law["weights"]) > 1 else [])]
    whole = len(law["sources"]) == 2  # else the trials lie off the slice
    for number, name in enumerate(names):
        colour = MEAN if name == "mean" else f"C{number}"
        rows = [point["mean"] if name == "mean" else point["scores"][name] for point in curve]
        mean, low, high = (100 * np.array(rows)).T
        axes.plot(xs, mean, color=colour, label=name)
        axes.fill_between(xs, low, high, color=colour, alpha=0.15, lw=0)
        if whole:
            scores = [100 * _score(law, trial, name) for trial in law["trials"]]
            at = [trial["shares"][source] for trial in law["trials"]]
            axes.plot(at, scores, "D" if name == "mean" else "o", color=colour, ms=4)
    axes.axvline(law["proposed"]["shares"][source], color="grey", ls="--", label="proposed")
    merges = summary["merge_proxy"]
    if whole and merges is not None and merges["curve"]:
        at = [point["shares"][source] for point in merges["curve"]]
        means = [100 * point["mean"] for point in merges["curve"]]
        axes.plot(at, means, ":", color=MEAN, marker="x", ms=4, label="mean, merged weights")
    others = "" if whole else ", the others as proposed"
    return finish(
        figure,
        axes,
        summary,
        f"share of {source}{others}",
        folder / f"law_{source}.png",
    )


def _plot_triangle(summary: Mapping[str, Any], folder: Path) -> Path:
    """The mean over all mixes of three sources: the corners are one source alone."""
    law = summary["law"]
    figure, axes = new_axes()
    mixes = [point["shares"] for point in law["curve"]]
    x, y = _in_triangle(law, mixes)
    mean = [100 * point["mean"][0] for point in law["curve"]]
    drawn = axes.tricontourf(x, y, mean, levels=12)
    figure.colorbar(drawn, label="mean top-1 on the selection split, %")
    axes.plot(*_in_triangle(law, [trial["shares"] for trial in law["trials"]]), "ko", ms=4)
    axes.plot(*_in_triangle(law, [law["proposed"]["shares"]]), "r*", ms=14)
    corners = np.eye(3)
    for name, corner, aligned in zip(
        law["sources"], corners, ("right", "left", "center"), strict=True
    ):
        (at_x,), (at_y,) = _in_triangle(law, [dict(zip(law["sources"], corner, strict=True))])
        axes.annotate(name, (at_x, at_y), ha=aligned, va="bottom" if at_y else "top")
    axes.set(title=f"{summary['sweep']}: trials, and the proposed mix (star)")
    axes.set_axis_off()
    axes.set_aspect("equal")
    return save(figure, folder / "law_triangle.png")


def _in_triangle(
    law: Mapping[str, Any], mixes: Sequence[Mapping[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    shares = np.array([[mix[source] for source in law["sources"]] for mix in mixes])
    return shares[:, 1] + shares[:, 2] / 2, shares[:, 2] * np.sqrt(3) / 2


def _score(law: Mapping[str, Any], trial: Mapping[str, Any], name: str) -> float:
    if name != "mean":
        return float(trial["scores"][name])
    return sum(weight * trial["scores"][each] for each, weight in law["weights"].items())
