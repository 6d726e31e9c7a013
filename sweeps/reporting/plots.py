"""Plots of a finished sweep: the score against what was searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.searching.given import RANDOM_WEIGHTS
from sweeps.searching.trial_names import settings_in_words

MOST_LINES = 8  # of trials that are alike in all else


def plot_scores(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Top-1 against the share of each source, the averaging coefficient, the scale of views."""
    complete = [trial for trial in summary["trials"] if trial["state"] == "complete"]
    aligned = [trial for trial in complete if trial["config"]["align"]["epochs"]]
    mixed = [trial for trial in complete if trial["shares"]]
    viewed = [trial for trial in complete if _epochs_of_views(trial)]
    averaged = [t for t in aligned if t["config"]["average"]["method"] == "interpolate"]
    sources = sorted({source for trial in mixed for source in trial["shares"]})
    # Of two one share tells the mix, and the other mirrors it.
    shown, setting = (sources, None) if len(sources) > 2 else (sources[-1:], "shares")
    plots = [
        _plot(summary, mixed, _share_of(source), setting, f"share of {source}", folder)
        for source in shown
    ]
    if len(averaged) > 1:
        label = "averaging coefficient"
        plots.append(_plot(summary, averaged, _coefficient, "coefficient", label, folder))
    if len({_view_scale(trial) for trial in viewed}) > 1:
        label = "scale of generator views"
        plots.append(_plot(summary, viewed, _view_scale, "view_scale", label, folder))
    plots += [
        _plot_curve(summary, curve, number, folder)
        for number, curve in enumerate(summary["curves"], start=1)
        if len(curve["points"]) > 1
    ]
    return plots


def _plot_curve(
    summary: Mapping[str, Any], curve: Mapping[str, Any], number: int, folder: Path
) -> Path:
    """Top-1 against the coefficient between two sets of weights that some trials averaged."""
    xs = [point["coefficient"] for point in curve["points"]]
    figure, axes = new_axes()
    for name in summary["downstream"]:
        ys = [100 * point["scores"][name] for point in curve["points"]]
        axes.plot(xs, ys, "o-", ms=3, label=name)
    axes.plot(xs, [100 * point["mean"] for point in curve["points"]], "kD-", ms=3, label="mean")
    ends = [identity[:6] for identity in curve["between"].values()]
    return finish(
        figure,
        axes,
        summary,
        f"coefficient from {ends[0]} to {ends[1]}",
        folder / f"averaging_curve_{number}.png",
    )


def _share_of(source: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda trial: trial["shares"].get(source, 0.0)


def _epochs_of_views(trial: Mapping[str, Any]) -> int:
    contrastive = trial["config"].get("contrastive")  # not there in a sweep of before
    return contrastive["epochs"] if contrastive else 0


def _view_scale(trial: Mapping[str, Any]) -> float:
    scale: float = trial["config"]["contrastive"]["view_scale"]
    return scale


def _coefficient(trial: Mapping[str, Any]) -> float:
    return float(trial["config"]["average"]["coefficient"])


def _plot(
    summary: Mapping[str, Any],
    trials: list[Any],
    x: Callable[[Mapping[str, Any]], float],
    setting: str | None,
    label: str,
    folder: Path,
) -> Path:
    """`setting`: the end of its path in the space; None where `x` does not tell its value."""
    from matplotlib import colormaps

    figure, axes = new_axes()
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
    lines = _alike_in_all_else(trials, x, setting) if setting else {}
    if 1 < len(lines) <= MOST_LINES:
        shades = colormaps["viridis"](np.linspace(0, 1, len(lines)))
        for shade, (name, alike) in zip(shades, lines.items(), strict=True):
            scores = [100 * trial["score"] for trial in alike]
            axes.plot([x(each) for each in alike], scores, "D-", color=shade, label=name)
    random = [t for t in summary["trials"] if t["name"] == RANDOM_WEIGHTS and t["score"]]
    if random:
        axes.axhline(100 * random[0]["score"], color="grey", ls=":", label="score, random weights")
    return finish(figure, axes, summary, label, folder / f"{label.replace(' ', '_')}.png")


def _alike_in_all_else(
    trials: list[Any], x: Callable[[Mapping[str, Any]], float], setting: str
) -> dict[str, list[Any]]:
    """By their other settings in words, sorted: those at three places of `x` or more."""
    found: dict[str, list[Any]] = {}
    for trial in trials:
        varied = trial["varied"]
        others = {path: v for path, v in varied.items() if path.split(".")[-1] != setting}
        if others and len(others) == len(varied) - 1:
            found.setdefault(settings_in_words(others), []).append(trial)
    lines = {name: alike for name, alike in found.items() if len({x(t) for t in alike}) > 2}
    return dict(sorted(lines.items()))


def new_axes(width: float = 6.5) -> tuple[Any, Any]:
    """A figure, width x 4 inches, and its axes."""
    import matplotlib

    matplotlib.use("Agg")  # no screen
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, 4), layout="constrained")


