"""Stand-in stages on a logical GPU: parts_of_a_gpu.py STORE prints, as JSON, what ran together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray

from cluster.ray_session import WORKER_ENVIRONMENT
from cluster.stages_handle import StagesHandle
from tests.cluster.conftest import Executions, until
from tests.toy import toy_execution
from trainables.stage import Stage
from trainables.stage_store import StageStore

if __name__ == "__main__":
    ray.init(
        address="local",
        num_cpus=8,
        num_gpus=1,
        include_dashboard=True,
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
        log_to_driver=False,
    )
    whole, part = toy_execution(gpus_per_worker=1), toy_execution(gpus_per_worker=0.25)
    stages = StagesHandle(StageStore(Path(sys.argv[1])), {}, Executions(mae=whole, tasks=part))
    parts = [
        Stage(kind="features", settings={"number": number, "steps": 40, "pause": 0.2})
        for number in range(5)
    ]
    training = Stage(kind="mae", settings={"steps": 1})

    def at_work() -> set[str]:
        return {each["identity"] for each in stages.status() if each.get("hosts")}

    asked = []
    for stage in [*parts, training]:
        asked.append(stages.want(stage, 1))
        until(lambda stage=stage: any(e["identity"] == stage.identity for e in stages.status()))  # type: ignore[misc]
    until(lambda: len(at_work()) == 4, seconds=120)
    waits = {each["identity"]: each["why"] for each in stages.status() if "why" in each}
    controllers = [
        a for a in ray._private.state.actors().values() if "Train" in a["ActorClassName"]
    ]
    ray.get(asked)
    log = [line.split() for line in stages.store.root.read("log").decode().splitlines()]
    pids = {pid for _, kind, _, pid in log if kind == "features"}
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids))  # they leave the GPU
    events = stages.events(0)[0]
    began = {e["identity"]: e["time"] for e in events if e["state"] == "started"}
    ended = {e["identity"]: e["time"] for e in events if e["state"] == "finished"}
    print(
        json.dumps(
            {
                "waits": [waits.get(stage.identity) for stage in [*parts, training]],
                "gangs_while_parts_ran": len(controllers),
                "training_came_after_all": began[training.identity]
                >= max(ended[stage.identity] for stage in parts),
            }
        )
    )
    ray.shutdown()
