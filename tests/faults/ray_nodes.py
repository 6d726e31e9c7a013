"""A Ray cluster whose nodes are processes of their own, to be killed as machines are lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.conftest import until
from tests.ports import free_ports
from tests.sweeps.commands import environment

RAY = str(Path(sys.executable).parent / "ray")
# Ray's own, which live as long as the cluster; the first comes with the first Train run.
OF_THE_CLUSTER = ("_AutoscalingCoordinatorActor", "JobSupervisor")
TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class Node:
    """One `ray start --block`, in a session of its own with all that it starts."""

    process: subprocess.Popen[bytes]
    name: str

    def processes(self) -> list[psutil.Process]:
        try:
            here = psutil.Process(self.process.pid)
            return [here, *here.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def find(self, title: str) -> list[psutil.Process]:
        """Its processes with `title` in their command line."""
        found = []
        for each in self.processes():
            try:
                if title in " ".join(each.cmdline()):
                    found.append(each)
            except psutil.NoSuchProcess:
                continue
        return found

    @property
    def raylet(self) -> psutil.Process:
        (raylet,) = [each for each in self.processes() if each.name() == "raylet"]
        return raylet

    def lives(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """As when the machine is switched off: all of it, at once."""
        processes = self.processes()
        for each in processes:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                pass
        self.process.wait()
        psutil.wait_procs(processes, timeout=20)


@dataclass
class RayNodes:
    """A head without CPUs, which trains nothing, and nodes that join it."""

    folder: Path
    trace: Path | None = None  # where the nodes note each step; None: a file in the folder
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Short, for the paths of Ray's sockets.
        self._temporary = tempfile.TemporaryDirectory(
            prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.trace = self.trace or self.folder / "steps"
        token = self.folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        self.gcs, self.dashboard, self.client, self.agent = free_ports(4)
        self._environment = {
            **environment(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parent / "trace"),
            "STEP_TRACE": str(self.trace),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        head = self._start(
            "head",
            *("--head", "--num-cpus=0", f"--port={self.gcs}", "--include-dashboard=true"),
            *(f"--dashboard-port={self.dashboard}", f"--ray-client-server-port={self.client}"),
            f"--dashboard-agent-listen-port={self.agent}",
        )
        self.head = head
        until(self._answers, seconds=120)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gcs}"

    @property
    def submit_environment(self) -> dict[str, str]:
        """For a process that uses the cluster."""
        return {**self._environment, "RAY_ADDRESS": self.address}

    def add_node(self, cpus: int = 1) -> Node:
        number = len(self.nodes)
        before = set(self.alive())  # one that was just killed may be among them
        node = self._start(f"node-{number}", f"--address={self.address}", f"--num-cpus={cpus}")
        until(lambda: set(self.alive()) - before, seconds=120)
        return node

    def alive(self) -> dict[str, int]:
        """Ray's id of each node that it takes for alive."""
        return {
            each["node_id"]: each["is_head_node"]
            for each in self.ask("nodes")
            if each["state"] == "ALIVE"
        }

    def node_id(self, node: Node) -> str:
        """Ray's id of it, which stands in the command line of its agent or its raylet."""
        line = " ".join(node.raylet.cmdline())
        (found,) = [each for each in self.alive() if each in line]
        return found

    def drain(self, node: Node, seconds: int) -> None:
        """Tell Ray that the node will be taken away, as what watches a spot machine does."""
        subprocess.run(
            [
                *(RAY, "drain-node", f"--address={self.address}"),
                f"--node-id={self.node_id(node)}",
                *("--reason", "DRAIN_NODE_REASON_PREEMPTION"),
                *("--reason-message", "spot", f"--deadline-remaining-seconds={seconds}"),
            ],
            env=self._environment,
            check=True,
            timeout=120,
        )

    def find(self, title: str) -> list[psutil.Process]:
        return [each for node in self.nodes for each in node.find(title)]

    def left_behind(self) -> list[str]:
        """What a sweep that is over should have given back: placement groups, actors, CPUs."""
        groups = [
            f"placement group {each['placement_group_id']} {each['state']}"
            for each in self.ask("placement_groups")
            if each["state"] != "REMOVED"
        ]
        actors = [
            f"actor {each['class_name']} {each['state']}"
            for each in self.ask("actors")
            if each["state"] != "DEAD" and each["class_name"] not in OF_THE_CLUSTER
        ]
        return groups + actors

    def groups_without_workers(self) -> set[str]:
        """The placement groups of gangs, those with CPUs or GPUs, in which no worker lives."""
        used = {each["placement_group_id"] for each in self.ask("actors") if _lives(each)}
        groups = [each for each in self.ask("placement_groups") if each["state"] != "REMOVED"]
        return {each["placement_group_id"] for each in groups if _trains(each)} - used

    def ask(self, what: str) -> list[dict[str, Any]]:
        """Ray's state API over HTTP."""
        url = f"http://127.0.0.1:{self.dashboard}/api/v0/{what}?limit=10000&detail=true"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as response:
            found: list[dict[str, Any]] = json.loads(response.read())["data"]["result"]["result"]
        return found

    def shut_down(self) -> None:
        for node in self.nodes:
            node.kill()
        self._temporary.cleanup()

    def _start(self, name: str, *arguments: str) -> Node:
        log = (self.folder / f"{name}.log").open("w")
        # As on machines of their own: one that joins replaces files of the others in a shared one.
        temporary = f"--temp-dir={self._temporary.name}/{len(self.nodes)}"
        process = subprocess.Popen(
            [RAY, "start", "--block", "--node-ip-address=127.0.0.1", temporary, *arguments],
            env=self._environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        node = Node(process, name)
        self.nodes.append(node)
        return node

    def _answers(self) -> bool:
        assert self.nodes[0].lives(), (self.folder / "head.log").read_text()
        try:
            return bool(self.alive())
        except (OSError, ValueError, KeyError):
            return False


def _lives(actor: dict[str, Any]) -> bool:
    return bool(actor["state"] == "ALIVE")


def _trains(group: dict[str, Any]) -> bool:
    """Whether it is a gang's; a trial's own holds a byte of memory."""
    held = [bundle["unit_resources"] for bundle in group["bundles"]]
    return any(each.get("CPU") or each.get("GPU") for each in held)
