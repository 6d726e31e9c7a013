"""Samples a generator to files: clips G(z), and for each scale of w a folder of their views.

Every file is whole or not there, and a function of generator, sample and scale alone, so that the
work resumes, and more scales may be added later without changing what there is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from trainables.data.claims import claimed
from trainables.data.clip_jobs import in_parallel
from trainables.data.clips import read_clip
from trainables.data.generators.generator import Generator, Sample, version_of
from trainables.data.latents import write_latents
from trainables.data.manifests import Humans
from trainables.data.whole_files import add_to_catalog, encode_mp4, entries_of, write_whole


class Job(NamedTuple):
    sample: Sample
    scale: float  # 0: G(z) itself


class Drawn(NamedTuple):
    made: bool  # False: it was there
    error: str = ""


def views_folder(name: str, scale: float) -> str:
    """Relative to OUT, another for each scale; that of scale 0 holds the clips themselves."""
    return f"{name}.views/{str(scale).removesuffix('.0')}" if scale else name


@contextmanager
def claim(generator: Generator, out: Path, name: str, source: str) -> Iterator[None]:
    """See `claimed`."""
    folders = [out / name, out / f"{name}.views"]
    with claimed(out, name, version_of(generator), generator.described(), source, folders):
        yield


def sample_views(
    generator: Generator, out: Path, name: str, scales: Sequence[float], workers: int
) -> Iterator[list[Drawn]]:
    """Every clip and view that is not there yet, chunk by chunk as they are done.

    Raises:
        ValueError: the generator gave what is no clip.
        OSError: a full disk.
    """
    jobs = [Job(sample, scale) for sample in generator.samples() for scale in (0.0, *scales)]
    return in_parallel(partial(_draw_all, generator, out, name), jobs, workers, _died)


def jobs_of(generator: Generator, scales: Sequence[float]) -> int:
    return len(generator.samples()) * (1 + len(scales))


def _draw_all(generator: Generator, out: Path, name: str, jobs: Sequence[Job]) -> list[Drawn]:
    return [_draw(generator, out / views_folder(name, job.scale), job) for job in jobs]


def _draw(generator: Generator, folder: Path, job: Job) -> Drawn:
    target = folder / job.sample.path
    if target.exists():
        return Drawn(made=False)
    frames = generator.draw(job.sample, job.scale)
    write_whole(target, encode_mp4(frames, generator.frames_per_second, generator.crf))
    return Drawn(made=True)


def _died(job: Job) -> Drawn:
    return Drawn(made=False, error=f"{job.sample.path}: the process that drew it died")


def write_lists(
    generator: Generator,
    out: Path,
    name: str,
    scales: Iterable[float],
    *,
    humans: Humans | None,
    licence: str | None,
) -> Path:
    """The manifest and the catalog entry, written last: what they list is there. The catalog.

    Views that an earlier run of the same generator listed stay listed, and so do its licence and,
    where `humans` is None, whom its clips show.
    """
    samples, catalog = generator.samples(), out / "catalog.yaml"
    lines = io.StringIO()
    rows = csv.writer(lines)
    rows.writerow(["path", "label", "group", "split"])
    rows.writerows((each.path, each.label, each.group, each.split) for each in samples)
    write_whole(out / f"{name}.csv", lines.getvalue().encode())
    before = entries_of(catalog).get(name, {})
    listed = sorted({float(scale) for scale in (*scales, *(before.get("views") or {}))})
    described = generator.described()
    entry: dict[str, Any] = {
        "clips": f"{name}.csv",
        "root": name,
        "humans": humans or before.get("humans", "virtual"),
        "classes": sorted({each.label for each in samples}),
        "version": f"{described['generator']} {version_of(generator)}, seed {described['seed']}",
        "views": {scale: views_folder(name, scale) for scale in listed},
    }
    if (latents := generator.latents()) is not None:
        entry["latents"] = f"{name}.latents.safetensors"
        write_latents(out / entry["latents"], latents)
    if licence:
        entry["licence"] = licence
    add_to_catalog(catalog, name, entry, kept=("licence",))
    return catalog


def write_pairs(path: Path, out: Path, name: str, scales: Sequence[float], rows: int) -> None:
    """A picture to look at: a row a clip, its middle frame, then that of each scale's view."""
    clips = sorted((out / name).rglob("*.mp4"))
    strips = []
    for clip in clips[:: max(1, len(clips) // rows)][:rows]:
        inside = clip.relative_to(out / name)
        shown = [
            read_clip(
                out / views_folder(name, scale) / inside,
                frames=1,
                seconds=1e6,
                position=0.0,
                short_side=4096,
                frame_rate=None,
                video_reader="pyav",
            )[0]
            for scale in (0.0, *scales)
        ]
        strips.append(np.concatenate(shown, axis=1))
    sheet = cv2.cvtColor(np.concatenate(strips), cv2.COLOR_RGB2BGR)
    write_whole(path, cv2.imencode(path.suffix, sheet)[1].tobytes())