def finish(figure: Any, axes: Any, summary: Mapping[str, Any], label: str, path: Path) -> Path:
    axes.set(xlabel=label, ylabel="top-1 on the selection split, %", title=summary["sweep"])
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.05), max(high, 1.05))  # all shares and coefficients, and wider scales
    columns = 4 if len(axes.get_legend_handles_labels()[0]) <= 4 else 3
    figure.legend(loc="outside lower center", ncols=columns, fontsize="small")
    axes.grid(alpha=0.3)
    return save(figure, path)


def save(figure: Any, path: Path) -> Path:
    """Write the figure as PNG and let go of it. Returns `path`."""
    from matplotlib import pyplot

    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def plot_parallel(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """A line a trial through all that was varied, to its score; no plot of fewer than two axes."""
    trials = [t for t in summary["trials"] if t["score"] is not None and t["varied"]]
    rows = [_coordinates(trial) for trial in trials]
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if len({row.get(name) for row in rows}) > 1]
    if len(names) < 2 or len(trials) < 3:
        return []
    from matplotlib import colormaps

    scores = [100 * trial["score"] for trial in trials]
    low, high = min(scores), max(scores)
    figure, axes = new_axes(width=2.2 * (len(names) + 1))
    columns = [_Column([row.get(name) for row in rows]) for name in names]
    columns.append(_Column(scores))
    for place in reversed(range(len(trials))):  # the best last, on top
        shade = (scores[place] - low) / ((high - low) or 1.0)
        axes.plot(
            range(len(columns)),
            [column.heights[place] for column in columns],
            color=colormaps["viridis"](shade),
            lw=2.5 if place == 0 else 1.2,
            alpha=1.0 if place == 0 else 0.65,
        )
    for x, column in enumerate(columns):
        axes.axvline(x, color="black", lw=0.8)
        for height, label in column.ticks:
            axes.text(x + 0.03, height, label, fontsize="x-small", va="center")
    shown = [".\n".join(name.rsplit(".", 1)) for name in names]
    axes.set_xticks(range(len(columns)), [*shown, "score, %"], fontsize="small")
    axes.set(yticks=[], title=f"{summary['sweep']}: every trial, the best one thick")
    axes.set_xlim(-0.1, len(columns) - 0.6)
    axes.spines[:].set_visible(False)
    return [save(figure, folder / "parallel_coordinates.png")]


def _coordinates(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Setting -> value, a mixture as the shares of all its sources but the first."""
    found: dict[str, Any] = {}
    for path, value in trial["varied"].items():
        if isinstance(value, Mapping):
            found |= {f"share.{source}": float(share) for source, share in [*value.items()][1:]}
        else:
            found[path] = value
    return found


class _Column:
    """One axis: how high each trial stands on it, and its labels; without a value at the foot."""

    def __init__(self, values: list[Any]) -> None:
        there = [value for value in values if value is not None]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in there)
        distinct = sorted(set(there)) if numbers else sorted({*there}, key=str)
        if numbers:
            low, spread = distinct[0], (distinct[-1] - distinct[0]) or 1
            at = {value: (value - low) / spread for value in distinct}
            labelled = distinct if len(distinct) <= 6 else [distinct[0], distinct[-1]]
            self.ticks = [(at[value], f"{value:.4g}") for value in labelled]
        else:
            at = {value: n / max(1, len(distinct) - 1) for n, value in enumerate(distinct)}
            self.ticks = [(at[value], str(value)) for value in distinct]
        self.heights = [-0.08 if value is None else at[value] for value in values]
        if None in values:
            self.ticks.append((-0.08, "none"))
