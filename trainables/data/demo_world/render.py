"""Writes a world: mp4 files, manifests and a catalog, in a folder named by the settings' hash."""

from __future__ import annotations

import csv
import fcntl
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
import yaml

from trainables.data.demo_world.draw import LOOKS, draw_clip_and_mask
from trainables.data.demo_world.plan import HUMANS, ClipPlan, classes, plan_dataset
from trainables.data.demo_world.settings import WorldSettings, world_hash
from trainables.data.whole_files import encode_mp4

CHUNK = 64  # clips a task
MASKS, MASK_CRF = "masks", 10  # of the people, for the measure of scene bias; nothing trains on it
WITH_PEOPLE = [dataset for dataset, humans in HUMANS.items() if humans != "removed"]


def render_world(
    settings: WorldSettings,
    worlds_root: Path,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> Path:
    """The catalog of the world, rendered by `workers` processes unless it is there already.

    `on_progress(done, total)` counts clips. The folder gets its name when all is written, so a
    render that is killed leaves no half world; the next one starts over.
    """
    world = worlds_root / world_hash(settings)
    worlds_root.mkdir(parents=True, exist_ok=True)
    with (worlds_root / f"{world.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process renders, the others wait for its world
        if not world.exists():
            partial = worlds_root / f"{world.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            write_catalog(settings, partial)
            _write_clips(partial, settings, workers, on_progress)
            partial.rename(world)
    return world / "catalog.yaml"


def write_catalog(settings: WorldSettings, folder: Path) -> Path:
    """The catalog and manifests alone: all that planning needs. Returns the catalog's path."""
    plans = {dataset: plan_dataset(dataset, settings) for dataset in HUMANS}
    catalog: dict[str, dict[str, object]] = {}
    for dataset, clips in plans.items():
        for split in dict.fromkeys(clip.split for clip in clips):
            (folder / dataset / split).mkdir(parents=True)
            if dataset in WITH_PEOPLE:
                (folder / MASKS / dataset / split).mkdir(parents=True)
        names = classes(dataset)
        with (folder / f"{dataset}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "group", "split"])
            rows.writerows(
                (clip.path, names[clip.label], f"{dataset}-{clip.group:04d}", clip.split)
                for clip in clips
            )
        catalog[dataset] = {
            "clips": f"{dataset}.csv",
            "root": dataset,
            "humans": HUMANS[dataset],
            "classes": list(names),
            "version": world_hash(settings),
            **({"masks": f"{MASKS}/{dataset}"} if dataset in WITH_PEOPLE else {}),
        }
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump({"datasets": catalog}, sort_keys=False))
    return path


def _write_clips(
    folder: Path,
    settings: WorldSettings,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> None:
    clips = [clip for dataset in HUMANS for clip in plan_dataset(dataset, settings)]
    chunks = [clips[start : start + CHUNK] for start in range(0, len(clips), CHUNK)]
    done = 0
    if workers == 1:
        for chunk in chunks:
            done += _render_chunk(folder, chunk, settings)
            on_progress(done, len(clips))
        return
    # spawn: a fork would copy the threads' locks of whoever calls.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(_render_chunk, folder, chunk, settings) for chunk in chunks]
        for task in as_completed(tasks):
            done += task.result()
            on_progress(done, len(clips))


def _render_chunk(folder: Path, chunk: list[ClipPlan], settings: WorldSettings) -> int:
    cv2.setNumThreads(1)
    for clip in chunk:
        frames, mask = draw_clip_and_mask(clip, settings)
        path, rate = Path(clip.dataset, clip.path), settings.frames_per_second
        (folder / path).write_bytes(encode_mp4(frames, rate, LOOKS[clip.dataset].crf))
        if clip.dataset in WITH_PEOPLE and clip.split != "report":  # which no bias is read off
            white = np.where(mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=-1)
            (folder / MASKS / path).write_bytes(encode_mp4(white, rate, MASK_CRF))
    return len(chunk)
