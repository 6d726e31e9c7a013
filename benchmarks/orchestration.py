"""What a trial costs beside its training: no-op trials through driver, search, store and MLflow.

A trial is one alignment on a mix of its own, features of two splits and a probe: five stages, of
which one is shared; none trains anything. Parts:

- storage: 10,000 stages are in the store; seconds to list them, to sum up sizes, to price.
- here: a sweep without Ray, its stages published by the sweep's own process.
- ray: the same sweep through Ray, as the command runs it.
- tune: as many Tune trials that only report a number: what Tune itself takes of that.
- stock: Tune, a TorchTrainer in each trial, OptunaSearch and MLflowLoggerCallback.

Each part runs in a process of its own. A sweep's figures are wall seconds a trial up to trial 10,
20, 100 and 1,000 (over the later half of them), processor seconds and memory of the driver.

    python benchmarks/orchestration.py                              all of it: an hour or so
    python benchmarks/orchestration.py --trials 20 --stock-trials 2      a rehearsal
    python benchmarks/orchestration.py --parts storage here         what needs no Ray

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Ray's own is 15: where others use the machine too, that would compare priorities.
os.environ.setdefault("RAY_worker_niceness", "0")

import psutil  # noqa: E402

from benchmarks import no_op_stage  # noqa: E402

AT = (10, 20, 100, 1000)  # trials
Parts = dict[str, Callable[[argparse.Namespace], dict[str, Any]]]
WORLD = {
    "clips_per_source": 16,
    "heldout_per_source": 4,
    "downstream_train": 8,
    "downstream_selection": 8,
    "downstream_report": 8,
}
SPACE = """parameters:
  align.mixture.shares: {type: simplex, over: [synthetic, scenes], step: 0.0001}
"""


def main() -> int:
    parser = parser_of(__doc__, PARTS)
    parser.add_argument("--stages", type=int, default=10_000, help="in the part storage")
    parser.set_defaults(trials=1000, stock_trials=20, concurrent=2)
    arguments = parser.parse_args()
    if is_a_part(arguments, PARTS):
        return 0
    found = {part: in_a_process(part, arguments) for part in arguments.parts}
    result = {
        "benchmark": "orchestration",
        "load": round(os.getloadavg()[0], 1),
        **found,
        **compared(found),
    }
    print(json.dumps(result))
    return 0


def parser_of(description: str | None, parts: Parts) -> argparse.ArgumentParser:
    """Options of a benchmark of such parts; its own defaults are still to be set."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=[*parts])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--stock-trials", type=int, help="they take seconds each")
    parser.add_argument("--concurrent", type=int, help="trials at a time")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a part's own process
    return parser


def is_a_part(arguments: argparse.Namespace, parts: Parts) -> bool:
    """Whether this process is that of one part, whose figures are printed then."""
    if arguments.folder:
        (part,) = arguments.parts
        print(json.dumps(parts[part](arguments)))
    return bool(arguments.folder)


