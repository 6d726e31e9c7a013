"""An entry process: wants one slow stage on a Ray of its own. Arguments: store, steps, pause."""

from __future__ import annotations

import sys
from pathlib import Path

import ray

from cluster.ray_session import connected
from cluster.stages_handle import StagesHandle
from tests.cluster.conftest import Executions
from trainables.stage import Stage
from trainables.stage_store import StageStore

if __name__ == "__main__":
    store, steps, pause = sys.argv[1:]
    wanted = Stage(kind="mae", settings={"steps": int(steps), "pause": float(pause)})
    with connected(cpus=2):
        stages = StagesHandle(StageStore(Path(store)), {}, Executions())
        ray.get(stages.want(wanted, 1))
