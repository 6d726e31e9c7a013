"""Clips a second and core from video files to what the model sees, ours and others, in one run.

All read the same windows and take the same crops of files like those of Kinetics: 340 x 256 pixels,
10 s, H.264 with a key frame every 10 s; and of the same files after `prepare_dataset`. A clip is 16
frames of 2.7 s, cropped to 224 pixels and normalised. Whoever gives another frame than a decoder
that goes through the whole file from its start is told of. Seconds are CPU seconds of one process,
so that the load of a machine counts little: ours of one that is set up as our loader's are, the
others' of another. `for_gpu` is ours as its processes leave it where a GPU trains: bytes, for the
GPU normalises them.

    python benchmarks/input_pipeline.py                    12 files, 5 rounds
    python benchmarks/input_pipeline.py --files 4 --rounds 1
    python benchmarks/input_pipeline.py --data FOLDER      12 of the video files under it instead

The others: a VideoMAE-style loader (decord's get_batch, PIL for each frame), the same on PyAV
(seek, then every frame in turn), and on torchcodec where it is installed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.moving_scene import HEIGHT, RATE, SECONDS, WIDTH, scene  # noqa: E402
from trainables.data.augment import IMAGENET_MEAN, IMAGENET_STD, _random_crop  # noqa: E402
from trainables.data.catalog import Clip, Dataset  # noqa: E402
from trainables.data.clips import ClipReader  # noqa: E402
from trainables.data.human_removal.clip_files import VIDEO_SUFFIXES  # noqa: E402
from trainables.data.loader import set_up_process, training_batches  # noqa: E402
from trainables.data.mixture import Mixture  # noqa: E402
from trainables.data.reencode import Recipe, reencode  # noqa: E402
from trainables.training_settings import AugmentSettings, ClipSettings, VideoReader  # noqa: E402

CLIP = ClipSettings(frames=16, seconds=2.7, resolution=224, normalize="imagenet")
AUGMENT = AugmentSettings(
    crop_scale=(0.5, 1.0),
    crop_ratio=(0.75, 1.33),
    flip=False,
    jitter=0.0,
    rand_augment=None,
    erasing=0.0,
)
RECIPE = Recipe(short_side=256, gop=1, crf=20)
PEER = "videomae_style"

Decode = Callable[[Path, list[int]], np.ndarray]  # uint8 [T, H, W, 3]
Run = Callable[[], int]  # gives so many views


def render(path: Path, seed: int) -> None:
    """Ten seconds of H.264; one key frame."""
    with av.open(str(path), "w") as container:
        count = str(RATE * SECONDS)
        options = {"g": count, "keyint_min": count, "sc_threshold": "0", "crf": "23"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in scene(seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def dataset(folder: Path) -> Dataset:
    files = sorted(folder.iterdir())
    return Dataset(
        name="clips",
        root=folder,
        humans="none",
        classes=("a",),
        clips=tuple(Clip(path=f.name, label=0, group="", split="train") for f in files),
        frame_rate=None,
        content_hash="",
    )


def mixture(data: Dataset, clips: int, views: int) -> Mixture:
    return Mixture(
        sizes={"clips": len(data.clips)},
        shares={"clips": 1},
        granularity="clip",
        batch_size=4,
        seed=0,
        total=clips * views,
        views_per_clip=views,
    )


def ours(data: Dataset, stream: Mixture, reader: VideoReader, normalises: bool = True) -> int:
    """Our loader in this process, to normalised pixels or to bytes. Returns how many views."""
    batches = training_batches(
        {"clips": data},
        stream,
        CLIP,
        AUGMENT,
        start_step=0,
        stop_step=stream.total // stream.batch_size,
        rank=0,
        world_size=1,
        workers=0,
        video_reader=reader,
        max_unreadable=0.0,
        pairing=None,
        resample={},
        second_views={},
        pin_memory=False,
    )
    return sum(len(batch.video if normalises else batch.frames) for batch in batches)


def theirs(data: Dataset, stream: Mixture, decode: Decode) -> int:
    """The same views as a loader makes them that decodes, then treats every frame by PIL."""
    for index in range(stream.total):
        path, frames, rng = view(data, stream, index)
        video = decode(path, frames)
        top, left, height, width = _random_crop(video.shape[1], video.shape[2], AUGMENT, rng)
        box, size = (left, top, left + width, top + height), (CLIP.resolution,) * 2
        images = [
            Image.fromarray(frame).crop(box).resize(size, Image.Resampling.BILINEAR)
            for frame in video
        ]
        tensor = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        tensor = tensor.permute(3, 0, 1, 2).contiguous().float().div(255)
        tensor.sub_(torch.tensor(IMAGENET_MEAN)[:, None, None, None])
        tensor.div_(torch.tensor(IMAGENET_STD)[:, None, None, None])
    return stream.total


def view(data: Dataset, stream: Mixture, index: int) -> tuple[Path, list[int], np.random.Generator]:
    """The file and the frames of a view, and what its crop is drawn from."""
    draw = stream.draw(index)
    position = np.random.default_rng(draw.clip_seed).random()
    reader = ClipReader(frames=CLIP.frames, seconds=CLIP.seconds, short_side=256, keep_bytes=0)
    frames, _ = reader.window(*length_and_rate(data.root / data.clips[draw.clip].path), position)
    rng = np.random.default_rng(draw.seed)
    rng.random()
    return data.root / data.clips[draw.clip].path, frames, rng


@cache
def length_and_rate(path: Path) -> tuple[int, float]:
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None, f"{path} states no frame rate"
        return sum(1 for _ in container.decode(video=0)), float(rate)


def by_decord(path: Path, frames: list[int]) -> np.ndarray:
    import decord

    batch: np.ndarray = decord.VideoReader(str(path), num_threads=1).get_batch(frames).asnumpy()
    return batch


def by_pyav(path: Path, frames: list[int]) -> np.ndarray:
    found = {}
    _, rate = length_and_rate(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        start, base = stream.start_time or 0, stream.time_base
        assert base is not None
        container.seek(start + int(frames[0] / rate / base), stream=stream)
        for frame in container.decode(stream):
            assert frame.pts is not None
            number = round(float((frame.pts - start) * base) * rate)
            if number in frames:
                found[number] = frame.to_ndarray(format="rgb24")
            if number >= frames[-1]:
                break
    black = np.zeros_like(next(iter(found.values())))  # for one that it does not find
    return np.stack([found.get(number, black) for number in frames])


def by_torchcodec(path: Path, frames: list[int]) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    return np.asarray(decoder.get_frames_at(frames).data.numpy())


def decoders(path: Path) -> dict[str, Decode]:
    """Those that work here, by the name of the loader that stands on them."""
    found: dict[str, Decode] = {PEER: by_decord, "pyav": by_pyav}
    try:
        by_torchcodec(path, [0])
        found["torchcodec"] = by_torchcodec
    except Exception as error:  # not installed, or it finds no ffmpeg
        print(f"torchcodec is left out: {type(error).__name__}")
    return found


def from_its_start(path: Path) -> list[np.ndarray]:
    """Every frame of the file, without a seek: what frame i is."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def wrong_frames(data: Dataset, stream: Mixture, decode: dict[str, Decode]) -> dict[str, int]:
    """How many frames differ from those of a pass through the whole file."""
    wrong = dict.fromkeys([*decode, "ours_decord", "ours_pyav"], 0)
    for index in range(0, stream.total, stream.views_per_clip):
        path, frames, _ = view(data, stream, index)
        position = np.random.default_rng(stream.draw(index).clip_seed).random()
        every = from_its_start(path)
        right = [every[number] for number in frames]
        for name, read in decode.items():
            wrong[name] += differing(read(path, frames), right)
        readers: tuple[VideoReader, ...] = ("decord", "pyav")
        for reader_name in readers:
            reader = ClipReader(
                frames=CLIP.frames,
                seconds=CLIP.seconds,
                short_side=256,
                keep_bytes=0,
                video_reader=reader_name,
            )
            shrunk = [reader.shrunk(frame) for frame in right]
            wrong[f"ours_{reader_name}"] += differing(reader.read(path, position, None), shrunk)
    return wrong


