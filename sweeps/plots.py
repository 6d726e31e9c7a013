"""Plots of a finished sweep: the score against what was searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweeps.search import RANDOM_WEIGHTS


def plot_scores(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Top-1 against the share of each source, and against the averaging coefficient."""
    aligned = [
        trial
        for trial in summary["trials"]
        if trial["state"] == "complete" and trial["config"]["align"]["epochs"]
    ]
    mixed = [trial for trial in aligned if trial["config"]["average"]["method"] == "none"]
    averaged = [trial for trial in aligned if trial not in mixed]
    sources = sorted({source for trial in mixed for source in _shares(trial)})
    plots = [
        _plot(summary, mixed, _share_of(source), f"share of {source}", folder)
        for source in (sources if len(sources) > 2 else sources[-1:])  # two mirror each other
    ]
    if len(averaged) > 1:
        plots.append(_plot(summary, averaged, _coefficient, "averaging coefficient", folder))
    return plots


def _shares(trial: Mapping[str, Any]) -> dict[str, Any]:
    shares: dict[str, Any] = trial["config"]["align"]["mixture"]["shares"]
    return shares


def _share_of(source: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda trial: float(_shares(trial).get(source, 0))


def _coefficient(trial: Mapping[str, Any]) -> float:
    return float(trial["config"]["average"]["coefficient"])


def _plot(
    summary: Mapping[str, Any],
    trials: list[Any],
    x: Callable[[Mapping[str, Any]], float],
    label: str,
    folder: Path,
) -> Path:
    import matplotlib

    matplotlib.use("Agg")  # no screen
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    trials = sorted(trials, key=x)
    xs = [x(trial) for trial in trials]
    for i, name in enumerate(summary["downstream"]):
        means = [100 * trial["scores"][name] for trial in trials]
        spans = [trial["intervals"][name] for trial in trials]
        errors = [
            [max(0.0, mean - 100 * low) for mean, (low, _) in zip(means, spans, strict=True)],
            [max(0.0, 100 * high - mean) for mean, (_, high) in zip(means, spans, strict=True)],
        ]
        axes.errorbar(xs, means, errors, fmt="o", capsize=2, label=name, color=f"C{i}")
    axes.plot(xs, [100 * t["score"] for t in trials], "kD", label="score")
    random = [t for t in summary["trials"] if t["name"] == RANDOM_WEIGHTS and t["score"]]
    if random:
        axes.axhline(100 * random[0]["score"], color="grey", ls=":", label="score, random weights")
    axes.set(xlabel=label, ylabel="top-1 on the selection split, %", title=summary["sweep"])
    axes.set_xlim(-0.05, 1.05)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    axes.grid(alpha=0.3)
    path = folder / f"{label.replace(' ', '_')}.png"
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path
