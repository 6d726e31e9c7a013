"""Trains one toy trial after another on a Ray of its own: two_trials_in_a_gang.py VIDEOS STORE.

Prints how many Train runs that took.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray.util.state import list_actors

from cluster.ray_session import connected
from cluster.stages_handle import StagesHandle
from tests.cluster.conftest import Executions
from tests.toy import toy_trial
from tests.trainables.toy_videos import toy_videos
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

if __name__ == "__main__":
    videos, store = map(Path, sys.argv[1:])
    datasets = toy_videos(videos)
    with connected(cpus=2):
        stages = StagesHandle(StageStore(store), datasets, Executions())
        for seed in (0, 1):
            stages.want_all([trial_stages(toy_trial(seed=seed), datasets).weights])
        started = list_actors(ray.get_runtime_context().gcs_address)
        print(sum("TrainController" in actor.class_name for actor in started))
