"""Scene bias for a person: a table, the plot of gain against bias, and whether the claim holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.reporting.plots import new_axes, save
from sweeps.reporting.report_tables import cell
from trainables.bias import IN_WORDS, VIEWS, View

ENOUGH = 4  # datasets, below which a rank correlation has no interval


def bias_lines(summary: Mapping[str, Any]) -> list[str]:
    """A section of the report; nothing where bias was not asked for."""
    found = summary["bias"]
    if found is None:
        return []
    lines = [
        "## Scene bias",
        "",
        f"| dataset | used as | {' | '.join(IN_WORDS.values())} | at most | clips, groups |",
        "|---|---|" + "---:|" * (len(VIEWS) + 2),
    ]
    for name, dataset in found["datasets"].items():
        known = [dataset[view] for view in VIEWS if "bias" in dataset[view]]
        most = f"{known[0]['most_bits']:.2f}" if known else ""
        size = f"{known[0]['clips']:,}, {known[0]['groups']:,}" if known else ""
        use = "downstream" if dataset["downstream"] else f"source ({dataset['humans']})"
        figures = " | ".join(_bits(dataset[view]) for view in VIEWS)
        lines.append(f"| {cell(name)} | {use} | {figures} | {most} | {size} |")
    return [
        *lines,
        "",
        "*Bits: log2(accuracy x classes) of a model that sees single frames only, each clip scored "
        "by one that was fit to other groups; 0 is chance. People masked: it sees windows with "
        "nobody in them. In brackets: 90 % bootstrap interval over groups.*",
        "",
        *(part for line in _left_out(found) for part in (line, "")),
        *(part for line in claim_sentences(summary) for part in (line, "")),
    ]


def terminal_lines(summary: Mapping[str, Any]) -> list[str]:
    """The same in short."""
    found = summary["bias"]
    if found is None:
        return []
    lines = []
    for name, dataset in found["datasets"].items():
        shown = [
            f"{IN_WORDS[view]} {_bits(dataset[view])}" for view in VIEWS if "bias" in dataset[view]
        ]
        lines.append(f"Scene bias of {name}, bits: {', '.join(shown) or 'not measured'}")
    return [*lines, *claim_sentences(summary)]


def claim_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Whether the datasets with less scene bias gain more from alignment on synthetic clips in
    this sweep, and what stage 1 had seen."""
    found = summary["bias"]
    gain = found["gain"]
    if gain is None:
        return [
            "No complete trial aligned on synthetic clips alone and one on human-free clips alone, "
            "so there is no gain to hold against the bias."
        ]
    first = (
        f"Gain: the top-1 of trial {gain['synthetic']} (aligned on synthetic clips alone) less "
        f"that of trial {gain['human_free']} (aligned on human-free clips alone) on the "
        f"{gain['split']} split, one training run each. {_before_alignment(gain)}"
    )
    return [first, *(_sentence(view, found["claim"][view]) for view in VIEWS)]


def _before_alignment(gain: Mapping[str, Any]) -> str:
    starts = [gain["aligned_from"][role] for role in ("synthetic", "human_free")]
    one, other = map(_in_words, starts)
    if starts[0]["stage"] == starts[1]["stage"]:
        return f"Both were aligned from the same weights: {one}."
    return (
        f"They were aligned from different weights ({one}; {other}), so the gain is not that of "
        "alignment alone."
    )


def _in_words(start: Mapping[str, Any]) -> str:
    parts = ["imported" if start["imported"] else "random"]
    for kind, saw in start["saw"].items():
        sources = ", ".join(f"{source} (humans: {humans})" for source, humans in saw.items())
        parts.append(f"{'MAE' if kind == 'mae' else kind} on {sources}")
    return ", then ".join(parts)


def _sentence(view: View, claim: Mapping[str, Any]) -> str:
    number, rho, interval = claim["datasets"], claim["spearman"], claim["interval"]
    about = f"SynAPT's claim (the lower the bias, the larger the gain), {IN_WORDS[view]}:"
    if number < 2:
        return f"{about} with {number} dataset{'s' * (number != 1)} measured, nothing can be said."
    if rho is None:
        return f"{about} all {number} datasets have the same bias or gain: nothing can be said."
    over = f"rank correlation {rho:.2f} over {number} datasets"
    if interval is None:
        way = "as" if rho < 0 else "against what" if rho > 0 else "neither as nor against what"
        return (
            f"{about} {over}: ordered {way} it says, but fewer than {ENOUGH} datasets "
            "make that a statement of nothing."
        )
    low, high = interval
    over = f"{about} {over} (90 %: {low:.2f} to {high:.2f}):"
    if high < 0:
        return f"{over} it holds in this sweep."
    if low > 0:
        return f"{over} the opposite holds in this sweep."
    return f"{over} it is neither shown nor refuted in this sweep."


def plot_bias(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Gain against bias, a point a downstream dataset and view; none without both."""
    found = summary["bias"]
    if found is None or found["gain"] is None:
        return []
    figure, axes = new_axes()
    drawn = 0
    for view, marker, colour in zip(VIEWS, "os", ("C0", "C1"), strict=True):
        points = [
            (name, found["datasets"][name][view], each)
            for name, each in found["gain"]["datasets"].items()
            if "bias" in found["datasets"][name][view]
        ]
        for place, (name, bias, gain) in enumerate(points):
            x, y = bias["bias"], 100 * gain["gain"]
            axes.errorbar(
                [x],
                [y],
                xerr=_errors(x, bias["interval_low"], bias["interval_high"]),
                yerr=_errors(y, *(100 * end for end in gain["interval"])),
                fmt=marker,
                color=colour,
                capsize=2,
                label=None if place else IN_WORDS[view],
            )
            axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize="small")
            drawn += 1
    if not drawn:
        figure.clear()
        return []
    axes.axhline(0, color="grey", lw=0.8)
    axes.set(
        xlabel="scene bias, bits over chance",
        ylabel=f"gain on the {found['gain']['split']} split, points",
        title=f"{summary['sweep']}: alignment on synthetic less on human-free clips",
    )
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return [save(figure, folder / "gain_against_bias.png")]


def _errors(value: float, low: float, high: float) -> list[list[float]]:
    """Lengths below and above, as matplotlib wants them: none below 0."""
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _bits(figures: Mapping[str, Any]) -> str:
    if "bias" not in figures:
        return ""
    low, high = figures["interval_low"], figures["interval_high"]
    return f"{figures['bias']:.2f} ({low:.2f} to {high:.2f})"


def _left_out(found: Mapping[str, Any]) -> list[str]:
    """Why a figure is missing; once where both are for one reason."""
    lines = []
    for name, dataset in found["datasets"].items():
        reasons: dict[str, list[str]] = {}
        for view in VIEWS:
            if "reason" in dataset[view]:
                reasons.setdefault(dataset[view]["reason"], []).append(IN_WORDS[view])
        lines += [f"{name}, {' and '.join(views)}: {why}." for why, views in reasons.items()]
    return lines
