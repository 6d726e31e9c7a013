"""A sweep from its file to its answer: prepare, run what is not done, report."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.tracking import AWAY_SECONDS, Tracker
from sweeps.checks import check_storage
from sweeps.only_one import only_one
from sweeps.planning.plan_lines import plan_lines
from sweeps.planning.plan_tree import print_plan
from sweeps.planning.storage_room import left_out
from sweeps.planning.trunk_states import give_up_states
from sweeps.prepare import Prepared, prepare
from sweeps.records import write_json, write_sweep
from sweeps.reporting.bias_report import terminal_lines
from sweeps.reporting.curves import curve_stages
from sweeps.reporting.live_report import LiveReport
from sweeps.reporting.report import write_report, write_weights
from sweeps.reporting.summary import make_summary, report_stages
from sweeps.storage_use import added_lines, check_fits, storage_use, use_lines
from sweeps.sweep import Sweep
from sweeps.watching.heartbeat import Heartbeat
from sweeps.watching.sweep_run import answer, metrics_of, start_tracker
from sweeps.watching.terminal import Terminal, print_leaderboard
from sweeps.watching.usage import counted, read_usage
from sweeps.watching.watch import Watch
from trainables.stage import Stage
from trainables.storage.folder import Folder


def run_sweep(
    sweep: Sweep, console: Console, *, dry_run: bool = False, devices: Sequence[int] = ()
) -> dict[str, Any]:
    """Run the sweep to its end. Returns the summary; an empty one for a dry run.

    `devices`: numbers of them that the plan tells the time for, beside its own.

    Raises:
        ValueError: what the user can mend, before anything is trained.
    """
    if dry_run:
        _print_prepared(prepare(sweep, console, dry_run=True), console, devices)
        return {}
    check_storage(sweep.folder)
    with only_one(sweep.folder, partial(console.print, soft_wrap=True)) as check_alone:
        prepared = prepare(sweep, console, dry_run=False)  # reads the state, which is now ours
        _print_prepared(prepared, console, devices)
        prepared.search.before_writing = check_alone
        write_sweep(sweep.folder, prepared.resolved)  # before MLflow hears of its id
        try:
            tracker = start_tracker(prepared)
        except ValueError:
            if not prepared.search.records:  # it has not begun
                sweep.folder.delete(["sweep.json"])
            raise
        prepared.warm_start.keep(sweep)
        with Terminal(console, prepared.search.trials) as terminal:
            watch = Watch(prepared, tracker, terminal)
            watch.catch_up()
            prepared.search.listen(watch.changed)
            _run_what_is_not_done(prepared, watch, terminal)
            _send_the_rest(tracker, watch, terminal)
            summary = _write_answer(prepared, tracker)
            _send_the_rest(tracker, watch, terminal)
        if not prepared.search.unfinished():
            if said := give_up_states(prepared.search, prepared.data, prepared.store):
                console.print(said)
    print_leaderboard(summary, console)
    for line in terminal_lines(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    budget = sweep.settings.execution.storage.budget_gb
    for line in use_lines(storage_use(prepared.store, budget)):
        console.print(line, highlight=False)
    console.print(f"Report: {sweep.folder}/report.html", soft_wrap=True)
    if tracker.page and sweep.tracking_uri is None:
        console.print(f"MLflow: `make ui STORAGE={sweep.disk}`, then", soft_wrap=True)
        console.print(f"        http://localhost:5000/{tracker.page}", soft_wrap=True)
    elif tracker.page:
        console.print(f"MLflow: {tracker.page} behind the server's address", soft_wrap=True)
    if tracker.unsent:
        console.print(
            f"[yellow]MLflow lacks {tracker.unsent} updates; run the same command again to send "
            "them.[/yellow]"
        )
    return summary


def _print_prepared(prepared: Prepared, console: Console, devices: Sequence[int]) -> None:
    sweep = prepared.sweep
    console.print(f"[bold]{sweep.settings.name}[/bold]: {sweep.settings.question}")
    console.print(f"results: {sweep.folder}", soft_wrap=True)
    print_plan(prepared.plan, prepared.forecast(), console, devices)
    for line in [*use_lines(prepared.use), *added_lines(prepared.use, prepared.plan)]:
        console.print(line, highlight=False)
    for line in prepared.notes:
        console.print(line, markup=False, soft_wrap=True)
    check_fits(prepared.use, prepared.plan, begun=bool(prepared.search.records))


def _run_what_is_not_done(prepared: Prepared, watch: Watch, terminal: Terminal) -> None:
    """Trials, then the report split of those that the sweep recommends. All done: starts no Ray."""
    search, store = prepared.search, prepared.store
    merges = search.proposals.merges

    def missing(stages: list[Stage]) -> list[Stage]:
        return [stage for stage in stages if store.record(stage.identity) is None]

    def missing_after_search() -> list[Stage]:
        curve, report = curve_stages(search, prepared.data), report_stages(search, prepared.data)
        wanted = [*curve, *report, *prepared.bias_stages()]
        return [*missing(wanted), *(merges.unscored() if merges else [])]

    if not search.unfinished() and (soup := search.add_soup()):  # asked for afterwards
        terminal.say(soup)
    if not search.unfinished() and not missing_after_search():
        terminal.say(left_out(search.storage()) or "every trial is finished; nothing is trained")
        return

    # Imported here: Ray takes seconds, and a finished sweep needs none of it.
    from cluster.ray_session import connected
    from cluster.stage_runs import StageFailed
    from cluster.stages_handle import StagesHandle
    from cluster.tune import run_trials

    settings = prepared.sweep.settings
    with connected() as session:
        terminal.say(session)
        stages = StagesHandle(store, prepared.data, settings.execution, prepared.sweep.probes())
        stages.check_room(planned.stage for planned in prepared.plan.missing)
        kinds = {planned.stage.kind: planned.stage for planned in prepared.plan.stages}
        watch.follow(stages.events)
        usage = read_usage(search.folder, counted(settings.execution))
        heartbeat = Heartbeat(search, prepared.data, stages, usage)
        heartbeat.start()
        report_so_far = LiveReport(search, lambda: _write_report(prepared))
        report_so_far.start()

        def concurrent() -> int:
            asked = settings.search.concurrent
            return stages.trials_at_once(kinds.values()) if asked == "auto" else asked

        def run() -> None:
            run_trials(
                search,
                stages,
                concurrent=concurrent,
            )

        def score_merges() -> None:
            """The given trials, then the merges of their weights, before anything is suggested."""
            assert merges is not None
            search.given_only = True
            if search.unfinished():
                run()
            search.given_only = False
            if not (to_score := merges.unscored()):
                terminal.say("[red]not all experts were trained: there is nothing to merge[/red]")
                return
            terminal.say(f"scoring {len(merges.mixes)} merges of the baselines: nothing is trained")
            heartbeat.expect(to_score)
            try:
                stages.want_all(to_score)
            except StageFailed as error:
                terminal.say(f"[red]the merges could not be scored:[/red] {error}")

        try:
            if merges and merges.losses() is None:
                score_merges()
            if search.unfinished():
                run()
                if search.budget() and (budget := search.spending.in_words()):
                    terminal.say(budget)
                if dear := search.too_dear():
                    terminal.say(dear)
                if soup := search.add_soup():
                    terminal.say(soup)
                    run()
            if full := left_out(search.storage()):
                terminal.say(full)
            if bias := missing(prepared.bias_stages()):
                terminal.say("the search is over: measuring the scene bias of the datasets")
                heartbeat.expect(bias)
                for failure in stages.want_each(bias):
                    terminal.say(f"[red]a scene bias could not be measured:[/red] {failure}")
            if curve := missing(curve_stages(search, prepared.data)):
                terminal.say("the search is over: scoring every coefficient of its averages")
                heartbeat.expect(curve)
                stages.want_all(curve)
            if report := missing(report_stages(search, prepared.data)):
                terminal.say("the search is over: reading the report split, once")
                heartbeat.expect(report)
                stages.want_all(report)
        except StageFailed as error:  # after the search: its answer still stands
            terminal.say(f"[red]not all could be scored after the search:[/red] {error}")
        finally:
            watch.stop()
            heartbeat.stop()
            report_so_far.stop()
        watch.catch_up()


def _send_the_rest(tracker: Tracker, watch: Watch, terminal: Terminal) -> None:
    if tracker.away:
        terminal.say(
            f"{tracker.unsent} updates wait for MLflow, which does not answer; trying "
            f"{AWAY_SECONDS:.0f} s more"
        )
    tracker.wait()
    watch.note_runs()


def _write_answer(prepared: Prepared, tracker: Tracker) -> dict[str, Any]:
    """The report, the weights and summary.json: in the storage, then in MLflow."""
    summary, report = _write_report(prepared)
    with tempfile.TemporaryDirectory() as made:
        weights = write_weights(summary, prepared.store, Path(made))
        write_json(Folder(made), "summary.json", summary)
        # The summary comes last: where it is, the answer is whole.
        files = [*_put(prepared.sweep, [*weights, Path(made, "summary.json")]), *report]
    said = [answer(summary), "Planned at its last start:", *plan_lines(prepared.plan)]
    tracker.finish("\n\n".join(said), metrics_of(summary), files)
    return summary


def _write_report(prepared: Prepared) -> tuple[dict[str, Any], list[Path]]:
    """The summary as things stand, and the files of the report on it, on this disk."""
    summary = make_summary(
        prepared.sweep, prepared.search, prepared.data, prepared.store, prepared.bias
    )
    with tempfile.TemporaryDirectory() as made:
        files = write_report(summary, plan_lines(prepared.plan), Path(made))
        return summary, _put(prepared.sweep, files)


def _put(sweep: Sweep, files: list[Path]) -> list[Path]:
    """Put files into the sweep's folder, and on this disk where that is in an object store.

    Returns the files on this disk.
    """
    on_disk = sweep.disk / sweep.settings.name
    for folder in {on_disk, sweep.folder}:
        for file in files:
            folder.write(file.name, file.read_bytes())
    return [Path(on_disk.url, file.name) for file in files]
