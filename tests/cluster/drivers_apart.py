"""A trial on two nodes, of which the one that this process is not on has "stays".

drivers_apart.py STORE prints, as JSON, for each actor's class whether it ran on that node.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from cluster.ray_session import WORKER_ENVIRONMENT
from cluster.stages_handle import StagesHandle
from cluster.tune import run_trials
from tests.cluster.conftest import Executions
from tests.cluster.test_tune import Script
from tests.toy import toy_data
from trainables.stage_store import StageStore

if __name__ == "__main__":
    store = StageStore(Path(sys.argv[1]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    stays = cluster.add_node(num_cpus=1, resources={"stays": 1})
    ray.init(cluster.address, runtime_env={"env_vars": WORKER_ENVIRONMENT}, log_to_driver=False)
    try:
        try:
            StagesHandle(store, toy_data(), Executions(driver_resource="stay"))
        except ValueError as error:
            refused = str(error)
        stages = StagesHandle(store, toy_data(), Executions(driver_resource="stays"))
        study = Script([7], epochs=1)
        run_trials(study, stages, concurrent=lambda: 1)
        assert study.told[0][0] == "complete", study.told
        there = {
            actor["ActorClassName"]: actor["Address"]["NodeID"] == stays.node_id
            for actor in ray._private.state.actors().values()
        }
        print(json.dumps({"there": there, "refused": refused}))
    finally:
        ray.shutdown()
        cluster.shutdown()
