"""What the report says of the laws and of the merges, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.law_decision import HELD_BY_BEST, HELD_BY_PROPOSED
from sweeps.reporting.report_tables import cell, span
from sweeps.searching.trial_names import in_words


def law_lines(summary: Mapping[str, Any]) -> list[str]:
    """The proposed mix, how sure it is, and which law says so; nothing where none was asked for."""
    law = summary["law"]
    if law is None:
        return []
    lines = ["## The score as a law of the mix", ""]
    if law["reason"]:
        return [*lines, f"There is no law: {law['reason']}.", ""]
    return [*lines, *_proposal(law), *_table(law), *_doubt(law)]


def _proposal(law: Mapping[str, Any]) -> list[str]:
    proposed, within = law["proposed"], law["proposed"]["sure_within"]
    tried = ", ".join(map(str, proposed["trials"]))
    likely = "; ".join(
        f"{100 * float(tolerance):g} points: {probability:.0%}"
        for tolerance, probability in within.items()
    )
    between_of = [*proposed["best_between"].items()]
    if len(between_of) == 2:  # the other has the rest
        between_of = between_of[:1]
    between = " and ".join(
        f"{low:g} to {high:g} of {cell(source)}" for source, (low, high) in between_of
    )
    again = "a repeated seed of " if _tried(law, proposed["next_trial"]) else ""
    return [
        f"The laws propose **{in_words(proposed['shares'])}**, "
        + (f"as trial {tried} had it" if tried else "which no trial had")
        + f", with an expected score of {proposed['score']:.1%}{span(proposed['interval'])} on the "
        f"selection split ({_weighted(law)}).",
        "",
        f"How sure that is: the best mix has {between} (90 %). How probable it is that no mix is "
        f"better by more than so many points: {likely}. Expected loss to the best mix: "
        f"{100 * proposed['expected_regret']:.2f} points. Of further trials, {again}"
        f"{in_words(proposed['next_trial'])} would take away most doubt.",
        "",
        _widening(law),
        "",
    ]


def _widening(law: Mapping[str, Any]) -> str:
    """By how much the proposal's interval is wider than that of the best law alone, and why."""
    proposed = law["proposed"]
    width, alone = (
        round(100 * (proposed[key][1] - proposed[key][0]), 1)
        for key in ("interval", "interval_of_best_law")
    )
    said = (
        f"The interval of the expected score is {width:.1f} points wide; the {law['best_law']} law "
        f"alone would give {alone:.1f}"
    )
    if width <= alone:
        return f"{said}: it is not widened, as the other laws leave no more doubt there."
    return (
        f"{said}: it is widened by {width - alone:.1f}, as which law is true is not known and the "
        "laws differ there."
    )


def _tried(law: Mapping[str, Any], shares: Mapping[str, float]) -> bool:
    return any(trial["shares"] == shares for trial in law["trials"])


def _weighted(law: Mapping[str, Any]) -> str:
    weights = law["weights"]
    mean = (
        "the mean"
        if len({*weights.values()}) == 1
        else "weights " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    )
    if law["kl_to_natural"]:
        mean += f"; proposed at {law['kl_to_natural']:g} a nat from the mix in proportion to size"
    return mean


def _table(law: Mapping[str, Any]) -> list[str]:
    datasets = list(law["weights"])
    columns = [*(f"{cell(name)}, error" for name in datasets), "weight", "proposes"]
    lines = [f"| law | {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1) + "---|"]
    for each in law["laws"]:
        errors = [f"{100 * each['left_out_error'][name]:.2f}" for name in datasets]
        weights = " / ".join(f"{each['weight'][name]:.2f}" for name in datasets)
        best = each["name"] == law["best_law"]
        name = f"**{each['name']}**" if best else each["name"]
        cells = [name, *errors, weights, cell(in_words(each["proposes"]))]
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"*Fitted to {len(law['trials'])} trials of {law['mixes']} mixes that differ in nothing "
        "but mix and seed. Error: root mean square, in points, at a mix that was left out: the "
        f"{law['best_law']} law foretells best here. Weight: of the law in the answer, per "
        "dataset.*",
        "",
    ]


def _doubt(law: Mapping[str, Any]) -> list[str]:
    noise = law["noise"]
    source = (
        f"from {noise['repeats']} repeated seeds"
        if noise["from_repeats"]
        else f"from what no law explains; {noise['repeats']} seeds were repeated, too few to tell"
    )
    return [
        f"*One trial's weighted score varies by {100 * noise['mean']:.2f} points (standard "
        f"deviation, {source}). Intervals hold the noise of training, the laws' parameters and "
        "which law is true. On simulated sweeps, by the kind of truth, "
        f"{_parts(HELD_BY_PROPOSED)} of the 90 % intervals held the true score of the proposed mix "
        f"and {_parts(HELD_BY_BEST)} that of the best mix there is: `benchmarks/law_coverage.py`.*",
        "",
    ]


def _parts(of: tuple[float, float]) -> str:
    return f"{100 * of[0]:.1f} to {100 * of[1]:.1f} %"


def merge_lines(summary: Mapping[str, Any]) -> list[str]:
    """Whether merged weights rank mixes as training does; nothing where none were asked for."""
    merges = summary["merge_proxy"]
    if merges is None:
        return []
    lines = ["## Merged weights as a proxy", ""]
    if not merges["curve"]:
        return [*lines, "The merges of the source-only baselines were not scored.", ""]
    best = max(merges["curve"], key=lambda point: float(point["mean"]))
    return [
        *lines,
        f"Of {len(merges['curve'])} merges of the source-only baselines, which trained nothing, "
        f"{in_words(best['shares'])} is best with a mean of {best['mean']:.1%}. "
        f"{_trust(merges['correlation'])}",
        "",
    ]


def _trust(correlation: Mapping[str, Any]) -> str:
    mixes, rho, interval = (correlation[key] for key in ("mixes", "spearman", "interval"))
    if rho is None:
        return f"Training has scored {mixes} other mixes: too few to say whether merges rank alike."
    said = f"Over {mixes} mixes the rank correlation with training is {rho:.2f}"
    if interval is None:
        return f"{said}, of too few mixes for an interval: do not trust it."
    low, high = interval
    said += f" (90 %: {low:.2f} to {high:.2f})"
    if low > 0:
        return f"{said}: merges rank mixes as training does, better than by chance."
    if high < 0:
        return f"{said}: merges rank mixes the wrong way round; do not use them here."
    return f"{said}: that does not show that merges rank mixes as training does."
