"""The plan in sentences: for the terminal, the report and the parent run in MLflow."""

from __future__ import annotations

from typing import NamedTuple

from sweeps.planning.costs import NOT_COUNTED, priced
from sweeps.planning.plan import Plan, PlannedStage, money_of, total_seconds
from trainables.models import flops
from trainables.stage import TRUNKS

STATE_BYTES = 12  # of a trunk's state a parameter: float32 weights and AdamW's two averages


def plan_lines(plan: Plan) -> list[str]:
    """The plan in sentences; they also open the parent run in MLflow."""
    cached = sum(planned.cached for planned in plan.stages)
    uses = sum(max(1, len(planned.trials)) for planned in plan.stages)
    lines = [
        f"All {plan.to_suggest} trials will be suggested by the sampler."
        if not plan.known_trials
        else f"{len(plan.known_trials)} trials are known and stand on {len(plan.stages)} stages "
        f"(without sharing: {uses}); {cached} are done, {len(plan.missing)} to do.",
    ]
    if plan.to_suggest and plan.known_trials:
        lines.append(
            f"{plan.to_suggest} more trials will be suggested from the scores; the longest "
            f"known one takes {plan.trial_clips:,} clips, one with more endpoints or epochs more."
        )
    if to_do := price(plan):
        lines.append(to_do)
    lines += [line for line in (_saved(plan), _kept_states(plan)) if line]
    if plan.budget:
        lines.append(plan.budget)
    lines += plan.lengths
    if plan.not_neutral:
        lines.append(
            f"NOT budget-neutral: trials {', '.join(map(str, plan.not_neutral))}, whose "
            "clips_per_epoch is sum_of_sources, so that the mix changes the length of training."
        )
    return lines


def price(plan: Plan) -> str | None:
    """What the known trials still cost, as far as that is known, and how it is."""
    missing = plan.missing
    if not missing:
        return None
    prices = [planned.price for planned in missing if planned.price is not None]
    known = [each for each in prices if each.basis != NOT_COUNTED]
    kinds: dict[str, set[str]] = {}
    for planned in missing:
        basis = "not timed yet" if planned.price is None else planned.price.basis
        kinds.setdefault(basis, set()).add(planned.stage.kind)
    spent = priced(sum(each.seconds for each in known), money_of(missing))
    parts = [f"about {spent} of device time"] if known else []
    parts += [f"{' and '.join(sorted(of))} {basis}" for basis, of in sorted(kinds.items())]
    clips = sum(planned.clips for planned in missing)
    what = "the known trials" if plan.known_trials else "the scene bias"
    return f"To do for {what}: {clips:,} clips; {'; '.join(parts)}."


def _saved(plan: Plan) -> str | None:
    """The whole price with and without sharing, what is done included."""
    clips = sum(planned.clips for planned in plan.stages)
    if not plan.known_trials or plan.alone_clips == clips:
        return None
    seconds = total_seconds(planned.price for planned in plan.stages)
    shared = Total(clips, seconds, money_of(plan.stages))
    alone = Total(plan.alone_clips, plan.alone_seconds, plan.alone_money)
    return f"In all, what is done included: {with_and_without(shared, alone)}"


class Total(NamedTuple):
    clips: float
    seconds: float | None  # of devices; None where not known
    money: float | None  # None without a price of a device


def with_and_without(shared: Total, alone: Total) -> str:
    """What sharing saves, in words."""
    times = alone.clips / max(shared.clips, 1)
    if not shared.seconds or not alone.seconds:
        return (
            f"{shared.clips:,.0f} clips shared, {alone.clips:,.0f} if each trial were alone: "
            f"{times:.1f} times as many."
        )
    return (
        f"{priced(shared.seconds, shared.money)} and {shared.clips:,.0f} clips shared, "
        f"{priced(alone.seconds, alone.money)} and {alone.clips:,.0f} clips if each trial were "
        f"alone: {alone.seconds / shared.seconds:.1f} times the time, {times:.1f} times the clips."
    )


def _kept_states(plan: Plan) -> str | None:
    """What trunks keep on disk, so that lengths can branch off."""
    trunks = [planned for planned in plan.stages if planned.stage.kind in TRUNKS]
    if not trunks:
        return None
    sizes = [state_bytes(planned) for planned in trunks]
    known = [size for size in sizes if size is not None]
    shown = f"about {gigabytes(sum(known))}" if len(known) == len(sizes) else "of unknown size"
    return (
        f"Trunks keep {len(trunks)} training states, {shown} in all: one where the decay of each "
        "length begins. Once all lengths are trained the longest of each run is kept."
    )


def state_bytes(planned: PlannedStage) -> int | None:
    """What a trunk's state takes on disk, about; 0 for what is no trunk, None if not known."""
    stage = planned.stage
    if stage.kind not in TRUNKS:
        return 0
    kind = TRUNKS[stage.kind]
    described = stage.settings[kind]
    count = flops.parameters(stage.settings["model"], described if kind == "mae" else None)
    if count is None:
        return None
    keep = described.get("keep", {"ema_decay": None, "posthoc_ema": False})
    averages = (keep["ema_decay"] is not None) + 2 * keep["posthoc_ema"]
    return count * (STATE_BYTES + 4 * averages)


def gigabytes(count: int) -> str:
    """'1.2 GB', or in MB below 1 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
