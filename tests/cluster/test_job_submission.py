"""`ray job submit` to a running Ray that wants a token, as on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import until
from tests.ports import free_ports
from tests.sweeps.commands import ROOT, environment, write_world_sweep

RAY = str(Path(sys.executable).parent / "ray")


@dataclass
class Cluster:
    environment: dict[str, str]
    dashboard: str
    agent: str
    head: int  # its process


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o600)
    gcs, dashboard, client, agent = free_ports(4)
    env = {
        **environment(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a node's `python`
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    head = [RAY, "start", "--head", "--block", f"--port={gcs}", "--num-cpus=2"]
    head += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head += [f"--dashboard-agent-listen-port={agent}", "--include-dashboard=true"]
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(head, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        for port in (dashboard, agent):
            wait_for_answer(f"http://127.0.0.1:{port}/api/version", process, tmp_path / "head.log")
        with_address = {**env, "RAY_ADDRESS": address}
        yield Cluster(with_address, address, f"http://127.0.0.1:{agent}", process.pid)
    finally:
        processes = [process, *psutil.Process(process.pid).children(recursive=True)]
        for each in processes:
            each.kill()
        process.wait()
        psutil.wait_procs(processes[1:], timeout=20)


def wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until something answers at `url`, if only that it wants a token."""
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def answer(url: str, method: str, headers: dict[str, str], body: bytes | None) -> int:
    """The status of an HTTP request."""
    request = urllib.request.Request(url, method=method, headers=headers, data=body)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def job(sweep: Path) -> list[str]:
    command = [RAY, "job", "submit", "--working-dir", str(ROOT), "--"]
    return [*command, "python", "sweeps/mixing.py", str(sweep)]


def submit(sweep: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        job(sweep), env=env, cwd=ROOT, capture_output=True, text=True, timeout=400
    )


def test_a_job_with_the_token_ends_with_a_recommendation_and_one_without_is_turned_away(
    cluster: Cluster, tmp_path: Path
) -> None:
    sweep = write_world_sweep(
        tmp_path / "sweep", trial__mae__epochs=0, trial__align__epochs=1, search__trials=2
    )
    turned_away = submit(sweep, {**cluster.environment, "RAY_AUTH_TOKEN_PATH": "/nowhere"})
    assert turned_away.returncode != 0
    done = submit(sweep, cluster.environment)
    assert done.returncode == 0, done.stderr[-1000:] + done.stdout[-3000:]
    assert "Recommended: trial" in done.stdout
    summary = json.loads((tmp_path / "sweep" / "runs" / "toy" / "summary.json").read_text())
    assert summary["counts"]["complete"] == 2
    assert "0123456789abcdef" not in done.stdout + json.dumps(summary)
    log = [line for line in done.stdout.splitlines(keepends=True) if "cli.py:" not in line]
    assert not any("\r" in line or "\x1b" in line for line in log)  # no bars and no colours of ours


def test_over_http_nothing_is_told_or_run_without_the_token(
    cluster: Cluster, tmp_path: Path
) -> None:
    dashboard, agent = cluster.dashboard, cluster.agent
    job = json.dumps({"entrypoint": f"touch {tmp_path}/ran"}).encode()
    requests: list[tuple[str, str, bytes | None]] = [
        ("GET", f"{dashboard}/api/jobs/", None),
        ("POST", f"{dashboard}/api/jobs/", job),
        ("PUT", f"{dashboard}/api/packages/gcs/_ray_pkg_0123456789abcdef.zip", b"zip"),
        ("GET", f"{dashboard}/api/v0/nodes", None),
        ("GET", f"{dashboard}/api/v0/logs", None),
        ("GET", f"{dashboard}/nodes?view=summary", None),
        ("POST", f"{agent}/api/job_agent/jobs/", job),
        ("GET", f"{agent}/metrics", None),
    ]
    for method, url, body in requests:
        for sent, refused in ((None, 401), ("0" * 32, 403)):
            headers = {"Content-Type": "application/json"}
            headers |= {"Authorization": f"Bearer {sent}"} if sent else {}
            assert answer(url, method, headers, body) == refused, (method, url, sent)
    with_token = {"Authorization": f"Bearer {(tmp_path / 'token').read_text()}"}
    assert answer(f"{dashboard}/api/jobs/", "GET", with_token, None) == 200
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_job_whose_entry_process_is_killed_is_submitted_again_and_goes_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    sweep = write_world_sweep(
        tmp_path / "sweep", trial__mae__epochs=0, trial__align__epochs=20, search__trials=3
    )

    def finished() -> dict[str, int]:
        records = (sweep.parent / "runs" / "stages").glob("*/record.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in records}

    def entry_processes() -> list[psutil.Process]:
        wanted = {"sweeps/mixing.py", str(sweep)}
        return [
            process
            for process in psutil.Process(cluster.head).children(recursive=True)
            if wanted <= {*process.cmdline()} and "python" in process.name()
        ]

    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(
            job(sweep), env=cluster.environment, cwd=ROOT, stdout=log, stderr=log
        )
    until(lambda: len(finished()) >= 3, seconds=300)
    for process in entry_processes():
        process.kill()
    assert first.wait(timeout=120) != 0
    before = finished()
    again = submit(sweep, cluster.environment)
    assert again.returncode == 0, again.stderr[-1000:] + again.stdout[-3000:]
    assert finished().items() >= before.items()
    summary = json.loads((sweep.parent / "runs" / "toy" / "summary.json").read_text())
    assert summary["counts"]["complete"] == 3