def differing(read: np.ndarray, right: list[np.ndarray]) -> int:
    return int((read != np.stack(right)).any(axis=(1, 2, 3)).sum())


def fill(folder: Path, arguments: argparse.Namespace) -> None:
    """With rendered files, or with some of --data, evenly spread over it."""
    if arguments.data is None:
        for number in range(arguments.files):
            render(folder / f"{number:03}.mp4", number)
        return
    found = sorted(file for file in arguments.data.rglob("*") if file.suffix in VIDEO_SUFFIXES)
    if len(found) < arguments.files:
        raise SystemExit(f"{arguments.data} holds {len(found)} video files; give fewer --files")
    for number in range(arguments.files):
        file = found[number * len(found) // arguments.files].resolve()
        (folder / f"{number:03}{file.suffix}").symlink_to(file)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a folder of real files, none are rendered")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    result: dict[str, object] = {
        "benchmark": "input_pipeline",
        "data": "rendered" if arguments.data is None else arguments.data.name,
        "files": arguments.files,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / name for name in ("original", "prepared")}
        for folder in folders.values():
            folder.mkdir()
        fill(folders["original"], arguments)
        began = time.process_time()
        for file in sorted(folders["original"].iterdir()):
            reencode(file, folders["prepared"] / file.name, RECIPE, None)
        result["prepare_seconds_a_file"] = round((time.process_time() - began) / arguments.files, 2)
        sizes = {
            name: sum(file.stat().st_size for file in folder.iterdir())
            for name, folder in folders.items()
        }
        result["megabytes"] = {name: round(size / 1e6, 2) for name, size in sizes.items()}
        result["bytes_prepared_over_original"] = round(sizes["prepared"] / sizes["original"], 2)
        decode = decoders(next(folders["original"].iterdir()))
        for name, folder in folders.items():
            data = dataset(folder)
            one, four = (mixture(data, arguments.files, views) for views in (1, 4))
            result[f"wrong_frames_{name}"] = wrong_frames(data, one, decode)
            runs: dict[str, Run] = {
                **{peer: partial(theirs, data, one, read) for peer, read in decode.items()},
                "ours_decord": partial(ours, data, one, "decord"),
                "ours_pyav": partial(ours, data, one, "pyav"),
                "ours_pyav_for_gpu": partial(ours, data, one, "pyav", False),
                f"{PEER}_4_views": partial(theirs, data, four, by_decord),
                "ours_pyav_4_views": partial(ours, data, four, "pyav"),
                "ours_pyav_4_views_for_gpu": partial(ours, data, four, "pyav", False),
            }
            result[name] = _measured(runs, arguments.rounds)
    _print(result)
    print(json.dumps(result))
    return 0


