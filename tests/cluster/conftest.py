from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.ray_session import connected
from cluster.stages_handle import StagesHandle
from tests.toy import toy_execution
from trainables.config import Execution
from trainables.stage_store import StageStore


@pytest.fixture(scope="package")
def two_cpus() -> Iterator[None]:
    """A Ray of its own with 2 CPUs, whose workers run the stand-in for `run_stage`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "stand_in"))
        # Tests beside these starve workers that are nice, for longer than a gang is patient.
        patch.setenv("RAY_worker_niceness", "0")
        with connected(cpus=2):
            yield


@dataclass(frozen=True)
class Executions:
    mae: Execution = field(default_factory=toy_execution)
    align: Execution = field(default_factory=toy_execution)
    finetune: Execution = field(default_factory=lambda: toy_execution(workers=2))
    tasks: Execution = field(default_factory=toy_execution)
    attempts: int = 2
    hang_seconds: float | None = None
    first_step_seconds: float | None = None
    driver_resource: str | None = "on_demand"  # which no single node needs


Start = Callable[..., StagesHandle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    handles = []

    def start(**executions: Any) -> StagesHandle:
        handles.append(StagesHandle(StageStore(tmp_path / "stages"), {}, Executions(**executions)))
        return handles[-1]

    yield start
    for handle in handles:
        handle.kill()
    # What ran for it ends with it, and gives back what it held.
    until(lambda: ray.available_resources().get("CPU") == 2, seconds=120)


def until(true: Callable[[], Any], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.05)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "recommended.safetensors"
    path.write_bytes(b"weights")
    return path
