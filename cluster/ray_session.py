"""Connects to the Ray that is there, or starts one on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

ROOT = Path(__file__).resolve().parents[1]
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entry point of a submitted job

# Set for the whole job, not for single actors: a process that differs in its environment cannot be
# taken from those that Ray has started in advance.
WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how soon a run's end, or a dead worker, is seen
    # A node may have to be started first. After that an elastic stage makes do with fewer.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process fewer a run; nobody asks it
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",  # Train sets it for its own processes
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@contextmanager
def connected(cpus: int | None = None) -> Iterator[str]:
    """Inside, Ray is there; yields a line that says which.

    With $RAY_ADDRESS (a submitted job has it) that cluster, else a local one with `cpus` logical
    CPUs (all, if None), which ends with this process however it ends.

    Raises:
        OSError: a local one does not start.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    environment: dict[str, Any] = {"env_vars": dict(WORKER_ENVIRONMENT)}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        if IN_JOB not in os.environ:  # a job's files are on every node already
            environment["working_dir"] = str(ROOT)
        ray.init(address=address, runtime_env=environment, **quiet)
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment["env_vars"]["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        own: dict[str, Any] = {"address": "local", "num_cpus": cpus, "runtime_env": environment}
        try:
            # The dashboard is what gives back the resources of a Train run whose caller died.
            ray.init(include_dashboard=True, **own, **quiet)
        except Exception as error:  # Ray raises its plainest kind where a process is too slow
            raise OSError(f"Ray did not start: {error}") from error
    try:
        yield _described("the cluster at " + address if address else "a Ray of its own")
    finally:
        ray.shutdown()


def _described(what: str) -> str:
    there = ray.cluster_resources()
    return f"Running on {what}: {there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs"
