"""What telling MLflow costs: training at 10 metrics a step, and a sweep of 1,000 trials.

Training: steps of a small network in one process; after each step 10 metrics are told, as our
stages tell theirs (a line in a file, which the sweep's process reads and sends in the background),
and naively (one `log_metric` a metric, over HTTP to the same server), in turns.
Trials: no-op trials with one stage each, through the Tracker into SQLite; the time of the sweep's
process around trials 10, 100 and 1,000, and the time to open what is there at the end; beside it
trials logged naively (one call a parameter and a metric) into the same database.

    python benchmarks/tracking.py                  5 repetitions
    python benchmarks/tracking.py --repeats 1 --trials 100

The last line is JSON: medians, with the lowest and highest of the repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

from cluster.run_contents import as_parameters  # noqa: E402
from cluster.tracking import Tracker  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402
from tests.ports import free_port  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402

METRICS, STEPS, NAIVE_STEPS = 10, 60, 10
WINDOW = 10  # trials that are timed together
NAIVE_TRIALS = 3
VARIED = ["mae.epochs", "align.mixture.shares.synthetic", "align.mixture.shares.scenes"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, mlflow_server(Path(folder)) as address:
        for number in range(arguments.repeats):
            here = Path(folder) / str(number)
            here.mkdir()
            found.append({**training(address, here, number), **many_trials(here, arguments.trials)})
            print(json.dumps(found[-1]), flush=True)
    print(json.dumps({"benchmark": "tracking", "repeats": len(found), **summed_up(found)}))
    return 0


def summed_up(found: list[dict[str, float]]) -> dict[str, Any]:
    """The median of each figure, and [lowest, highest]."""
    values = {key: [each[key] for each in found] for key in found[0]}
    medians = {key: round(statistics.median(each), 3) for key, each in values.items()}
    spread = {key: [round(min(each), 3), round(max(each), 3)] for key, each in values.items()}
    return {**medians, "spread": spread}


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    more = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **more}
        )
    try:
        for _ in range(600):
            try:
                urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def training(address: str, folder: Path, number: int) -> dict[str, float]:
    """Milliseconds a step for training and for telling, ours and naive; the curves are checked."""
    store = StageStore(folder / "stages")
    tracker = Tracker(address, f"curves-{number}", None, None)
    tracker.start({}, "", {}, datasets=[], varied=[], must_answer=True)
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(f"curves-{number}")
    assert experiment is not None
    naive = client.create_run(experiment.experiment_id).info.run_id

    def tell_ours(point: dict[str, float]) -> None:
        store.add_progress("stage", point)

    def tell_naively(point: dict[str, float]) -> None:
        for key, value in point.items():
            client.log_metric(naive, key, value, step=int(point["epoch"]))

    ours = steps(tell_ours, STEPS)
    cpu = time.process_time()
    for point in store.progress("stage"):  # as the sweep's process hears of it
        tracker.stage_progress("stage", "align", [point])
    tracker.wait()
    cpu = time.process_time() - cpu
    assert not tracker.unsent
    naively = steps(tell_naively, NAIVE_STEPS)
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'stage'")
    for metric in range(METRICS - 1):
        history = client.get_metric_history(run.info.run_id, f"metric_{metric}")
        assert [each.step for each in history] == list(range(1, STEPS + 1)), "an incomplete curve"
    return {
        "step_ms": ours["step_ms"],
        "told_ms_per_step": ours["told_ms"],
        "naive_told_ms_per_step": naively["told_ms"],
        "share_of_training_percent": 100 * ours["told_ms"] / ours["step_ms"],
        "naive_share_of_training_percent": 100 * naively["told_ms"] / naively["step_ms"],
        "sweep_process_cpu_ms_per_step": 1000 * cpu / STEPS,
    }


def steps(tell: Callable[[dict[str, float]], None], count: int) -> dict[str, float]:
    """Medians over training steps, each told of with METRICS metrics."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(768, 3072), torch.nn.GELU(), torch.nn.Linear(3072, 768)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randn(256, 768)
    trained, told = [], []
    for step in range(1, count + 1):
        began = time.perf_counter()
        loss = (model(tokens) - tokens).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = loss.item()
        between = time.perf_counter()
        metrics = {f"metric_{i}": value + i for i in range(METRICS - 1)}
        tell({"epoch": step, **metrics, "time": time.time()})
        told.append(time.perf_counter() - between)
        trained.append(between - began)
    return {
        "step_ms": 1000 * statistics.median(trained),
        "told_ms": 1000 * statistics.median(told),
    }