def _measured(runs: dict[str, Run], rounds: int) -> dict[str, dict[str, float]]:
    """Views a CPU second of each, and over the VideoMAE-style loader of the same round."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, set_up_process, (0,)) as our_process,
        ProcessPoolExecutor(1, spawn) as other_process,
    ):
        for number in range(rounds + 1):
            for name, run in runs.items():
                process = our_process if name.startswith("ours") else other_process
                rate = process.submit(_views_a_second, run).result()
                if number:  # the first round warms up
                    rates[name].append(rate)
    measured = {}
    for name, values in rates.items():
        base = rates[f"{PEER}_4_views" if "4_views" in name else PEER]
        ratios = sorted(value / other for value, other in zip(values, base, strict=True))
        measured[name] = {
            "views_a_second": round(statistics.median(values), 1),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_least": round(ratios[0], 2),
            "ratio_most": round(ratios[-1], 2),
        }
    return measured


def _views_a_second(run: Run) -> float:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    began = time.process_time()
    views = run()
    return views / (time.process_time() - began)


def _print(result: dict[str, object]) -> None:
    for name, size in result["megabytes"].items():  # type: ignore[attr-defined]
        print(f"\n{name} files: {size} MB, wrong frames {result[f'wrong_frames_{name}']}")
        print(f"{name} files            views/s/core   over {PEER} (least to most)")
        for loader, row in result[name].items():  # type: ignore[attr-defined]
            print(
                f"  {loader:26} {row['views_a_second']:8.1f}   {row['ratio']:5.2f} "
                f"({row['ratio_least']:.2f} to {row['ratio_most']:.2f})"
            )


if __name__ == "__main__":
    sys.exit(main())