def in_a_process(
    part: str, arguments: argparse.Namespace, script: str = __file__
) -> dict[str, Any]:
    """The figures of the script's part; what else it prints goes to this process's terminal."""
    given = vars(arguments) | {"parts": part}
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        given["folder"] = folder
        options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        command = [sys.executable, script, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *printed, last = done.stdout.splitlines()
    print("\n".join(printed[-5:]), f"{part}: {last}", sep="\n", flush=True)
    figures: dict[str, Any] = json.loads(last)
    return figures


def compared(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of one of our trials beyond Tune's, and ours as a part of stock's.

    Each over trials of the same numbers: the later half up to the last of AT that both came to,
    `up_to_trial`; later trials take longer.
    """
    figures: dict[str, float] = {}
    for other in ("tune", "stock"):
        if not {"ray", other} <= found.keys():
            continue
        ours, theirs = (found[part]["seconds_per_trial_at"] for part in ("ray", other))
        if both := ours.keys() & theirs.keys():
            last = max(both, key=int)
            figures[f"{other}_up_to_trial"] = int(last)
            if other == "tune":
                figures["ms_a_trial_beyond_tune"] = round(1000 * (ours[last] - theirs[last]))
            else:
                figures["of_stock"] = round(ours[last] / theirs[last], 3)
    return figures


class Marks:
    """When trials ended, and what the process had used by then."""

    def __init__(self) -> None:
        self._marks = [self._now()]

    def ended(self) -> None:
        self._marks.append(self._now())

    def _now(self) -> tuple[float, float, int]:
        # No process is kept: it cannot be pickled, and Tune pickles whoever has these.
        return time.monotonic(), time.process_time(), psutil.Process().memory_info().rss

    def figures(self) -> dict[str, Any]:
        """Over all trials, and over the later half of those up to each of AT."""
        ended = len(self._marks) - 1
        at = sorted({min(each, ended) for each in (*AT, ended)})
        return {
            "trials": ended,
            "seconds_per_trial_with_start": self._a_trial(0, 0, at[-1]),
            "seconds_per_trial_late": self._a_trial(0, at[-1] // 2, at[-1]),
            "seconds_per_trial_at": {str(n): self._a_trial(0, n // 2, n) for n in at},
            "cpu_seconds_per_trial_at": {str(n): self._a_trial(1, n // 2, n) for n in at},
            "driver_megabytes_at": {str(n): round(self._marks[n][2] / 1e6) for n in (0, *at)},
        }

    def _a_trial(self, which: int, first: int, last: int) -> float:
        return round((self._marks[last][which] - self._marks[first][which]) / (last - first), 4)


# Storage


def storage(arguments: argparse.Namespace) -> dict[str, Any]:
    from sweeps.planning.costs import StageCosts
    from sweeps.storage_use import storage_use
    from trainables.stage_store import StageStore

    sweep = no_op_sweep(arguments)
    root = arguments.folder / "runs" / "stages"
    write_stages(root, arguments.stages, sweep)
    seconds: dict[str, float] = {}

    def timed(name: str, do: Callable[[], Any]) -> Any:
        began, cpu = time.monotonic(), time.process_time()
        found = do()
        seconds[name] = round(time.monotonic() - began, 3)
        seconds[f"{name}_cpu"] = round(time.process_time() - cpu, 3)
        return found

    store = StageStore(root)
    assert len(timed("list", store.records)) == arguments.stages
    timed("list_again", store.records)
    timed("sum_up_sizes", lambda: storage_use(StageStore(root), None))
    timed("price_book", lambda: StageCosts({}, StageStore(root), sweep.settings.execution))
    return {"stages": arguments.stages, "seconds": seconds}


def write_stages(root: Path, count: int, sweep: Any) -> None:
    """So many finished stages as trials leave them: record, curve, artifact, attempts of each.

    Written without what makes them survive a power cut, which takes time and is not looked at.
    """
    from trainables.data.catalog import load_catalog
    from trainables.data.demo_world.render import write_catalog
    from trainables.stage_store import StageStore
    from trainables.trial import trial_stages

    data = load_catalog(write_catalog(sweep.settings.datasets.demo_world, root.parent / "world"))
    store, template = StageStore(root.parent / "templates"), []
    for stage in trial_stages(sweep.settings.trial, data).searched():
        store.begin_attempt(stage.identity)
        no_op_stage.run_stage(stage, store, data, None, lambda: False)
        folder = store.folder(stage.identity)
        files = {file.name: folder.read(file.name) for file in folder.listed()}
        template.append((stage.identity, files))
    for number in range(count):
        old, files = template[number % len(template)]
        identity = f"{number:016x}"
        (root / identity).mkdir(parents=True)
        for name, content in files.items():
            (root / identity / name).write_bytes(content.replace(old.encode(), identity.encode()))


# Sweeps


def no_op_sweep(arguments: argparse.Namespace) -> Any:
    from sweeps.sweep import Sweep

    folder: Path = arguments.folder
    (folder / "space.yaml").write_text(SPACE)
    changes = {
        "name": "no-op",
        "storage": str(folder / "runs"),
        **{f"datasets.demo_world.{name}": count for name, count in WORLD.items()},
        "trial.align.epochs": 1,
        "trial.align.clips_per_epoch": 32,
        "trial.align.heldout_clips": 0,
        "trial.downstream": ["low_bias"],
        "search.space": str(folder / "space.yaml"),
        "search.trials": arguments.trials,
        "search.concurrent": arguments.concurrent,
        "search.points": [],
        "search.law": None,
    }
    return Sweep(ROOT / "sweeps" / "demo.yaml", changes)


def datasets(sweep: Any) -> Any:
    from trainables.data.catalog import load_catalog
    from trainables.data.demo_world.render import render_world

    world, folder = sweep.settings.datasets.demo_world, Path(sweep.disk.url) / "worlds"
    return load_catalog(render_world(world, folder, workers=1, on_progress=lambda *_: None))


def run_marked(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sweep from its file to its answer; what its trials took, and all of it."""
    from sweeps.run import run_sweep
    from sweeps.searching.search import Search
    from sweeps.watching.terminal import make_console

    sweep = no_op_sweep(arguments)
    datasets(sweep)  # rendered: in nobody's time
    marks, complete = Marks(), Search.complete

    def complete_and_mark(search: Search, *details: Any) -> None:
        complete(search, *details)
        marks.ended()

    Search.complete = complete_and_mark  # type: ignore[method-assign, assignment]
    began, cpu = time.monotonic(), time.process_time()
    console = make_console()
    console.quiet = True
    summary = run_sweep(sweep, console)
    assert summary["counts"]["complete"] == arguments.trials, summary["counts"]
    return {
        **marks.figures(),
        "whole_command_seconds": round(time.monotonic() - began, 1),
        "whole_command_cpu_seconds": round(time.process_time() - cpu, 1),
        "most_megabytes": round(most_memory() / 1e6),
        "mlflow_runs": mlflow_runs(arguments.folder / "runs" / "mlflow.db", "no-op"),
    }


def most_memory() -> int:
    """Bytes that this process had resident at the most."""
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mlflow_runs(database: Path, experiment: str) -> int:
    import sqlite3

    with sqlite3.connect(database) as connection:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM runs JOIN experiments AS of USING (experiment_id) "
            "WHERE of.name = ?",
            [experiment],
        ).fetchone()
    return int(count)


class StagesHere:
    """Publishes stages in this process, and says of them what the `Stages` actor would."""

    def __init__(self, store: Any, data: Any) -> None:
        self._store, self._data = store, data
        self._events: list[dict[str, Any]] = []

    def bring(self, stage: Any) -> None:
        if self._store.record(stage.identity) is not None:
            self._tell(stage, "reused")
            return
        self._store.begin_attempt(stage.identity)
        self._tell(stage, "started")
        no_op_stage.run_stage(stage, self._store, self._data, None, lambda: False)
        for point in self._store.progress(stage.identity):
            self._tell(stage, "progress", point=point)
        self._tell(stage, "finished", record=asdict(self._store.record(stage.identity)))

    def events(self, since: int) -> tuple[list[dict[str, Any]], int]:
        return self._events[since:], len(self._events)

    def status(self) -> list[dict[str, Any]]:
        return self._events[-1:]

    def usage(self) -> dict[str, dict[str, float]]:
        return {name: {"CPU": 1.0, "GPU": 0.0} for name in ("up", "held", "at_work")}

    def _tell(self, stage: Any, state: str, **more: Any) -> None:
        event = {"identity": stage.identity, "kind": stage.kind, "state": state, "trials": []}
        self._events.append({**event, "time": time.time(), **more})


def here(arguments: argparse.Namespace) -> dict[str, Any]:
    from sweeps import run
    from sweeps.prepare import Prepared
    from sweeps.reporting.live_report import LiveReport
    from sweeps.reporting.summary import report_stages
    from sweeps.watching.heartbeat import Heartbeat
    from sweeps.watching.terminal import Terminal
    from sweeps.watching.usage import Usage
    from sweeps.watching.watch import Watch
    from trainables.trial import trial_stages

    def run_what_is_not_done(prepared: Prepared, watch: Watch, terminal: Terminal) -> None:
        search, stages = prepared.search, StagesHere(prepared.store, prepared.data)
        watch.follow(stages.events)
        heartbeat = Heartbeat(search, prepared.data, stages, Usage(device="CPU"))
        report_so_far = LiveReport(search, lambda: run._write_report(prepared))
        heartbeat.start()
        report_so_far.start()
        while (assignment := search.ask()) is not None:
            parts = trial_stages(search.config(search.records[assignment.number]), prepared.data)
            for part in parts.searched():
                stages.bring(part)
            records = {n: prepared.store.record(end.identity) for n, end in parts.scored.items()}
            accuracies = {n: r.metrics["accuracy"] for n, r in records.items() if r}
            identities = {
                f"{part.kind} {part.identity}": part.identity for part in parts.searched()
            }
            search.complete(assignment.number, accuracies, identities)
        for end in report_stages(search, prepared.data):
            for stage in end.chain():
                stages.bring(stage)
        watch.stop()
        heartbeat.stop()
        report_so_far.stop()
        watch.catch_up()

    run._run_what_is_not_done = run_what_is_not_done
    return run_marked(arguments)


STAND_IN = "from benchmarks.no_op_stage import stand_in\n\nstand_in()\n"


def through_ray(arguments: argparse.Namespace, at_start: str = STAND_IN) -> dict[str, Any]:
    """`at_start`: what every process of Ray's runs first."""
    stand_in = arguments.folder / "stand_in"
    stand_in.mkdir()
    (stand_in / "sitecustomize.py").write_text(at_start)
    # `connected` puts the project before it and hands both to the workers; not to this process.
    os.environ["PYTHONPATH"] = f"{stand_in}{os.pathsep}{ROOT}"
    return run_marked(arguments)


# What others take


@contextmanager
def quiet_ray() -> Iterator[None]:
    import ray

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(address="local", include_dashboard=True, log_to_driver=False, runtime_env=environment)
    try:
        yield
    finally:
        ray.shutdown()


DRIVER = {"CPU": 0, "memory": 1}  # as ours: what waits holds no CPU


def tune_alone(arguments: argparse.Namespace) -> dict[str, Any]:
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        tune.report({"score": config["share"]})

    with quiet_ray():
        return fitted(arguments.trials, trial, arguments, [], reuse_actors=True)


def stock(arguments: argparse.Namespace) -> dict[str, Any]:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    folder = str(arguments.folder / "train")

    def trial(config: dict[str, Any]) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.tune import get_context
        from ray.tune.integration.ray_train import TuneReportCallback

        def train(given: dict[str, Any]) -> None:
            import ray.train

            ray.train.report({"score": given["share"]})

        TorchTrainer(
            train,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name=f"train-{get_context().get_trial_id()}",
                storage_path=folder,
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    database = arguments.folder / "mlflow.db"
    logger = MLflowLoggerCallback(tracking_uri=f"sqlite:///{database}", experiment_name="stock")
    with quiet_ray():
        figures = fitted(arguments.stock_trials, trial, arguments, [logger], reuse_actors=False)
    return {**figures, "mlflow_runs": mlflow_runs(database, "stock")}


def fitted(
    trials: int,
    trial: Callable[[dict[str, Any]], None],
    arguments: argparse.Namespace,
    callbacks: list[Any],
    *,
    reuse_actors: bool,
) -> dict[str, Any]:
    """Figures of a Tuner with OptunaSearch over `trial`, with its first trial's start-up."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    marks = Marks()

    class Mark(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            marks.ended()

    tuner = tune.Tuner(
        tune.with_resources(trial, DRIVER),
        param_space={"share": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=trials,
            search_alg=OptunaSearch(),
            max_concurrent_trials=arguments.concurrent,
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(
            storage_path=str(arguments.folder / "tune"), callbacks=[*callbacks, Mark()], verbose=0
        ),
    )
    results = tuner.fit()
    assert not results.errors, results.errors
    return marks.figures()


PARTS: Parts = {
    "storage": storage,
    "here": here,
    "ray": through_ray,
    "tune": tune_alone,
    "stock": stock,
}

if __name__ == "__main__":
    sys.exit(main())