def many_trials(folder: Path, trials: int) -> dict[str, float]:
    """Milliseconds a trial: what the teller waits, and all CPU time of the process."""
    sweep = Sweep(ROOT / "sweeps" / "demo.yaml", {"storage": str(folder)})
    uri = f"sqlite:///{folder}/mlflow.db"
    tracker = opened(uri, sweep)
    mixes = [settings_of(share / 20, sweep) for share in range(21)]
    found: dict[str, float] = {}
    number = 0
    for end in sorted({min(each, trials) for each in (10, 100, 1000)}):
        while number < end - WINDOW:
            tell_trial(tracker, number, mixes[number % len(mixes)])
            number += 1
            if number % 50 == 0:
                tracker.wait()
        tracker.wait()
        waited, cpu = 0.0, time.process_time()
        for _ in range(WINDOW):
            began = time.perf_counter()
            tell_trial(tracker, number, mixes[number % len(mixes)])
            waited += time.perf_counter() - began
            number += 1
        tracker.wait()
        assert not tracker.unsent
        found[f"trial_{end}_teller_waits_ms"] = 1000 * waited / WINDOW
        found[f"trial_{end}_cpu_ms"] = 1000 * (time.process_time() - cpu) / WINDOW
    began, cpu = time.perf_counter(), time.process_time()
    opened(uri, sweep)
    found[f"open_{trials}_seconds"] = time.perf_counter() - began
    found[f"open_{trials}_cpu_seconds"] = time.process_time() - cpu
    cpu = time.process_time()
    for _ in range(NAIVE_TRIALS):
        naive_trial(uri, sweep.settings.name, mixes[0])
    found["naive_trial_cpu_ms"] = 1000 * (time.process_time() - cpu) / NAIVE_TRIALS
    return found


def opened(uri: str, sweep: Sweep) -> Tracker:
    tracker = Tracker(uri, sweep.settings.name, None, None)
    settings = sweep.settings.model_dump(mode="json")
    tracker.start(
        settings, "", {}, datasets=["low_bias", "high_bias"], varied=VARIED, must_answer=True
    )
    return tracker


def curve() -> list[dict[str, float]]:
    names = ("loss", "lr", "train_accuracy", "heldout/synthetic", "heldout/scenes", "seconds")
    return [
        {"epoch": epoch, **{name: epoch / 7 for name in names}, "time": time.time()}
        for epoch in (1, 2, 3)
    ]


SCORES = {"score": 0.5, "accuracy/low_bias": 0.4, "accuracy/high_bias": 0.6}


def settings_of(share: float, sweep: Sweep) -> dict[str, Any]:
    values = {"align.mixture.shares": {"synthetic": share, "scenes": round(1 - share, 2)}}
    return sweep.trial_with(values, "a trial").model_dump(mode="json")


def tell_trial(tracker: Tracker, number: int, settings: dict[str, Any]) -> None:
    identity, now = f"{number:016x}", time.time()
    tracker.trial_started(number, "0.5 synthetic + 0.5 scenes", settings, {}, now)
    for point in curve():
        tracker.stage_progress(identity, "align", [point])
    stage = {
        "kind": "align",
        "code_version": 1,
        "settings": {key: settings[key] for key in ("seed", "model", "clip", "align")},
        "data": {"synthetic": "h1", "scenes": "h2"},
        "inputs": {},
    }
    tracker.stage_finished(
        {
            "identity": identity,
            "stage": stage,
            "metrics": {"loss": 3 / 7},
            "cost": {"device_seconds": 12.0, "clips": 100},
            "mixture": {},
            "trained_on": {},
            "attempts": 1,
            "finished_at": now,
        },
        ["scenes", "synthetic"],
    )
    tracker.trial_finished(number, "complete", SCORES, {"align": identity}, None, now)


def naive_trial(uri: str, name: str, settings: dict[str, Any]) -> None:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id).info.run_id
    for key, value in as_parameters(settings).items():
        client.log_param(run, key, value)
    for point in curve():
        for metric, number in point.items():
            client.log_metric(run, metric, number, step=int(point["epoch"]))
    for metric, score in SCORES.items():
        client.log_metric(run, metric, score)
    client.set_terminated(run)


if __name__ == "__main__":
    sys.exit(main())
