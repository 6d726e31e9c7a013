"""A toy chain on two nodes of one CPU, of which one is killed while it trains and one joins later.

elastic_on_two_nodes.py VIDEOS STORE prints, as JSON, how many workers each attempt at an alignment
had, and why attempts ended: of one that lost a node, and of the next one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from cluster.ray_session import WORKER_ENVIRONMENT
from cluster.stages_handle import StagesHandle
from tests.cluster.conftest import Executions, until
from tests.toy import toy_execution, toy_trial
from tests.trainables.toy_videos import toy_videos
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


def alignment(seed: int, datasets: dict) -> Stage:  # type: ignore[type-arg]
    return trial_stages(toy_trial(seed=seed, mae__epochs=0, align__epochs=60), datasets).weights


if __name__ == "__main__":
    videos, folder = map(Path, sys.argv[1:])
    datasets = toy_videos(videos)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    _, lost = (cluster.add_node(num_cpus=1) for _ in range(2))
    ray.init(cluster.address, runtime_env={"env_vars": WORKER_ENVIRONMENT}, log_to_driver=False)
    try:
        store, elastic = StageStore(folder), toy_execution(workers=(1, 2))
        stages = StagesHandle(
            store, datasets, Executions(align=elastic, attempts=1, driver_resource=None)
        )
        first, second = (alignment(seed, datasets) for seed in (0, 1))
        asked = stages.want(first, 1)
        until(lambda: len(store.progress(first.identity)) >= 3, seconds=180)
        cluster.remove_node(lost, allow_graceful=False)
        ray.get(asked, timeout=300)
        cluster.add_node(num_cpus=1)
        stages.want_all([second])
        events = stages.events(0)[0]
        print(
            json.dumps(
                {
                    each.identity: {
                        "workers": [
                            event["workers"]
                            for event in events
                            if event["identity"] == each.identity and event["state"] == "started"
                        ],
                        "retries": [
                            event["reason"]
                            for event in events
                            if event["identity"] == each.identity and event["state"] == "retry"
                        ],
                    }
                    for each in (first, second)
                }
            )
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
