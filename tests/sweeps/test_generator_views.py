"""sweeps/generator_views.yaml: what it asks, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.prepare import Prepared, prepare
from sweeps.sweep import Sweep
from tests.sweeps.commands import ROOT
from trainables.trial import trial_stages

FILE = ROOT / "sweeps/generator_views.yaml"
SMALL_WORLD = {
    "seed": 0,
    "clips_per_source": 16,
    "heldout_per_source": 1,
    "downstream_train": 12,
    "downstream_selection": 12,
    "downstream_report": 12,
    "frames": 2,
    "frames_per_second": 8,
    "height": 32,
    "width": 64,
}


def prepared(folder: Path, *, dry_run: bool, **overrides: Any) -> Prepared:
    paths = {key.replace("__", "."): value for key, value in overrides.items()}
    sweep = Sweep(FILE, {"storage": str(folder), **paths})
    return prepare(sweep, Console(quiet=True), dry_run=dry_run)


def test_the_scale_decides_wherever_there_is_generated_data_and_nowhere_else(
    tmp_path: Path,
) -> None:
    found = prepared(tmp_path, dry_run=True)
    scales = found.space.parameters["contrastive.view_scale"].edges()
    runs: dict[float, set[str]] = {}
    clips = set()
    for scale in scales:
        for share in (0.0, 0.25, 1.0):
            shares = {"views": share, "scenes": 1 - share}
            values = {"contrastive.view_scale": scale, "contrastive.mixture.shares": shares}
            weights = trial_stages(found.sweep.trial_with(values, ""), found.data).weights
            assert weights.kind == "contrastive"
            runs.setdefault(share, set()).add(weights.identity)
            clips.add(found.costs.clips(weights))
    assert len(scales) == 7
    assert {share: len(identities) for share, identities in runs.items()} == {0: 1, 0.25: 7, 1: 7}
    assert len(clips) == 1  # so is the number of updates
    assert not list(tmp_path.iterdir())


def test_the_demos_people_are_sampled_once_with_their_views(tmp_path: Path) -> None:
    world = {"datasets__demo_world": SMALL_WORLD, "datasets__demo_views": [0.125, 0.5, 4.0]}
    planned = prepared(tmp_path, dry_run=True, **world).data["views"]
    made = prepared(tmp_path, dry_run=False, **world).data["views"]
    assert made.content_hash == planned.content_hash
    assert list(made.views) == [0.125, 0.5, 4.0]
    files = {path: path.stat().st_mtime_ns for path in made.root.parent.rglob("*.mp4")}
    assert len(files) == 4 * 17
    again = prepared(
        tmp_path, dry_run=False, **{**world, "datasets__demo_views": [0.125, 0.5, 1.0, 4.0]}
    ).data["views"]
    after = {path: path.stat().st_mtime_ns for path in made.root.parent.rglob("*.mp4")}
    assert len(after) == 5 * 17 and {path: after[path] for path in files} == files
    assert again.content_hash == made.content_hash


def test_random_weights_learn_from_no_views(tmp_path: Path) -> None:
    found = prepared(tmp_path, dry_run=True)
    trial = next(trial for trial in found.search.known().values() if "random" in trial[0])[1]
    assert trial_stages(trial, found.data).weights.kind == "init"


def test_views_of_a_catalog_are_the_catalogs_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="demo_views are a demo world's"):
        prepared(tmp_path, dry_run=True, datasets={"catalog": "c.yaml", "demo_views": [0.5]})
