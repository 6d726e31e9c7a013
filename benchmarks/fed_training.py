"""Training steps with their loader in front: clips a second from prepared files to new weights.

Renders files like those of Kinetics (340 x 256, 10 s) as `prepare_dataset` leaves them, and trains
on them by our loader and our step: stage 1 with 4 views of a clip, stage 2 with RandAugment, mixup
and all else of PPMA's recipe (sweeps/ppma.yaml). The same loader by itself, and the same steps on
one batch, say which of the two is waited for. With --compile the first losses are held against
uncompiled ones. Files are read by PyAV as in ppma.yaml, by decord where it is not there. Then they
are OpenCV's MPEG-4, which `prepare_dataset` would not make, unless --videos has prepared ones;
without decord, too, nothing is measured. The result says so.

    python benchmarks/fed_training.py                     vit_tiny on a CPU
    python benchmarks/fed_training.py --model vit_base --device cuda --precision bf16 --workers 15

The last line is JSON; one with what there is so far comes after each kind of step.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.moving_scene import HEIGHT, RATE, WIDTH, scene  # noqa: E402
from benchmarks.spread import spread  # noqa: E402
from benchmarks.training_step import (  # noqa: E402
    CHECKED_STEPS,
    DRIFT,
    LR,
    MatrixProduct,
    Ours,
    flops_a_clip,
    recipe,
    steps_for,
    wait,
)
from trainables.config import TrialConfig  # noqa: E402
from trainables.data.batch import Batch  # noqa: E402
from trainables.data.batch_order import pairing_of  # noqa: E402
from trainables.data.catalog import Clip, Dataset  # noqa: E402
from trainables.data.loader import PREFETCHED, training_batches  # noqa: E402
from trainables.data.mixture import Mixture  # noqa: E402
from trainables.training_settings import VideoReader  # noqa: E402

KINDS = ("align", "mae")
BATCH = {"vit_tiny": {"mae": 16, "align": 8}, "vit_base": {"mae": 128, "align": 64}}
RATES = ("clips_per_second", "loader_alone", "steps_alone")
WINDOWS = 5  # a round each, one after the other
WARM = 3  # batches before the first
RENDERED = "rendered.txt"  # beside files that this made, saying what they are


def render(seed: int, folder: Path, seconds: int) -> None:
    """One file, with every frame a key frame where PyAV is there."""
    path = folder / f"{seed}.mp4"
    if find_spec("av") is None:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), code, RATE, (WIDTH, HEIGHT))
        for frame in scene(seed, seconds):
            writer.write(frame)
        writer.release()
        return
    import av

    options = {"g": "1", "crf": "20", "preset": "veryfast", "tune": "fastdecode", "bf": "0"}
    with av.open(str(path), "w") as container:  # as reencode.py does it
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in scene(seed, seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def rendered(folder: Path, files: int, seconds: int, processes: int) -> Dataset:
    unfinished = folder.with_suffix(".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(partial(render, folder=unfinished, seconds=seconds), range(files)))
    (unfinished / RENDERED).write_text(what_is_rendered())
    unfinished.rename(folder)
    return dataset_of(folder)


def dataset_of(folder: Path) -> Dataset:
    """All mp4 files in it."""
    paths = sorted(file.relative_to(folder) for file in folder.rglob("*.mp4"))
    if not paths:
        raise SystemExit(f"{folder} holds no .mp4 files")
    return Dataset(
        name="clips",
        root=folder,
        humans="none",
        classes=("a",),
        clips=tuple(Clip(path=str(p), label=0, group="", split="train") for p in paths),
        frame_rate=None,
        content_hash="",
    )


def batches_of(
    kind: str, trial: TrialConfig, data: Dataset, arguments: argparse.Namespace
) -> Iterator[Batch]:
    assert trial.mae is not None
    settings = trial.mae if kind == "mae" else trial.align
    size = BATCH[arguments.model][kind]
    stream = Mixture(
        sizes={"clips": len(data.clips)},
        shares={"clips": 1},
        granularity="clip",
        batch_size=size,
        seed=0,
        total=size * 10_000,
        views_per_clip=settings.views_per_clip,
    )
    return training_batches(
        {"clips": data},
        stream,
        trial.clip,
        settings.augment,
        start_step=0,
        stop_step=10_000,
        rank=0,
        world_size=1,
        workers=arguments.workers,
        video_reader=arguments.reader,
        max_unreadable=0.0,
        pairing=None if kind == "mae" else pairing_of(trial.align.mixup),
        resample={},
        second_views={},
        pin_memory=arguments.device == "cuda",
    )


def compiled_gap(kind: str, ours: Ours, plain: Ours) -> float:
    """The largest relative difference of their first losses, `ours` being compiled."""
    gap = max(abs(ours.loss() / plain.loss() - 1) for _ in range(CHECKED_STEPS))
    print(f"{kind}: losses compiled differ from uncompiled by {gap:.1e}", flush=True)
    if not gap < DRIFT:
        raise SystemExit(f"{kind}: that is more than {DRIFT:g}; nothing is measured")
    return float(f"{gap:.2g}")


def measured(
    kind: str, trial: TrialConfig, data: Dataset, arguments: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    device, size = torch.device(arguments.device), BATCH[arguments.model][kind]
    batches = batches_of(kind, trial, data, arguments)
    first = next(batches).to(device)
    ours = Ours(kind, trial, first, device, scratch, arguments.compile)
    gap = None
    if arguments.compile:
        gap = compiled_gap(kind, ours, Ours(kind, trial, first, device, scratch, False))

    prefetched = PREFETCHED * arguments.workers  # batches: they were loaded in somebody else's time

    def steps_on(some: Iterator[Batch], train: bool, warm: int) -> list[float]:
        """Clips a second in each window. A step of training, or nothing, is done with a batch."""
        rates = []
        for window in range(WINDOWS + 1):
            count, began = 0, time.perf_counter()
            for batch in some:
                if train:
                    ours.steps.take(batch, LR)
                    ours.state.progress.step += 1
                count += 1
                enough = time.perf_counter() - began > arguments.seconds
                if count >= (WARM if window else warm) and (enough or not window):
                    break
            ours.steps.wait()
            wait(device)
            if window:  # the first one warms up
                rates.append(count * size / (time.perf_counter() - began))
        return rates

    fed = steps_on(batches, True, WARM + prefetched)
    loaded = steps_on(batches, False, WARM + prefetched)
    steps = steps_on(iter(lambda: ours.batch, None), True, WARM)
    product = MatrixProduct(arguments.precision, device)
    matrix = product.teraflops(steps_for(product.step, 0.5, device))
    flops = flops_a_clip(kind, trial)
    return {
        "batch": size,
        "compiled_differs": gap,
        "clips_per_second": spread(fed),
        "loader_alone": spread(loaded),
        "steps_alone": spread(steps),
        "teraflops": spread([rate * flops / 1e12 for rate in fed]),
        "matrix_teraflops": float(f"{matrix:.4g}"),
        "share_of_matrix": spread([rate * flops / matrix / 1e12 for rate in fed]),
    }


def reader_of() -> VideoReader | None:
    if find_spec("av"):
        return "pyav"
    return "decord" if find_spec("decord") else None


def what_is_rendered() -> str:
    return "prepared" if find_spec("av") else "OpenCV's MPEG-4, for want of PyAV"


def files_of(videos: Path | None) -> str:
    if videos is None or not videos.exists():
        return what_is_rendered()
    told = videos / RENDERED
    return told.read_text() if told.exists() else "given"


def main() -> int:
    arguments = _parser().parse_args()
    arguments.reader = reader_of()
    # What is called compiled is compiled.
    warnings.filterwarnings("error", message="torch.compile does not work")
    cuda = arguments.device == "cuda"
    result: dict[str, Any] = {
        "benchmark": "fed_training",
        "model": arguments.model,
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "precision": arguments.precision,
        "compile": arguments.compile,
        "workers": arguments.workers,
        "reader": arguments.reader,
        "files": files_of(arguments.videos),
    }
    if arguments.reader is None:
        result["skipped"] = "neither decord nor PyAV is here to read videos with"
        print(f"fed_training: {result['skipped']}")
    else:
        print(f"fed_training: files {result['files']}, read by {arguments.reader}")
        trial = recipe(arguments.model, arguments.precision)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            videos = arguments.videos or scratch / "videos"
            if videos.exists():
                data = dataset_of(videos)
            else:
                processes = max(1, arguments.workers)
                data = rendered(videos, arguments.files, arguments.file_seconds, processes)
            for number, kind in enumerate(KINDS, start=1):
                result[kind] = measured(kind, trial, data, arguments, scratch)
                row = {key: result[kind][key]["median"] for key in RATES}
                print(f"{kind}: clips/s " + ", ".join(f"{k} {v:.1f}" for k, v in row.items()))
                if unfinished := KINDS[number:]:  # whoever is cut short has this much
                    print(json.dumps({**result, "unfinished": unfinished}), flush=True)
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=BATCH, default="vit_tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="the model by torch.compile")
    parser.add_argument("--workers", type=int, default=0, help="of the loader (default: none)")
    parser.add_argument("--videos", type=Path, help="prepared mp4 files; rendered where not there")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--file-seconds", type=int, default=4, help="length of each")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of five windows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
