"""The sweep on real files, as far as it goes without training; skips where the data is not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sweeps.prepare import prepare
from sweeps.sweep import Sweep
from sweeps.watching.terminal import make_console
from trainables.data.clips import read_clip

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data sets at {DATA}")


def test_the_gestures_sweep_plans_on_the_real_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_HOME", str(tmp_path))
    prepared = prepare(Sweep(ROOT / "sweeps" / "gestures.yaml", {}), make_console(), dry_run=True)
    assert {name: dataset.humans for name, dataset in prepared.data.items()} == {
        "wan_t2v": "virtual",
        "t2v_bedfall": "virtual",
        "davis_no_human": "none",
        "egogestar": "real",
    }
    gestures = prepared.data["egogestar"]
    groups = {clip.group: clip.split for clip in gestures.clips}
    assert all(groups[clip.group] == clip.split for clip in gestures.clips), "a session was cut"
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_both_readers_give_the_same_frames_of_every_real_file() -> None:
    files = sorted(DATA.rglob("*.mp4"))
    assert len(files) > 400
    for number, path in enumerate(files):
        reads = [
            read_clip(
                path,
                frames=4,
                seconds=2.7,
                position=number % 7 / 6,
                short_side=10_000,
                frame_rate=None,
                video_reader=reader,
            )
            for reader in ("decord", "pyav")
        ]
        assert np.array_equal(*reads), path


def test_a_clip_of_every_real_set_is_read(tmp_path: Path) -> None:
    for folder in ("wan_t2v", "t2v_bedfall", "davis/no_human", "egogestar"):
        path = next((DATA / folder).rglob("*.mp4"))
        frames = read_clip(
            path, frames=8, seconds=2.0, position=0.5, short_side=64, frame_rate=None
        )
        assert frames.shape[0] == 8 and min(frames.shape[1:3]) == 64
        assert frames.std() > 5, f"{path} reads as a plain surface"
