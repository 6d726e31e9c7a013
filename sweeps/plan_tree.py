"""The plan on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sweeps.costs import duration
from sweeps.plan import Plan, plan_lines
from sweeps.stage_facts import SHOWN


def print_plan(plan: Plan, console: Console) -> None:
    """The plan as a table of what is trained, and a paragraph on the rest."""
    table = Table(title="Plan", title_justify="left", header_style="bold")
    for column in ("stage", "what", "clips", "repetition", "trials", "state", "time"):
        table.add_column(column, justify="right" if column in ("clips", "time") else "left")
    for planned in plan.stages:
        if planned.stage.kind not in SHOWN:
            continue
        table.add_row(
            f"{planned.stage.kind} {planned.stage.identity[:6]}",
            planned.what,
            f"{planned.clips:,}" if planned.clips else "",
            " ".join(f"{name} {times:.1f}x" for name, times in planned.repetition.items()),
            ", ".join(map(str, planned.trials)),
            "done" if planned.cached else "to do",
            "" if planned.cached else duration(planned.price and planned.price.seconds),
        )
    console.print(table)
    for line in plan_lines(plan):
        console.print(line, highlight=False)
