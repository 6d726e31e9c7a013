"""Whole clips from disk and to it: video files and folders of frames."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from trainables.data.clips import IMAGE_SUFFIXES
from trainables.data.video_files import ClipUnreadable, check_whole
from trainables.data.whole_files import write_whole

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
MOST_BYTES = 2**30  # of a clip's decoded frames; with their flow they take ten times that


def find_clips(root: Path) -> list[str]:
    """Paths of all videos and folders of frames under `root`, relative to it, in order."""
    found = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        here = Path(folder).relative_to(root)
        suffixes = {Path(file).suffix.lower() for file in files}
        if suffixes & set(IMAGE_SUFFIXES) and here != Path():
            found.append(here.as_posix())
        found += [
            (here / file).as_posix()
            for file in files
            if Path(file).suffix.lower() in VIDEO_SUFFIXES
        ]
    return sorted(found)


def read_whole(path: Path) -> tuple[np.ndarray, Fraction | None]:
    """All frames, uint8 [T, H, W, 3] RGB, and a video's frames per second.

    Raises:
        ClipUnreadable: it cannot be read to its end, is too large for the memory, its frames
            differ in size, or there are fewer than 2.
    """
    rate, images = (None, _images(path)) if path.is_dir() else _video(path)
    frames: list[np.ndarray] = []
    try:
        for image in images:
            if frames and image.shape != frames[0].shape:
                sizes = [f"{each.shape[1]}x{each.shape[0]}" for each in (image, frames[0])]
                raise ClipUnreadable(
                    path, f"its frames change size: {len(frames)} is {sizes[0]}, 0 is {sizes[1]}"
                )
            frames.append(image)
            if len(frames) * image.nbytes > MOST_BYTES:
                raise ClipUnreadable(
                    path,
                    f"has more than {MOST_BYTES / 2**30:g} GiB of frames; cut it into clips, or "
                    "make it smaller by trainables.data.prepare_dataset first",
                )
    except av.FFmpegError as error:
        raise ClipUnreadable(path, error.strerror or type(error).__name__) from None
    if len(frames) < 2:
        raise ClipUnreadable(path, f"has {len(frames)} frames; 2 are needed")
    return np.stack(frames), rate


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


def _images(folder: Path) -> Iterator[np.ndarray]:
    for file in _files(folder):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise ClipUnreadable(folder, f"{file.name} is no image")
            yield np.ascontiguousarray(image[..., ::-1])


def _video(path: Path) -> tuple[Fraction, Iterator[np.ndarray]]:
    check_whole(path)
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate if container.streams.video else None
    except av.FFmpegError as error:
        raise ClipUnreadable(path, error.strerror or type(error).__name__) from None
    if not rate:
        raise ClipUnreadable(path, "has no video stream with a frame rate")

    def frames() -> Iterator[np.ndarray]:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")

    return Fraction(rate).limit_denominator(1001), frames()


def write_clip(path: Path, frames: np.ndarray, rate: Fraction | None, crf: int) -> None:
    """Frames uint8 [T, H, W, 3] as PNG files in a folder (`rate` None), or as H.264 in mp4.

    Whole or not at all. PNG and crf 0 keep every bit. Raises OSError where the disk refuses.
    """
    if rate is None:
        with whole_folder(path) as unfinished:
            write_images(unfinished, frames)
    else:
        write_whole(path, encoded(frames, rate, crf))


def write_images(folder: Path, images: np.ndarray) -> None:
    """uint8 [T, H, W] or RGB [T, H, W, 3] as 00000.png and on. Raises OSError."""
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        done, coded = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
        assert done
        (folder / f"{index:05}.png").write_bytes(coded.tobytes())


def encoded(frames: np.ndarray, rate: Fraction, crf: int) -> bytes:
    """An mp4 of the frames: H.264 of constant rate factor `crf`, RGB without loss where it is 0."""
    height, width = frames.shape[1:3]
    kind = "yuv444p" if width % 2 or height % 2 else "yuv420p"
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264" if crf else "libx264rgb", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, kind if crf else "rgb24"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "medium", "g": "16", "bf": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def copy_clip(source: Path, target: Path) -> None:
    """The same bytes. Raises OSError where the disk refuses."""
    if not source.is_dir():
        write_whole(target, source.read_bytes())
        return
    with whole_folder(target) as unfinished:
        unfinished.mkdir()
        for file in _files(source):
            (unfinished / file.name).write_bytes(file.read_bytes())


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A name to make a folder under, which becomes `path` when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    if unfinished.exists():  # of a run that was killed
        shutil.rmtree(unfinished)
    try:
        yield unfinished
        if path.exists():  # of a run that was killed before it wrote the clip's record
            shutil.rmtree(path)
        os.replace(unfinished, path)
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)


def sha256_of(path: Path) -> str:
    """Of a file, or of a folder's files in the order of their names."""
    digest = hashlib.sha256()
    for file in _files(path) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return digest.hexdigest()
