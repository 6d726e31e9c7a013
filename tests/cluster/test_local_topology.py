"""cluster/local: a head, worker nodes and MLflow on PostgreSQL, as docs/cluster.md has them run."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.sweeps.commands import ROOT, environment, write_world_sweep

BIN = Path(sys.executable).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        reason="PostgreSQL is not installed (apt-get install postgresql)",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg2") is None,
        reason="PostgreSQL's driver is not installed (pip install psycopg2-binary)",
    ),
]


@dataclass
class Local:
    """A cluster in `folder`, its `ports` by name, and the `environment` of a shell that submits."""

    folder: Path
    ports: dict[str, int]
    environment: dict[str, str]

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return script(self.folder, name, *arguments)

    def get(self, port: str, path: str, token: str | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as it:
            return bytes(it.read())

    def processes(self) -> set[int]:
        """All that name the folder in their command line."""
        return {
            each.pid
            for each in psutil.process_iter(["cmdline"])
            if any(str(self.folder) in word for word in each.info["cmdline"] or [])
        }


def script(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    drivers = importlib.util.find_spec("psycopg2")
    assert drivers is not None and drivers.origin is not None
    env = {
        **environment(),
        "SWEEPS_CLUSTER": str(folder),
        "SWEEPS_BIN": str(BIN),
        "PYTHONPATH": str(Path(drivers.origin).parents[1]),
    }
    command = [str(ROOT / "cluster" / "local" / name), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    folder = Path(tempfile.mkdtemp(prefix="lc", dir="/tmp"))  # sockets want a short path
    try:
        up = script(folder, "up.sh", "2", "1")
        assert up.returncode == 0, up.stdout + up.stderr
        ports = dict(line.split("=") for line in (folder / "ports").read_text().split())
        sourced = subprocess.run(
            ["bash", "-c", f"source {folder}/env && env -0"],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        yield Local(
            folder,
            {name.removesuffix("_PORT"): int(port) for name, port in ports.items()},
            dict(line.split("=", 1) for line in sourced.stdout.split("\0") if line),
        )
    finally:
        script(folder, "down.sh")
        shutil.rmtree(folder)


def secrets_of(local: Local) -> list[str]:
    return [(local.folder / "token").read_text(), password(local)]


def password(local: Local) -> str:
    return (local.folder / "pgpass").read_text().strip().rsplit(":", 1)[1]


def test_a_submitted_sweep_ends_on_three_nodes_with_its_runs_in_postgresql(local: Local) -> None:
    import psycopg2

    sweep = write_world_sweep(
        local.folder / "sweep",
        storage="runs",
        trial__mae__epochs=1,
        trial__align__epochs=1,
        search__trials=2,
    )
    done = subprocess.run(
        ["ray", "job", "submit", "--working-dir", ".", "--", "python", "sweeps/mixing.py", sweep],
        env=local.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-1000:] + done.stdout[-3000:]
    assert "Recommended: trial" in done.stdout
    result = local.folder / "storage" / "runs" / "toy"
    summary = json.loads((result / "summary.json").read_text())
    assert summary["counts"]["complete"] == 2
    assert len(alive_nodes(local)) == 3

    login = {"user": "mlflow", "password": password(local), "dbname": "mlflow"}
    with psycopg2.connect(host="127.0.0.1", port=local.ports["POSTGRES"], **login) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "select t.value, r.status, count(*) from runs r join tags t using (run_uuid) "
                "where t.key = 'kind' group by 1, 2"
            )
            rows = cursor.fetchall()
    connection.close()
    held = {kind: count for kind, status, count in rows if status == "FINISHED"}
    assert len(rows) == len(held), rows
    assert held["sweep"] == 1 and held["trial"] == 2
    assert held["stage"] >= 2
    assert not (local.folder / "storage" / "runs" / "mlflow.db").exists()
    assert list((local.folder / "artifacts").rglob("report.md"))

    written = [path for path in [*result.rglob("*.json"), *local.folder.glob("logs/*")]]
    said = done.stdout + done.stderr + "".join(path.read_text() for path in written)
    assert not any(secret in said for secret in secrets_of(local))


def alive_nodes(local: Local) -> set[str]:
    token = (local.folder / "token").read_text().strip()
    nodes = json.loads(local.get("DASHBOARD", "/api/v0/nodes", token))["data"]["result"]["result"]
    return {node["node_id"] for node in nodes if node["state"] == "ALIVE"}


def test_up_again_starts_only_what_has_ended_at_its_old_address(local: Local) -> None:
    before = {path.name: path.read_text() for path in (local.folder / "pids").iterdir()}
    assert set(before) == {"head", "mlflow", "postgres", "worker-1", "worker-2"}
    assert local.script("status.sh").returncode == 0
    psutil.Process(int(before["mlflow"].split()[0])).kill()  # its children live, and hold the port
    for _ in range(100):  # a killed process takes a moment to end
        status = local.script("status.sh")
        if status.returncode:
            break
        time.sleep(0.2)
    assert status.returncode == 1 and "mlflow: ended" in status.stdout
    again = local.script("up.sh", "2", "1")
    assert again.returncode == 0, again.stdout + again.stderr
    after = {path.name: path.read_text() for path in (local.folder / "pids").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"mlflow"}
    assert local.get("MLFLOW", "/health") == b"OK"


def test_what_has_no_token_of_its_own_listens_to_this_machine_alone(local: Local) -> None:
    listening = [each for each in psutil.net_connections("inet") if each.status == "LISTEN"]
    for name in ("POSTGRES", "MLFLOW", "DASHBOARD"):
        addresses = {each.laddr.ip for each in listening if each.laddr.port == local.ports[name]}
        assert addresses == {"127.0.0.1"}, name


def test_without_the_token_or_the_password_there_is_no_answer(local: Local) -> None:
    import psycopg2

    with pytest.raises(urllib.error.HTTPError, match="401"):
        local.get("DASHBOARD", "/api/v0/nodes")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        local.get("DASHBOARD", "/api/v0/nodes", "0" * 64)
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(
            host="127.0.0.1",
            port=local.ports["POSTGRES"],
            user="mlflow",
            password="0",
            dbname="mlflow",
        )
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        assert not any(secret in line for secret in secrets_of(local))


def test_down_leaves_no_process_and_keeps_what_was_made(local: Local) -> None:
    assert local.processes() - {os.getpid()}
    assert local.script("down.sh").returncode == 0
    assert local.processes() == set()
    assert (local.folder / "postgres" / "data" / "PG_VERSION").exists()
    assert local.script("down.sh").returncode == 0
    assert local.script("status.sh").returncode == 1
