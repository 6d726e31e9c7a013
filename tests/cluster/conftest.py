from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.ray_session import connected
from trainables.config import Execution


@pytest.fixture(scope="package")
def two_cpus() -> Iterator[None]:
    """A Ray of its own with 2 CPUs, whose workers run the stand-in for `run_stage`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "stand_in"))
        with connected(cpus=2):
            yield


def execution(workers: int = 1, cpus: int = 1, gpus: float = 0) -> Execution:
    return Execution(
        workers=workers,
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
        loader_workers=0,
        per_device_batch=None,
        checkpoint_every_steps=1,
    )


@dataclass(frozen=True)
class Executions:
    mae: Execution = field(default_factory=execution)
    align: Execution = field(default_factory=execution)
    finetune: Execution = field(default_factory=lambda: execution(workers=2))
    tasks: Execution = field(default_factory=execution)
    attempts: int = 2
