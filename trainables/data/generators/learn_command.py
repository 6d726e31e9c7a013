"""The command `train`: a small generative model of a dataset's clips, as an exported program."""

from __future__ import annotations

import argparse
import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from rich.console import Console

from trainables.data.catalog import Clip, Dataset, load_catalog
from trainables.data.claims import claimed
from trainables.data.clip_jobs import in_parallel, with_progress
from trainables.data.clips import ClipReader, fitted
from trainables.data.command_line import add_workers, at_least_one, size
from trainables.data.files import check_files
from trainables.data.generators.about import FILE, About
from trainables.data.generators.clip_model import LATENT
from trainables.data.generators.learning import LEARNING_VERSION, Learner, LearningSettings
from trainables.data.video_files import ClipUnreadable
from trainables.data.views import check_unreadable
from trainables.data.whole_files import delete_unfinished, write_whole
from trainables.settings import parse

MOST_BYTES = 8 * 2**30  # of the clips, which are held in memory
SAVE_SECONDS = 30.0  # between two states on disk
MAX_UNREADABLE = 0.01


class _Read(NamedTuple):
    clip: Clip
    frames: np.ndarray | None  # None: it cannot be read


def train(arguments: argparse.Namespace, console: Console) -> int:
    """Raises ValueError and OSError; see `exit_status`."""
    target: Path = arguments.program
    if target.suffix != ".pt2":
        raise ValueError(f"{target}: name the program with the ending .pt2")
    dataset = load_catalog(arguments.catalog, [arguments.dataset])[arguments.dataset]
    dataset.require_files()
    check_files(dataset)
    settings = _settings(arguments, dataset)
    version = hashlib.sha256(f"{LEARNING_VERSION} {settings.model_dump_json()}".encode())
    told, source = settings.model_dump(mode="json"), str(arguments.catalog.resolve())
    with claimed(target.parent, target.name, version.hexdigest()[:16], told, source, []):
        state = target.with_name(f".{target.name}.state")
        for path in (target, state):
            delete_unfinished(path)
        if target.exists():
            console.print(f"program: {target} is there", soft_wrap=True)
            return 0
        chosen = _chosen(dataset, settings)
        clips, labels = _read_clips(dataset, chosen, settings, arguments.workers, console)
        learner = Learner(clips, labels, len(dataset.classes), settings)
        if state.exists():
            learner.restore(state)
        _learn(learner, state, target.stem, console)
        _export(learner, dataset, len(clips), target)
        state.unlink(missing_ok=True)
    console.print(f"program: {target}, humans: {dataset.humans}", soft_wrap=True)
    return 0


def _settings(arguments: argparse.Namespace, dataset: Dataset) -> LearningSettings:
    width, height = arguments.size
    given = {
        "dataset": dataset.content_hash,
        "clips": arguments.clips,
        "frames": arguments.frames,
        "seconds": arguments.seconds,
        "width": width,
        "height": height,
        "autoencoder_steps": arguments.autoencoder_steps,
        "flow_steps": arguments.flow_steps,
        "guidance": arguments.guidance,
        "seed": arguments.seed,
    }
    return parse(LearningSettings, given, "options")


def _chosen(dataset: Dataset, settings: LearningSettings) -> list[Clip]:
    """The training clips to learn from. Raises ValueError where there are none, or too many."""
    clips = dataset.split("train")
    if len(clips) < 2:
        raise ValueError(
            f"dataset {dataset.name!r} has {len(clips)} training clips to learn from; give it more"
        )
    count = min(len(clips), settings.clips or len(clips))
    room = MOST_BYTES // (3 * settings.frames * settings.height * settings.width)
    if count > room:
        raise ValueError(
            f"{count:,} clips of {settings.frames} frames of {settings.width}x{settings.height} "
            f"do not fit into memory; take at most --clips {room}"
        )
    places = np.random.default_rng(settings.seed).permutation(len(clips))[:count]
    return [clips[place] for place in sorted(places)]


