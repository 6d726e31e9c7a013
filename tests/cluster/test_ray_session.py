"""The Ray that a command starts for itself."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import ray
from ray._private.worker import get_dashboard_url

from cluster.ray_session import ROOT, connected


def test_a_ray_of_its_own_answers_nobody_without_its_token(two_cpus: None) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):  # Ray 2.60 has it on by itself
        urllib.request.urlopen(f"http://{get_dashboard_url()}/api/v0/nodes", timeout=60)


def test_a_ray_that_is_slow_to_start_is_waited_for() -> None:
    # In a process of its own: Ray reads the limit when it is imported.
    code = (
        "import cluster.ray_session, ray._private.ray_constants as read\n"
        "print(read.RAY_DASHBOARD_STARTUP_TIMEOUT_S)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 300


def test_a_ray_that_does_not_start_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def times_out(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", times_out)
    with pytest.raises(OSError, match="Ray did not start: The current node timed out"):
        with connected():
            pass
