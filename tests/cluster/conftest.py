from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.ray_session import connected
from tests.toy import toy_execution
from trainables.config import Execution


@pytest.fixture(scope="package")
def two_cpus() -> Iterator[None]:
    """A Ray of its own with 2 CPUs, whose workers run the stand-in for `run_stage`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "stand_in"))
        with connected(cpus=2):
            yield


@dataclass(frozen=True)
class Executions:
    mae: Execution = field(default_factory=toy_execution)
    align: Execution = field(default_factory=toy_execution)
    finetune: Execution = field(default_factory=lambda: toy_execution(workers=2))
    tasks: Execution = field(default_factory=toy_execution)
    attempts: int = 2
