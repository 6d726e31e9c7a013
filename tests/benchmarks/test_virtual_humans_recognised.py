from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import virtual_humans_recognised
from benchmarks.motion_descriptors import CELLS, DIRECTIONS, SIDE, descriptor
from benchmarks.virtual_humans_recognised import confusions
from tests.trainables.data.mocap import write_mocap


def test_confusions_are_shares_of_the_class_that_is_mistaken_the_largest_first() -> None:
    label = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 1, 1, 2, 1, 0, 2])
    found = confusions(label, predicted, ["bow", "run", "walk", "never held out"])
    assert found == [("bow", "run", 0.5), ("run", "bow", 0.5), ("bow", "walk", 0.25)]


def test_a_scene_that_stands_still_has_no_descriptor() -> None:
    scene = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert not descriptor(np.stack([scene] * 8)).any()


def test_a_descriptor_tells_the_direction_of_what_moves_and_not_the_scene_behind() -> None:
    scene = np.random.default_rng(0).integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
    frames = np.stack([scene] * 8)
    for number, frame in enumerate(frames):
        frame[8:40, 5 * number : 5 * number + 4] = 255  # upright, on its way to the right
    edges = descriptor(frames)[: DIRECTIONS * CELLS**2].reshape(DIRECTIONS, CELLS, CELLS)
    assert edges[:, 0].sum() == 0, "above the bar"
    lying = descriptor(frames.transpose(0, 2, 1, 3))[: edges.size].reshape(edges.shape)
    assert edges[0].sum() > 1.2 * edges[DIRECTIONS // 2].sum()
    assert lying[DIRECTIONS // 2].sum() > 1.2 * lying[0].sum()


@pytest.mark.slow  # renders and trains, in a process of its own
def test_held_out_clips_are_scored_and_the_second_time_nothing_is_done_again(
    tmp_path: Path,
) -> None:
    write_mocap(tmp_path / "mocap")

    def run() -> dict[str, dict[str, object]]:
        command = [sys.executable, virtual_humans_recognised.__file__]
        command += [str(tmp_path / "mocap"), str(tmp_path / "work")]
        sizes = ["--clips", "8", "--heldout", "4", "--epochs", "1"]
        done = subprocess.run([*command, *sizes], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
        return result

    first = run()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    before |= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    second = run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for model in ("descriptors", "vit_tiny"):
        assert first[model]["heldout_accuracy"] == second[model]["heldout_accuracy"]
    assert first["heldout_clips"] == 4 and first["training_clips"] == 8
