"""What a person sees while a sweep runs, and the leaderboard at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from sweeps.planning.costs import duration
from sweeps.planning.stage_facts import SHOWN
from sweeps.records import TrialRecord
from sweeps.searching.trial_names import trial_name
from sweeps.watching.usage import Usage

QUIET_SECONDS = 20.0  # where lines are kept (a job's log), a stage's progress is told this often


def make_console() -> Console:
    """Wide enough for the tables where the output is a file or a job's log."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


class Terminal:
    """Lines for what begins and ends, bars for what runs where the output is a terminal."""

    def __init__(self, console: Console, trials: int) -> None:
        self.console = console
        self._trials = trials
        self._began = time.monotonic()
        self._told: dict[str, float] = {}
        self._states: dict[int, str] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """With date and time of day, by this machine: a job's log is read days later."""
        clock = time.strftime("%m-%d %H:%M:%S")
        self._progress.console.print(f"[dim]{clock}[/dim]  {text}")

    def trial(self, record: TrialRecord) -> None:
        """Tell a change of a trial's state."""
        if self._states.get(record.number) == record.state:
            return
        self._states[record.number] = record.state
        name = f"trial {record.number} of {self._trials} [bold]{trial_name(record)}[/bold]"
        if record.state == "running":
            self.say(f"{name}: started")
        elif record.state == "complete":
            scores = "  ".join(f"{key} {value:.1%}" for key, value in record.scores.items())
            self.say(f"{name}: [green]score {record.score:.1%}[/green]  ({scores})")
        elif record.state in ("failed", "pruned"):
            colour = "red" if record.state == "failed" else "yellow"
            self.say(f"{name}: [{colour}]{record.state}[/{colour}]: {record.reason}")

    def stage(self, event: Mapping[str, Any]) -> None:
        """Tell an event of the `Stages` actor."""
        identity, state = event["identity"], event["state"]
        if event["kind"] not in SHOWN and state not in ("failed", "retry"):
            return
        name = f"  {event['kind']} {identity[:6]} {event.get('what', '')}".rstrip()
        if state == "started":
            self.say(f"{name}: started")
            self._bars[identity] = self._progress.add_task(name, total=None, note="")
        elif state == "progress":
            self._point(identity, name, event)
        elif state == "finished":
            seconds = event["record"]["cost"]["device_seconds"]
            self.say(f"{name}: done in {duration(seconds)}{_curve(event['record']['metrics'])}")
        elif state in ("failed", "retry", "stopped"):
            self.say(f"{name}: {state}: {event.get('reason', '')}")
        if state in ("finished", "failed", "stopped") and identity in self._bars:
            self._progress.remove_task(self._bars.pop(identity))

    def _point(self, identity: str, name: str, event: Mapping[str, Any]) -> None:
        point, epochs = event["point"], event.get("epochs")
        note = f"epoch {point['epoch']:g}{f' of {epochs}' if epochs else ''}{_curve(point)}"
        if identity in self._bars:
            bar = self._bars[identity]
            self._progress.update(bar, completed=point["epoch"], total=epochs, note=note)
        quiet = time.monotonic() - self._told.get(identity, self._began)
        if not self.console.is_terminal and quiet > QUIET_SECONDS:
            self._told[identity] = time.monotonic()
            self.say(f"{name}: {note}")


def _curve(metrics: Mapping[str, Any]) -> str:
    shown = [f"{key} {metrics[key]:.3g}" for key in ("loss", "train_accuracy") if key in metrics]
    shown += [
        f"held-out {key.removeprefix('heldout/')} {value:.0%}"
        for key, value in metrics.items()
        if key.startswith("heldout/")
    ]
    return ", " + ", ".join(shown) if shown else ""


def print_leaderboard(summary: Mapping[str, Any], console: Console) -> None:
    """Trials by score, the recommended one and the Pareto front marked; what failed; the cost."""
    downstream: Sequence[str] = summary["downstream"]
    table = Table(title="Leaderboard (selection split)", title_justify="left", header_style="bold")
    for column in (
        "",
        "trial",
        "what",
        "score",
        *downstream,
        "report split",
        "device time",
        "state",
    ):
        numeric = column in ("trial", "score", *downstream, "report split", "device time")
        table.add_column(column, justify="right" if numeric else "left")
    best = (summary["recommended"] or {}).get("trial")
    pareto = summary["pareto"]  # None where there is but one objective
    front = pareto["front"] if pareto else []
    for trial in summary["trials"]:
        report = trial["report"]
        table.add_row(
            "★" * (trial["number"] == best) + "◆" * (trial["number"] in front),
            str(trial["number"]),
            trial["name"],
            _percent(trial["score"]),
            *(_percent(trial["scores"].get(name)) for name in downstream),
            _percent(report["score"]) if report else "",
            duration(trial["cost"]["device_seconds"]),
            trial["state"],
            style="bold green" if trial["number"] == best else None,
        )
    console.print(table)
    if front:
        console.print(
            f"◆ Pareto front of {' and '.join(map(escape, pareto['objectives']))}: no trial beats "
            "these in all of them; the recommendation (★) goes by the score alone."
        )
    if summary["recommended"]:
        console.print(
            f"Recommended: [bold]trial {best}, {summary['recommended']['name']}[/bold] "
            f"(score {_percent(summary['recommended']['score'])} on the selection split, "
            f"{_percent((summary['recommended']['report'] or {}).get('score')) or 'no score'} "
            "on the report split)"
        )
    else:
        console.print("[red]No trial was completed, so there is no recommendation.[/red]")
        for reason in dict.fromkeys(t["reason"] for t in summary["trials"] if t["reason"]):
            console.print(reason, markup=False, soft_wrap=True)
    counts = summary["counts"]
    console.print(
        f"{counts['complete']} trials complete, {counts['failed']} failed, "
        f"{counts['pruned']} stopped early; "
        f"{duration(summary['cost']['device_seconds'])} of device time in {counts['stages']} stages"
    )
    console.print(Usage(**summary["usage"]).sentence())


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
