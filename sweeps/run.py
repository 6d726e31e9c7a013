"""A sweep from its file to its answer: check, plan, run what is not done, report."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.tracking import Tracker
from search_spaces.parameters import SimplexParameter
from search_spaces.space import Space, load_space
from sweeps.checks import check_sources, check_space, check_storage, sources_of, within_cap
from sweeps.plan import Plan, make_plan, plan_lines, print_plan
from sweeps.records import check_same_sweep, read_sweep, write_json, write_sweep
from sweeps.report import make_summary, report_stages, write_report, write_weights
from sweeps.search import Search, given_trials
from sweeps.sweep import MAY_CHANGE, Sweep
from sweeps.terminal import Terminal, print_leaderboard
from sweeps.watch import Watch
from trainables.data.catalog import Dataset, check_files, load_catalog
from trainables.data.demo_world.render import render_world, write_catalog
from trainables.data.demo_world.settings import WorldSettings
from trainables.settings import load_yaml
from trainables.stage import Stage
from trainables.stage_store import StageStore


def run_sweep(sweep: Sweep, console: Console, *, dry_run: bool = False) -> dict[str, Any]:
    """Run the sweep to its end. Returns the summary; an empty one for a dry run.

    Raises:
        ValueError: what the user can mend, before anything is trained.
    """
    space = load_space(sweep.space_file)
    check_space(sweep, space)
    if not dry_run:
        check_storage(sweep.folder)
    data = _datasets(sweep, console, dry_run=dry_run)
    sources = sources_of(sweep, space)
    check_sources(sweep, sources, data)
    sizes = {source: len(data[source].split("train")) for source in sources}
    given, left_out = within_cap(sweep, given_trials(sweep, space, sizes), data)
    settings = _resolved(sweep, data)
    stored = read_sweep(sweep.folder)
    if stored is not None:
        check_same_sweep(stored, settings, MAY_CHANGE)

    store = StageStore(sweep.storage / "stages")
    search = Search(sweep, space, given, data)
    known = search.known()
    plan = make_plan(known, sweep.settings.search.trials - len(known), data, store)
    console.print(f"[bold]{sweep.settings.name}[/bold]: {sweep.settings.question}")
    console.print(f"results: {sweep.folder}", soft_wrap=True)
    print_plan(plan, console)
    for line in left_out:
        console.print(line)
    if dry_run:
        return {}

    tracker = _start_tracker(sweep, space, plan, settings)
    write_sweep(sweep.folder, settings)
    with Terminal(console, sweep.settings.search.trials) as terminal:
        watch = Watch(search, data, store, tracker, terminal)
        watch.catch_up()
        search.listen(watch.changed)
        _run_what_is_not_done(sweep, search, data, sorted(sources), store, watch, terminal)
    summary = make_summary(sweep, search, data, store)
    files = [sweep.folder / "summary.json", *write_report(summary, plan_lines(plan), sweep.folder)]
    write_json(files[0], summary)
    weights = write_weights(summary, store, sweep.folder)
    tracker.finish(
        _answer(summary), _metrics(summary), [*files, *([weights] if weights is not None else [])]
    )
    print_leaderboard(summary, console)
    console.print(f"Report: {sweep.folder / 'report.md'}", soft_wrap=True)
    if sweep.settings.tracking.uri is None:
        console.print(f"MLflow: `make ui STORAGE={sweep.storage}`, then", soft_wrap=True)
        console.print(f"        http://localhost:5000/{tracker.page}", soft_wrap=True)
    else:
        console.print("MLflow:", tracker.page, "behind the server's address", soft_wrap=True)
    if tracker.unsent:
        console.print(
            f"[yellow]MLflow lacks {tracker.unsent} updates; run the same command again to send "
            "them.[/yellow]"
        )
    return summary


def _answer(summary: Mapping[str, Any]) -> str:
    """The parent run's description once the sweep is over, Markdown."""
    best = summary["recommended"]
    if best is None:
        return f"**{summary['question']}**\n\nNo trial was completed."
    return (
        f"**{summary['question']}**\n\nRecommended: trial {best['trial']}, {best['name']}; score "
        f"{best['score']:.1%} on the selection split. The report, its plots and the weights are "
        "among the artifacts."
    )


