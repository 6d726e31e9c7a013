"""Files that are whole or not there: encoded in memory, written beside, then renamed."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from glob import escape
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import yaml

from trainables.settings import load_yaml


def write_whole(path: Path, content: bytes) -> None:
    """`path` with this content, or as it was. Raises OSError (a full disk) and leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def delete_unfinished(path: Path) -> None:
    """What killed processes left half of the file `path`, or of all that lies below the folder.

    For who alone writes there: it takes another's work away.
    """
    left = [*path.parent.glob(f".{escape(path.name)}.[0-9]*.tmp")]
    if path.is_dir():
        left += path.rglob(".*.tmp")
    for each in left:
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def encode_mp4(frames: Iterable[np.ndarray], frames_per_second: float, crf: int) -> bytes:
    """H.264 in mp4 of uint8 [H, W, 3] RGB, of even size. One thread: equal frames, equal bytes."""
    options = {"preset": "ultrafast", "crf": str(crf), "bf": "0"}
    rate = Fraction(frames_per_second).limit_denominator(1001)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(frames):
            if not number:
                stream.height, stream.width = frame.shape[:2]
            yuv = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p")))
        container.mux(stream.encode())
    return file.getvalue()


def add_to_catalog(
    path: Path, name: str, entry: Mapping[str, Any], kept: Collection[str] = ()
) -> None:
    """The entry `name` put into the catalog `path`, in place of an earlier one of that name.

    `kept`: keys that stay as an earlier run on the same root gave them, where this one does not.
    One process at a time, so that no entry is lost where several commands end at once.

    Raises:
        ValueError: the file is there and is no catalog.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        delete_unfinished(path)
        datasets = entries_of(path)
        before = datasets.get(name) or {}
        same = before.get("root") == entry.get("root")
        stay = [key for key in kept if same and key in before and key not in entry]
        datasets[name] = {**entry, **{key: before[key] for key in stay}}
        write_whole(path, yaml.safe_dump({"datasets": datasets}, sort_keys=False).encode())


def entries_of(path: Path) -> dict[str, Any]:
    """Name -> entry of the catalog `path`, unchecked; empty where there is no such file.

    Raises:
        ValueError: the file is there and is no catalog.
    """
    catalog = load_yaml(path) if path.exists() else {}
    datasets = catalog.get("datasets") or {}
    unknown = sorted(map(str, set(catalog) - {"datasets"}))
    if unknown or not isinstance(datasets, dict):
        found = f"has {', '.join(unknown)}" if unknown else f"holds {datasets!r} as datasets"
        raise ValueError(
            f"{path}: {found}, so it is no catalog, which is `datasets:` and entries by name; "
            "give another OUT, or correct the file"
        )
    return datasets
