"""How a sweep stands, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.study import RungPoint
from sweeps.planning.costs import duration
from sweeps.searching.trial_names import trial_name
from sweeps.storage_use import use_lines
from sweeps.watching.stage_status import StageStatus
from sweeps.watching.status import Status, seconds_of

HEAD = 5  # trials of the leaderboard
SAME_COMMAND = "the same command without --status continues it"


def print_status(status: Status, console: Console) -> None:
    """Life, trials, what runs where, what waits for what, cost, what is left, the best so far."""
    console.print(f"[bold]{status.name}[/bold]: {escape(status.question)}")
    console.print(f"results: {status.folder}", soft_wrap=True)
    console.print(_life(status))
    console.print(
        f"Trials: {status.counts['complete']} of {status.trials} complete, "
        + ", ".join(f"{status.counts[s]} {s}" for s in ("failed", "pruned", "running", "waiting"))
    )
    _print_running(status, console)
    _print_waiting(status, console)
    _print_trials(status, console)
    console.print(_cost(status))
    console.print(status.usage.sentence())
    if status.gpu_utilisation is not None:
        console.print(f"GPU use while training: {status.gpu_utilisation:.0%} (mean over epochs).")
    if status.life != "finished":
        for line in _to_do(status):
            console.print(line)
    for line in use_lines(status.use):
        console.print(line, highlight=False)
    _print_leaderboard(status, console)


def _life(status: Status) -> str:
    ago = "" if status.heard is None else duration(max(0.0, status.now - status.heard))
    where = f"on {status.host}"
    match status.life:
        case "runs":
            return f"[green]It runs[/green] {where}; heard {ago} ago."
        case "silent":
            return (
                f"[red]Nothing has been heard for {ago}[/red] {where}: the process is dead, or "
                f"cannot write here. {SAME_COMMAND.capitalize()}."
            )
        case "stopped":
            return f"[yellow]It was stopped[/yellow] {ago} ago {where}; {SAME_COMMAND}."
        case "finished":
            return "[green]It is finished[/green]" + (f", since {ago}." if ago else ".")
    return f"It has trained nothing yet; {SAME_COMMAND}, unless it is starting now."


def _print_running(status: Status, console: Console) -> None:
    if not status.running:
        return
    table = _table("Runs" if status.life == "runs" else "Ran when it was last heard")
    for column in ("stage", "trials", "host", "for"):
        table.add_column(column)
    for column in ("epoch", "clips/s", "GPU use"):
        table.add_column(column, justify="right")
    table.add_column("attempt")
    for stage in status.running:
        epochs = "" if stage.epochs is None else f"{stage.epoch:g} of {stage.epochs}"
        speed = stage.clips_per_second
        table.add_row(
            _name(stage),
            _numbers(stage.trials),
            ", ".join(stage.hosts) or "starting",
            duration(stage.seconds),
            epochs,
            "" if speed is None else f"{speed:.3g}",
            _gpu_use(stage),
            f"{stage.attempt}{f' after: {escape(stage.why)}' if stage.why else ''}",
        )
    console.print(table)


def _print_waiting(status: Status, console: Console) -> None:
    if status.waiting:
        table = _table("Waits" if status.life == "runs" else "Waited when it was last heard")
        for column in ("stage", "trials", "for", "what it waits for"):
            table.add_column(column)
        for stage in status.waiting:
            table.add_row(
                _name(stage),
                _numbers(stage.trials),
                duration(stage.seconds),
                escape(stage.why),
            )
        console.print(table)
    if status.later > 0 and status.life != "finished":
        console.print(f"{status.later} more stages of the known trials come after these.")


def _print_trials(status: Status, console: Console) -> None:
    records = [record for record in status.records if record.state == "running"]
    if not records:
        return
    table = _table("Trials that are running" if status.life == "runs" else "Interrupted trials")
    table.add_column("trial", justify="right")
    for column in ("what", "for", "last probe"):
        table.add_column(column)
    until = status.now if status.life == "runs" else status.heard or status.now
    for record in records:
        since = seconds_of(record.started_at) if record.started_at else until
        last = record.rungs[-1] if record.rungs else None
        table.add_row(
            str(record.number),
            escape(trial_name(record)),
            duration(max(0.0, until - since)),
            "" if last is None else _probe(last),
        )
    console.print(table)


def _probe(point: RungPoint) -> str:
    accuracies = ", ".join(f"{name} {value:.1%}" for name, value in point.accuracies.items())
    return f"{accuracies} at {point.rung:.0%} of the alignment"


def _cost(status: Status) -> str:
    cost = status.cost
    begun = f" and {cost.begun} begun (to their last whole epoch)" if cost.begun else ""
    since = ""
    if status.began is not None:
        since = f"; the first trial began {duration(status.now - status.began)} ago"
    money = "" if cost.money is None else f", {cost.money:,.2f} at the price of a device"
    return (
        f"Cost so far: {cost.device_seconds / 3600:.2f} device-hours "
        f"({cost.device_seconds:,.0f} device-seconds) in {cost.finished} stages{begun}"
        f"{money}{since}."
    )


def _to_do(status: Status) -> list[str]:
    to_do = status.to_do
    parts = [f"about {duration(to_do.known_seconds)} of device time for the known trials"]
    if to_do.to_suggest:
        guess = to_do.suggested_seconds
        more = "unknown" if guess is None else f"about {duration(guess)}"
        parts.append(f"{more} for {to_do.to_suggest} still to be suggested")
    if to_do.untimed:
        parts.append(f"{' and '.join(to_do.untimed)} not timed yet")
    lines = [f"To do: {'; '.join(parts)}."]
    if to_do.ends is None:
        why = "some kinds of stage are not timed yet" if to_do.devices else "nothing is at work"
        return [*lines, f"Estimated end: not known, as {why}."]
    at = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(to_do.ends))
    plural = "s" * (to_do.devices != 1)
    lines.append(
        f"Estimated end: {at}, in {duration(to_do.ends - status.now)}, with {to_do.devices} "
        f"device{plural} at work as now."
    )
    return lines


def _print_leaderboard(status: Status, console: Console) -> None:
    scored = [record for record in status.records if record.score is not None]
    scored.sort(key=lambda record: (-(record.score or 0.0), record.number))
    if not scored:
        console.print("No trial is complete yet.")
        return
    datasets = list(dict.fromkeys(name for record in scored for name in record.scores))
    table = _table(f"Best of {len(scored)} so far (selection split)")
    for column in ("trial", "score", *datasets):
        table.add_column(column, justify="right")
    table.add_column("what")
    for record in scored[:HEAD]:
        scores = [record.score, *(record.scores.get(name) for name in datasets)]
        table.add_row(
            str(record.number),
            *("" if score is None else f"{100 * score:.1f}" for score in scores),
            escape(trial_name(record)),
        )
    console.print(table)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", header_style="bold")


def _name(stage: StageStatus) -> str:
    return escape(f"{stage.kind} {stage.identity[:6]} {stage.what}".strip())


def _gpu_use(stage: StageStatus) -> str:
    if stage.gpu_utilisation is not None:
        return f"{stage.gpu_utilisation:.0%}"
    return "not known" if stage.on_gpus else "no GPU"


def _numbers(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials))