def _metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    best = summary["recommended"]
    metrics = {f"trials/{state}": count for state, count in summary["counts"].items()}
    metrics |= {f"cost/{name}": value for name, value in summary["cost"].items()}
    if best is not None:
        metrics["best/score"] = best["score"]
        if best["report"]:
            metrics["best/report_score"] = best["report"]["score"]
    return metrics


def _datasets(sweep: Sweep, console: Console, *, dry_run: bool) -> dict[str, Dataset]:
    """The sweep's datasets, their files checked; a demo world is rendered, except in a dry run."""
    settings = sweep.settings.datasets
    if settings.catalog is not None:
        data = load_catalog(sweep.file.parent / settings.catalog)
        for dataset in data.values():
            check_files(dataset)
        return data
    assert settings.demo_world is not None
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            return load_catalog(write_catalog(settings.demo_world, Path(folder)))
    return load_catalog(_render(settings.demo_world, sweep.storage / "worlds", console))


def _render(world: WorldSettings, folder: Path, console: Console) -> Path:
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if 10 * done // total > told:
            told = 10 * done // total
            console.print(f"rendering the demo's world: {done:,} of {total:,} clips")

    return render_world(world, folder, workers=2, on_progress=tell)


def _resolved(sweep: Sweep, data: Mapping[str, Dataset]) -> dict[str, Any]:
    """What sweep.json keeps: the settings, the space, the data's hashes."""
    return {
        **sweep.settings.model_dump(mode="json"),
        "space": load_yaml(sweep.space_file),
        "data": {name: dataset.content_hash for name, dataset in sorted(data.items())},
    }


def _start_tracker(sweep: Sweep, space: Space, plan: Plan, settings: Mapping[str, Any]) -> Tracker:
    uri, artifacts = sweep.settings.tracking.uri, None
    if uri is None:
        uri, artifacts = f"sqlite:///{sweep.storage}/mlflow.db", str(sweep.storage / "mlartifacts")
    tracker = Tracker(uri, sweep.settings.name, artifacts)
    tags = {f"data.{name}": value for name, value in settings["data"].items()}
    tags["allow_real_humans"] = str(sweep.settings.allow_real_humans).lower()
    tracker.start(
        settings,
        "\n\n".join([f"**{sweep.settings.question}**", *plan_lines(plan)]),
        tags,
        datasets=sweep.settings.trial.downstream,
        varied=_varied(space),
    )
    return tracker


def _varied(space: Space) -> list[str]:
    """The dotted keys of what is searched, as a trial's parameters name them."""
    keys = []
    for path, parameter in space.parameters.items():
        sources = parameter.over if isinstance(parameter, SimplexParameter) else ()
        keys += [f"{path}.{source}" for source in sources] or [path]
    return keys


def _run_what_is_not_done(
    sweep: Sweep,
    search: Search,
    data: Mapping[str, Dataset],
    sources: list[str],
    store: StageStore,
    watch: Watch,
    terminal: Terminal,
) -> None:
    """Trials, then the report split of those that the sweep recommends. All done: starts no Ray."""

    def missing_reports() -> list[Stage]:
        return [s for s in report_stages(search, data) if store.record(s.identity) is None]

    if not search.unfinished() and not missing_reports():
        terminal.say("every trial is finished; nothing is trained")
        return

    # Imported here: Ray takes seconds, and a finished sweep needs none of it.
    from cluster.ray_session import connected
    from cluster.stages import StagesHandle
    from cluster.tune import run_trials

    with connected() as session:
        terminal.say(session)
        stages = StagesHandle(store, data, sweep.settings.execution)
        watch.follow(stages.events)
        try:
            if search.unfinished():
                run_trials(
                    search,
                    stages,
                    sources=sources,
                    concurrent=sweep.settings.search.concurrent,
                    early_stopping=sweep.settings.search.early_stopping,
                    scratch=sweep.folder / "tune",
                )
            if missing := missing_reports():
                terminal.say("the search is over: reading the report split, once")
                stages.want_all(missing)
        finally:
            watch.stop()
