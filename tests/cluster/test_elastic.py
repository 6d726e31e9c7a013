"""A stage with several worker counts on a cluster of two nodes, of which one is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cluster.elastic_on_two_nodes import alignment
from tests.sweeps.commands import ROOT, environment
from tests.trainables.toy_videos import run_chain, toy_videos, weights_of
from trainables.stage_store import StageStore


@pytest.mark.slow
def test_after_a_node_is_lost_it_goes_on_with_fewer_workers_to_the_same_weights_and_then_with_more(
    tmp_path: Path,
) -> None:
    videos = tmp_path / "videos"
    datasets = toy_videos(videos)
    script = Path(__file__).parent / "elastic_on_two_nodes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(videos), str(tmp_path / "elastic")],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    first, second = (alignment(seed, datasets) for seed in (0, 1))
    assert told[first.identity]["workers"] == [2, 1]
    (reason,) = told[first.identity]["retries"]
    assert "place is lost" in reason  # one attempt is all that it has: this cost none
    assert told[second.identity] == {"workers": [2], "retries": []}

    alone, elastic = StageStore(tmp_path / "alone"), StageStore(tmp_path / "elastic")
    for stage in (first, second):
        run_chain(stage, alone, datasets)
        expected, found = weights_of(stage, alone), weights_of(stage, elastic)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=2e-3, rtol=0, msg=name)
