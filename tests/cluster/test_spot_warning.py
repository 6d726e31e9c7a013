"""A spot machine's warning. The cloud's metadata server has a stand-in: there is no cloud here."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster import spot_warning
from cluster.spot_warning import DEADLINES, aws_deadline, gcp_deadline, main
from tests.cluster.conftest import until
from tests.faults.ray_nodes import RayNodes
from tests.sweeps.commands import ROOT


class StandInMetadata(BaseHTTPRequestHandler):
    """Answers as AWS and GCP document it; without their headers it refuses, as they do."""

    taken_back = False
    cut = False  # in the middle of each answer

    def do_PUT(self) -> None:
        asked = (
            self.path == "/latest/api/token"
            and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        )
        self._answer(200, "a token") if asked else self._answer(400, "")

    def do_GET(self) -> None:
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != "a token":
                self._answer(401, "")
            elif self.taken_back:
                self._answer(200, '{"action": "terminate", "time": "2031-09-18T08:22:00Z"}')
            else:
                self._answer(404, "")
        elif self.path == "/computeMetadata/v1/instance/preempted":
            if self.headers["Metadata-Flavor"] != "Google":
                self._answer(403, "")
            else:
                self._answer(200, "TRUE" if self.taken_back else "FALSE")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text) + self.cut))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), StandInMetadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(StandInMetadata, "taken_back", False)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_aws_says_when_it_takes_a_machine_back(
    metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert aws_deadline(metadata) is None
    monkeypatch.setattr(StandInMetadata, "taken_back", True)
    assert aws_deadline(metadata) == 1947486120.0


def test_gcp_takes_a_machine_back_in_half_a_minute(
    metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gcp_deadline(metadata) is None
    monkeypatch.setattr(StandInMetadata, "taken_back", True)
    assert gcp_deadline(metadata) == pytest.approx(time.time() + 30, abs=5)


def test_no_answer_is_no_warning() -> None:
    assert aws_deadline("http://127.0.0.1:9") is None
    assert gcp_deadline("http://127.0.0.1:9") is None


def test_an_answer_that_breaks_off_is_no_warning(
    metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandInMetadata, "taken_back", True)
    monkeypatch.setattr(StandInMetadata, "cut", True)
    assert aws_deadline(metadata) is None
    assert gcp_deadline(metadata) is None


def test_a_drain_that_fails_is_tried_again_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[float] = []

    def drain(deadline: float) -> None:
        tried.append(deadline)
        if len(tried) < 3 or deadline < time.time():
            raise ConnectionError("the head does not answer")

    def warned(deadline: float) -> int:
        monkeypatch.setitem(DEADLINES, "gcp", lambda _: deadline)
        return main(["gcp"])

    monkeypatch.setattr(spot_warning, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(spot_warning, "drain_this_node", drain)
    assert warned(time.time() + 600) == 0 and len(tried) == 3
    with pytest.raises(ConnectionError):
        warned(time.time() - 1)
    assert len(tried) == 4


@pytest.mark.slow
def test_the_warning_drains_the_node_it_comes_to(
    metadata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = RayNodes(tmp_path / "ray")
    try:
        listening = subprocess.Popen(
            [sys.executable, "-m", "cluster.spot_warning", "gcp", "--metadata", metadata],
            env=cluster.submit_environment,
            cwd=ROOT,
        )
        assert draining(cluster) == []
        assert listening.poll() is None
        monkeypatch.setattr(StandInMetadata, "taken_back", True)
        assert listening.wait(timeout=60) == 0
        until(lambda: draining(cluster) == [*cluster.alive()], seconds=60)
    finally:
        cluster.shut_down()


def draining(cluster: RayNodes) -> list[str]:
    # Asked of the head's control store: a driver would be refused by a node that is drained.
    code = (
        "import os; from ray._private.state import GlobalState; from ray._raylet import "
        "GcsClientOptions; state = GlobalState(); state._initialize_global_state("
        "GcsClientOptions.create(os.environ['RAY_ADDRESS'], None, True, False)); "
        "print(*state.get_draining_nodes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=cluster.submit_environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.split()
