"""A sweep on a cluster that starts nodes: Ray's fake provider, whose GPUs are numbers."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluster.ray_session import IN_JOB
from tests.cluster.conftest import until
from tests.cluster.test_job_submission import RAY, wait_for_answer
from tests.ports import free_ports
from tests.sweeps.commands import ROOT, command, environment, write_world_sweep
from tests.toy import CPU

pytestmark = pytest.mark.slow
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # the provider's for it
MOST = 2  # worker nodes


@dataclass
class Growing:
    """A cluster whose head has nothing, and may start MOST nodes of one CPU and one GPU."""

    environment: dict[str, str]
    dashboard: str

    def nodes(self) -> set[str]:
        """The ids of those that are alive, but for the head."""
        return {each["node_id"] for each in self._list("nodes") if not each["is_head_node"]}

    def at_work(self) -> set[str]:
        """The ids of the nodes that workers of a gang are on, or tasks."""
        gangs = [each for each in self._list("actors") if "TrainWorker" in each["class_name"]]
        return {each["node_id"] for each in [*gangs, *self._list("tasks", "RUNNING")]}

    def _list(self, what: str, state: str = "ALIVE") -> list[dict[str, Any]]:
        """Nodes, actors or tasks that are in the `state`, from Ray's State API."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(
            f"{self.dashboard}/api/v0/{what}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            listed: list[dict[str, Any]] = json.load(response)["data"]["result"]["result"]
        return [each for each in listed if each["state"] == state]


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    gcs, dashboard, client, agent = free_ports(4)
    config: dict[str, Any] = {
        "cluster_name": "fake",
        "max_workers": MOST,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 0.3,
        "provider": {
            # By its class: the wheel lacks the defaults that Ray would read for "fake_multinode".
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "gcs_address": f"127.0.0.1:{gcs}",
            "disable_node_updaters": True,
        },
        "available_node_types": {
            "ray.head.default": {
                "resources": {"CPU": 0, "GPU": 0, "on_demand": 1000},
                "node_config": {},
                "max_workers": 0,
            },
            "gpu": {
                "resources": {"CPU": 1, "GPU": 1},
                "node_config": {},
                "min_workers": 0,
                "max_workers": MOST,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {"ssh_user": "nobody"},
        "cluster_synced_files": [],
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "rsync_exclude": [],
        "rsync_filter": [],
    }
    (tmp_path / "autoscaling.yaml").write_text(yaml.safe_dump(config))
    env = {
        **environment(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "SWEEPS_CAN_GROW_BY": json.dumps([{"nodes": MOST, "CPU": 1, "GPU": 1}]),
        # What makes the provider work, and autoscaler v2, as `ray up` and KubeRay have it.
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        # These nodes share a folder, in which each would unpack the package of the working
        # directory anew, away from under the workers of the others: so none is sent.
        "PYTHONPATH": str(ROOT),
        IN_JOB: "{}",
    }
    head = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}"]
    head += ["--num-cpus=0", "--num-gpus=0", '--resources={"on_demand": 1000}']
    head += [f"--autoscaling-config={tmp_path}/autoscaling.yaml"]
    head += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head += [f"--dashboard-agent-listen-port={agent}", "--include-dashboard=true"]
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(head, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for_answer(f"{address}/api/version", process, tmp_path / "head.log")
        for name in ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING"):
            del env[name]  # the head's alone
        yield Growing({**env, "RAY_ADDRESS": f"127.0.0.1:{gcs}"}, address)
    finally:
        processes = [process, *psutil.Process(process.pid).children(recursive=True)]
        for each in processes:
            each.kill()
        process.wait()
        psutil.wait_procs(processes[1:], timeout=20)


def test_a_sweep_makes_a_cluster_without_gpus_grow_uses_every_node_and_lets_them_go(
    growing: Growing, tmp_path: Path
) -> None:
    gpu = {**CPU, "gpus_per_worker": 1}
    sweep = write_world_sweep(
        tmp_path / "sweep",
        trial__mae__epochs=0,
        trial__align__epochs=20,
        search__trials=5,
        search__concurrent="auto",
        execution__align=gpu,
        execution__tasks={**CPU, "gpus_per_worker": 0.5},
        # Else the trials' drivers run on nodes that go as soon as nothing else does.
        execution__driver_resource="on_demand",
    )
    counts: list[tuple[float, int]] = []  # seconds, worker nodes
    started: set[str] = set()
    used: set[str] = set()
    over = threading.Event()
    began = time.monotonic()

    def watch() -> None:
        while not over.wait(0.5):
            nodes = growing.nodes()
            started.update(nodes)
            used.update(growing.at_work())
            counts.append((time.monotonic() - began, len(nodes)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        until(lambda: counts)
        done = subprocess.run(
            command(sweep),
            cwd=sweep.parent,
            env=growing.environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        ended = time.monotonic() - began
        until(lambda: counts[-1][1] == 0, seconds=180)
    finally:
        over.set()
        watcher.join()
    summary = json.loads((sweep.parent / "runs" / "toy" / "summary.json").read_text())
    assert summary["counts"]["complete"] == 5, done.stdout[-3000:]
    changes = [counts[0], *(b for a, b in itertools.pairwise(counts) if a[1] != b[1])]
    told = ", ".join(f"{number} at {seconds:.0f} s" for seconds, number in changes)
    print(f"worker nodes: {told}; the sweep ended at {ended:.0f} s")
    assert changes[0][1] == 0 and max(number for _, number in counts) == MOST
    assert changes[-1][0] > changes[1][0] and started <= used, told
    usage = summary["usage"]
    assert usage["device"] == "GPU" and 0 < usage["at_work"] <= usage["held"] <= usage["up"]
    assert "GPU time: " in done.stdout and "Idle: " in done.stdout
    print(done.stdout[done.stdout.index("GPU time: ") :].splitlines()[0])