def _read_clips(
    dataset: Dataset,
    chosen: Sequence[Clip],
    settings: LearningSettings,
    workers: int,
    console: Console,
) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [N, T, H, W, 3] and int64 [N], in the order of `chosen`.

    Raises:
        ValueError: more than a hundredth of the clips cannot be read.
    """
    work = partial(_read_all, dataset.root, dataset.frame_rate, settings)
    read: dict[str, _Read] = {}
    chunks = in_parallel(work, chosen, workers, partial(_Read, frames=None))
    for chunk in with_progress(chunks, "reading", len(chosen), str, console):
        read |= {each.clip.path: each for each in chunk}
    lost = [(dataset.name, path) for path, each in read.items() if each.frames is None]
    check_unreadable(lost, {dataset.name: len(chosen)}, MAX_UNREADABLE)
    if lost:
        console.print(f"{len(lost)} clips cannot be read and are left out")
    kept = [read[clip.path] for clip in chosen if read[clip.path].frames is not None]
    clips = torch.from_numpy(np.stack([each.frames for each in kept if each.frames is not None]))
    return clips, torch.tensor([each.clip.label for each in kept])


def _read_all(
    root: Path, frame_rate: float | None, settings: LearningSettings, clips: Sequence[Clip]
) -> list[_Read]:
    """The middle of each clip, its longer side cut to the shape that is asked for."""
    cv2.setNumThreads(1)
    reader = ClipReader(
        frames=settings.frames,
        seconds=settings.seconds,
        short_side=2 * max(settings.width, settings.height),
        keep_bytes=0,
        video_reader="pyav",
    )
    found = []
    for clip in clips:
        try:
            frames = reader.read(root / clip.path, 0.5, frame_rate)
            found.append(_Read(clip, fitted(frames, settings.width, settings.height)))
        except ClipUnreadable:
            found.append(_Read(clip, None))
    return found


def _learn(learner: Learner, state: Path, name: str, console: Console) -> None:
    """To the end, with its state on disk now and then: between two steps, never when it is stopped,
    which may be in the middle of one."""
    losses: list[float] = []

    def steps() -> Iterator[list[float]]:
        saved = time.monotonic()
        yield [0.0] * learner.step
        while not learner.finished:
            losses.append(learner.advance())
            yield losses[-1:]
            if time.monotonic() - saved > SAVE_SECONDS:
                learner.save(state)
                saved = time.monotonic()

    def note() -> str:
        recent = losses[-50:]
        part = "autoencoder" if learner.step <= learner.settings.autoencoder_steps else "flow"
        return f"{part}, loss {sum(recent) / max(1, len(recent)):.4f}"

    for _ in with_progress(steps(), name, learner.settings.steps, note, console, unit="steps"):
        pass


def _export(learner: Learner, dataset: Dataset, clips: int, target: Path) -> None:
    settings = learner.settings
    about = About(
        classes=dataset.classes,
        frames_per_second=max(1, round(settings.frames / settings.seconds)),
        humans=dataset.humans,
        licence=dataset.licence,
        learnt_from={
            "name": dataset.name,
            "clips_read": clips,
            "version": LEARNING_VERSION,
            **settings.model_dump(mode="json"),
        },
    )
    given = (torch.zeros(1, LATENT), torch.zeros(1, dtype=torch.int64))
    exported = torch.export.export(learner.generator(), given)
    content = io.BytesIO()
    torch.export.save(exported, content, extra_files={FILE: about.model_dump_json()})
    write_whole(target, content.getvalue())


def add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("catalog", type=Path, metavar="CATALOG", help="a catalog YAML")
    add("dataset", metavar="DATASET", help="its dataset to learn from: the training clips")
    add("program", type=Path, metavar="OUT/NAME.pt2", help="the program to write")
    add("--clips", type=at_least_one, metavar="N", help="at most, by the seed (default: all)")
    add("--frames", type=int, default=8, help="of a clip (default: 8)")
    add("--seconds", type=float, default=1.0, help="that they span (default: 1)")
    add("--size", type=size, default=(64, 48), metavar="WxH", help="pixels (default: 64x48)")
    add("--autoencoder-steps", type=at_least_one, default=1500, help="(default: 1500)")
    add("--flow-steps", type=at_least_one, default=2000, help="(default: 2000)")
    add(
        "--guidance",
        type=float,
        default=1.5,
        help="towards the class: more is more typical and less varied, 1 is none (default: 1.5)",
    )
    add("--seed", type=int, default=0, help="(default: 0)")
    add_workers(parser, "read clips; learning takes one core")
