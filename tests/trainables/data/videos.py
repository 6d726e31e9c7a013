"""Small real video files for tests."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import torch

from trainables.data.augment import normalised, scale_of
from trainables.training_settings import Normalize


def write_video(
    path: Path,
    *,
    width: int = 64,
    height: int = 48,
    count: int = 20,
    rate: int = 10,
    gop: int = 12,
    seed: int = 0,
    format: str = "yuv420p",  # noqa: A002
    index_first: bool = False,
) -> Path:
    """H.264 of a drifting texture, each frame different; `index_first` as on the web."""
    options = {"movflags": "faststart"} if index_first else {}
    block = height // 6
    cells = (height // block + 1, width // block + 1, 3)
    texture = np.random.default_rng(seed).integers(0, 255, cells).astype(np.uint8)
    image = texture.repeat(block, 0).repeat(block, 1)[:height, :width]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, format, gop
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.roll(image, 3 * i, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def as_seen(frames: np.ndarray, normalize: Normalize) -> torch.Tensor:
    """float32 [3, T, H, W]: uint8 [T, H, W, 3] as a model sees it."""
    scale = torch.from_numpy(scale_of(frames, normalize))
    return normalised(torch.from_numpy(np.ascontiguousarray(frames)).unsqueeze(0), scale)[0]
