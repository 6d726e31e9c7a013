"""--dry-run on the terminal: what hangs on what, what it costs, how long it takes on N devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from sweeps.planning.costs import NOT_COUNTED, duration, priced
from sweeps.planning.forecast import Forecast
from sweeps.planning.plan import Plan, PlannedStage, money_of, total_seconds
from sweeps.planning.plan_lines import Total, plan_lines, with_and_without
from sweeps.planning.stage_facts import SHOWN
from trainables.stage import TRUNKS

DEVICES = (1, 8, 64)  # that a plan is timed for, beside those asked for
FEW_STAGES, MANY_CHILDREN, FEW_CHILDREN = 40, 12, 4  # of a larger tree less is shown of a stage
MOST_NUMBERS = 8  # of trials, in a line


def print_plan(
    plan: Plan, forecast: Forecast, console: Console, devices: Sequence[int] = ()
) -> None:
    """The tree of the known trials' stages, what is not known yet, the plan in sentences, the time.

    `devices`: numbers of them that the time is told for, beside DEVICES.
    """
    known = forecast.plan if forecast.exact else plan
    console.print(plan_tree(known, forecast))
    lines = plan_lines(known)
    for line in [*lines, *(line for line in forecast.plan.lengths if line not in lines)]:
        console.print(line, highlight=False)
    if forecast.drawn and not forecast.exact:
        console.print(_foreseen(plan, forecast), highlight=False)
    print_time(forecast, console, devices)


def _foreseen(plan: Plan, forecast: Forecast) -> str:
    """What sharing saves with the trials that are to be suggested, as far as they are foreseen."""
    known = total_seconds(planned.price for planned in plan.stages)
    seconds = None if known is None or forecast.seconds is None else known + forecast.seconds
    money = [m for m in (money_of(plan.stages), forecast.money) if m is not None]
    shared = Total(
        sum(planned.clips for planned in plan.stages) + forecast.clips,
        seconds,
        sum(money) if money else None,
    )
    alone = Total(forecast.alone_clips, forecast.alone_seconds, forecast.alone_money)
    return (
        f"With {plan.to_suggest} suggested trials as random draws of the space are: "
        f"{with_and_without(shared, alone)}"
    )


def plan_tree(plan: Plan, forecast: Forecast) -> Tree:
    shown = {each.stage.identity: each for each in plan.stages if each.stage.kind in SHOWN}
    children: dict[str | None, list[PlannedStage]] = {}
    for planned in shown.values():
        children.setdefault(_parent(planned, shown), []).append(planned)
    limit = MANY_CHILDREN if len(shown) <= FEW_STAGES else FEW_CHILDREN
    tree = Tree(f"[bold]Plan[/bold]: {len(plan.known_trials)} trials known", highlight=False)

    def grow(branch: Tree, parent: str | None) -> None:
        ours = sorted(children.get(parent, []), key=lambda each: -len(each.trials))
        for planned in ours[:limit] if len(ours) > limit + 1 else ours:
            grow(branch.add(_node(planned)), planned.stage.identity)
        if len(ours) > limit + 1:
            branch.add(_rest(ours[limit:], children))

    grow(tree, None)
    others = (*SHOWN, "init", "import", "bias")
    scoring = [each for each in plan.stages if each.stage.kind not in others]
    if scoring:
        tree.add(f"[bold]scoring[/bold] {_together(scoring)}")
    if bias := [each for each in plan.stages if each.stage.kind == "bias"]:
        tree.add(f"[bold]scene bias[/bold] {_together(bias)}")
    if plan.to_suggest:
        tree.add(_not_known(plan, forecast))
    return tree


def print_time(forecast: Forecast, console: Console, devices: Sequence[int]) -> None:
    """How long the sweep takes on so many devices, its suggestions included as they may be."""
    if not forecast.plan.missing:
        return
    if any(planned.price is None for planned in forecast.plan.missing):
        console.print(
            "How long it takes is not known, for some stages were never timed: give "
            "execution.clips_per_second or execution.device_teraflops.",
            highlight=False,
        )
        return
    table = Table(title="How long it takes", title_justify="left", header_style="bold")
    table.add_column("devices", justify="right")
    table.add_column(f"{forecast.concurrent} trials at a time", justify="right")
    table.add_column("all at once", justify="right")
    for count in sorted({*DEVICES, *devices}):
        table.add_row(
            str(count),
            _time(forecast.makespan(count, concurrent=forecast.concurrent)),
            _time(forecast.makespan(count, concurrent=None)),
        )
    console.print(table)
    prices = [(each.stage.kind, each.price) for each in forecast.plan.missing]
    if lacking := sorted({kind for kind, price in prices if price and price.basis == NOT_COUNTED}):
        kinds = " and ".join(lacking)
        console.print(f"Without {kinds} stages, of which none was timed here.", highlight=False)
    if (most := max(each.workers * each.devices for each in forecast.plan.missing)) > 1:
        console.print(f"The largest gang takes {most:g} devices.", highlight=False)


def _time(seconds: float | None) -> str:
    return "too few" if seconds is None else duration(seconds)


def _parent(planned: PlannedStage, shown: dict[str, PlannedStage]) -> str | None:
    """What it hangs on: the trunk it goes on from or branches off, else the last of its inputs."""
    before = [shown[each] for each in reversed(planned.waits_for) if each in shown]
    trunks = [each for each in before if each.stage.kind in TRUNKS]
    first = [*trunks[:1], *before[:1]]
    return first[0].stage.identity if first else None


def _node(planned: PlannedStage) -> str:
    repetition = " ".join(f"{name} {times:.1f}x" for name, times in planned.repetition.items())
    parts = [
        f"{planned.clips:,} clips" if planned.clips else "",
        repetition,
        _cost([planned]) if planned.clips else "",
        _state([planned]),
        _trials(planned.trials),
    ]
    kind = planned.stage.kind.replace("_", " ")
    name = f"[bold]{kind}[/bold] {planned.stage.identity[:6]} {escape(planned.what)}".rstrip()
    return " · ".join([name, *(part for part in parts if part)])


def _rest(stages: Sequence[PlannedStage], children: dict[str | None, list[PlannedStage]]) -> str:
    """The children that are not listed, with all that hangs on them."""
    below = list(stages)
    for planned in below:
        below += children.get(planned.stage.identity, [])
    kinds = dict.fromkeys(planned.stage.kind.replace("_", " ") for planned in stages)
    return f"and {len(stages)} more {' and '.join(kinds)}, {_together(below)}"


def _together(stages: Sequence[PlannedStage]) -> str:
    trials = sorted({number for planned in stages for number in planned.trials})
    clips = sum(planned.clips for planned in stages)
    parts = [f"{len(stages)} stages", f"{clips:,} clips", _cost(stages), _state(stages)]
    if trials:
        parts.append(_trials(trials))
    return " · ".join(part for part in parts if part)


def _cost(stages: Sequence[PlannedStage]) -> str:
    missing = [planned for planned in stages if planned.needed]
    if not missing:
        return ""
    seconds = total_seconds(planned.price for planned in missing)
    return f"[cyan]{priced(seconds, money_of(missing))}[/cyan]"


def _state(stages: Sequence[PlannedStage]) -> str:
    done = sum(not planned.needed for planned in stages)
    if done == len(stages):
        return "[green]done[/green]"
    return f"[green]{done} done[/green]" if done else "to do"


def _trials(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    if len(numbers) > MOST_NUMBERS:
        return f"{len(numbers)} trials"
    return f"trial{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers))}"


def _not_known(plan: Plan, forecast: Forecast) -> str:
    text = f"[bold]{plan.to_suggest} more trials[/bold], suggested from the scores: not known yet"
    if not forecast.drawn:
        return text
    return (
        f"{text}; {forecast.drawn} random draws of the space add {forecast.stages:,.0f} stages · "
        f"{forecast.clips:,.0f} clips · [cyan]{priced(forecast.seconds, forecast.money)}[/cyan]"
    )
