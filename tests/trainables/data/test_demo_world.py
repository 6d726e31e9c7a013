"""The demo's world: same settings, same pixels; no half worlds; the bias that it claims."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import decord
import numpy as np
import pytest
import yaml

from trainables.data.catalog import load_catalog, require_splits
from trainables.data.demo_world.draw import draw_clip, draw_clip_and_mask
from trainables.data.demo_world.humans import DOWNSTREAM_ACTIONS, SOURCE_ACTIONS
from trainables.data.demo_world.plan import HUMANS, SCENE_TIE, classes, plan_dataset
from trainables.data.demo_world.render import render_world
from trainables.data.demo_world.scenes import DOWNSTREAM_FAMILIES, SOURCE_FAMILIES
from trainables.data.demo_world.settings import WorldSettings, world_hash
from trainables.data.files import check_files

ROOT = Path(__file__).parents[3]
TOY = WorldSettings(
    seed=3,
    clips_per_source=16,
    heldout_per_source=8,
    downstream_train=24,
    downstream_selection=12,
    downstream_report=12,
    frames=8,
    frames_per_second=8,
    height=48,
    width=64,
)
LARGE = TOY.model_copy(update={"downstream_train": 1200})  # planned, never rendered


def silent(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_world(TOY, tmp_path_factory.mktemp("worlds"), workers=1, on_progress=silent)


def files(world: Path) -> dict[str, bytes]:
    return {str(p.relative_to(world)): p.read_bytes() for p in world.rglob("*") if p.is_file()}


def test_the_same_settings_give_the_same_files_whatever_the_number_of_workers(
    catalog: Path, tmp_path: Path
) -> None:
    again = render_world(TOY, tmp_path, workers=2, on_progress=silent)
    assert files(again.parent) == files(catalog.parent)


def test_another_seed_gives_other_pixels_and_another_hash() -> None:
    other = TOY.model_copy(update={"seed": 4})
    assert world_hash(other) != world_hash(TOY)
    for dataset in HUMANS:
        clip, changed = plan_dataset(dataset, TOY)[0], plan_dataset(dataset, other)[0]
        assert not np.array_equal(draw_clip(clip, TOY), draw_clip(changed, other))


def test_a_clip_does_not_depend_on_the_other_clips() -> None:
    more = TOY.model_copy(update={"downstream_report": 24})
    clip = plan_dataset("low_bias", TOY)[5]
    assert plan_dataset("low_bias", more)[5] == clip
    np.testing.assert_array_equal(draw_clip(clip, TOY), draw_clip(clip, more))


def test_no_two_clips_are_alike() -> None:
    for dataset in HUMANS:
        plans = plan_dataset(dataset, TOY)
        assert len({draw_clip(clip, TOY).tobytes() for clip in plans}) == len(plans)


def test_a_world_that_exists_is_not_rendered_again(catalog: Path) -> None:
    def refuse(done: int, total: int) -> None:
        raise AssertionError("rendered again")

    assert render_world(TOY, catalog.parent.parent, workers=1, on_progress=refuse) == catalog


def test_progress_counts_every_clip(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render_world(
        TOY, tmp_path, workers=1, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (144, 144)
    assert seen == sorted(seen)


def test_a_killed_render_leaves_no_world_and_the_next_one_completes(
    catalog: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from trainables.data.demo_world.render import render_world\n"
        "from trainables.data.demo_world.settings import WorldSettings\n"
        "settings = WorldSettings.model_validate_json(sys.argv[1])\n"
        "report = lambda done, total: print(done, flush=True)\n"
        "render_world(settings, Path(sys.argv[2]), 1, report)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, TOY.model_dump_json(), str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"64"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / world_hash(TOY)).exists()
    started = time.monotonic()
    assert files(render_world(TOY, tmp_path, 1, silent).parent) == files(catalog.parent)
    assert time.monotonic() - started < 60  # the dead process's lock does not hold


def test_decord_reads_every_clip_whole_and_close_to_what_was_drawn(catalog: Path) -> None:
    for dataset in HUMANS:
        for clip in plan_dataset(dataset, TOY):
            reader = decord.VideoReader(str(catalog.parent / dataset / clip.path), num_threads=1)
            frames = reader.get_batch(range(len(reader))).asnumpy()
            drawn = draw_clip(clip, TOY)
            assert frames.shape == drawn.shape == (8, 48, 64, 3)
            assert reader.get_avg_fps() == 8
            assert np.abs(frames.astype(int) - drawn).mean() < 12


def test_the_catalog_is_read_and_says_what_was_planned(catalog: Path) -> None:
    datasets = load_catalog(catalog)
    assert list(datasets) == list(HUMANS)
    for name, dataset in datasets.items():
        check_files(dataset)
        planned = plan_dataset(name, TOY)  # type: ignore[arg-type]
        assert [(c.path, c.label, c.split) for c in dataset.clips] == [
            (p.path, p.label, p.split) for p in planned
        ]
    for name in ("low_bias", "high_bias"):
        require_splits(datasets[name], ("train", "selection", "report"))
    assert datasets["synthetic"].humans == "virtual"
    assert datasets["scenes"].humans == "removed"
    versions = {d["version"] for d in yaml.safe_load(catalog.read_text())["datasets"].values()}
    assert versions == {world_hash(TOY)}


def test_a_person_or_session_stays_in_one_split(catalog: Path) -> None:
    for dataset in HUMANS:
        with (catalog.parent / f"{dataset}.csv").open() as file:
            pairs = {(row["group"], row["split"]) for row in csv.DictReader(file)}
        assert len(pairs) == len({group for group, _ in pairs})
        assert len(pairs) > 2


def test_labels_are_balanced_in_every_split() -> None:
    for dataset in HUMANS:
        for split in ("train", "selection", "report"):
            counts = Counter(c.label for c in plan_dataset(dataset, TOY) if c.split == split)
            assert len(set(counts.values())) <= 1


def test_in_low_bias_the_scene_says_nothing_about_the_action() -> None:
    counts = Counter((c.label, c.scene) for c in plan_dataset("low_bias", LARGE)[:1188])
    assert len(counts) == 36
    assert set(counts.values()) == {33}


def test_in_high_bias_the_scene_mostly_is_the_actions_own() -> None:
    clips = plan_dataset("high_bias", LARGE)
    own = np.mean([clip.scene == clip.label for clip in clips])
    expected = SCENE_TIE + (1 - SCENE_TIE) / len(classes("high_bias"))
    assert abs(own - expected) < 0.03


def test_a_sources_scene_goes_with_its_action_and_the_virtual_humans_backdrop_has_none() -> None:
    assert all(clip.scene == clip.label for clip in plan_dataset("scenes", TOY))
    assert all(clip.scene is None for clip in plan_dataset("synthetic", TOY))
    assert classes("scenes") == classes("synthetic")


def test_downstream_actions_and_scenes_are_new_combinations_of_known_parts() -> None:
    assert len(SOURCE_ACTIONS) == len(SOURCE_FAMILIES) == 8
    assert len(DOWNSTREAM_ACTIONS) == len(DOWNSTREAM_FAMILIES) == 6
    assert not set(SOURCE_FAMILIES) & set(DOWNSTREAM_FAMILIES)
    assert not set(SOURCE_ACTIONS.values()) & set(DOWNSTREAM_ACTIONS.values())
    for column in (0, 1):
        known = {family[column] for family in SOURCE_FAMILIES}
        assert {family[column] for family in DOWNSTREAM_FAMILIES} <= known
    moves = {part[0] for parts in SOURCE_ACTIONS.values() for part in parts}
    assert {part[0] for parts in DOWNSTREAM_ACTIONS.values() for part in parts} - moves == set()


def test_people_cover_part_of_the_frame_and_move() -> None:
    for dataset in ("synthetic", "low_bias"):
        for clip in plan_dataset(dataset, TOY)[:8]:  # type: ignore[arg-type]
            frames = draw_clip(clip, TOY).astype(int)
            changed = (np.abs(np.diff(frames, axis=0)).max(axis=(0, 3)) > 40).mean()
            assert 0.01 < changed < 0.9


def test_masks_show_where_people_are_and_there_are_none_of_the_report_split(
    catalog: Path,
) -> None:
    data = load_catalog(catalog)
    assert data["scenes"].masks is None
    low = data["low_bias"]
    assert low.masks is not None
    plans = {plan.path: plan for plan in plan_dataset("low_bias", TOY)}
    for clip in low.clips[:3]:
        read = decord.VideoReader(str(low.masks / clip.path))
        white = np.stack([read[i].asnumpy() for i in range(len(read))])[..., 0] >= 128
        drawn, mask = draw_clip_and_mask(plans[clip.path], TOY)
        assert white.shape == drawn.shape[:3]
        assert (white == mask).mean() > 0.98 and 0.02 < mask.mean() < 0.6
    there = {clip.split for clip in low.clips if (low.masks / clip.path).exists()}
    assert there == {"train", "selection"}
