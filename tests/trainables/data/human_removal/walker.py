"""Clips whose background is known: a drawn person walks before a textured still or a pan."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from trainables.data.human_removal.settings import RemovalSettings

SETTINGS = RemovalSettings(
    masks_from="files",
    all_that_moves=False,
    detector="hog",
    dilation=4,
    soft_edge=2,
    max_leak=0.2,
    redo=1,
    crf=0,
    hat_resampling=False,
)


class Walk(NamedTuple):
    frames: np.ndarray  # uint8 [T, H, W, 3]
    truth: np.ndarray  # the same without the person
    masks: np.ndarray  # uint8 [T, H, W], 0 or 255


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: smooth patches with fine grain on them, bright."""
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(120, 230, (height // 12 + 2, width // 12 + 2, 3)).astype(np.float32)
    fine = draw.uniform(-12, 12, (height // 2 + 1, width // 2 + 1, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR)
    return image.clip(0, 255).astype(np.uint8)


def draw_person(frame: np.ndarray, x: float, foot: float, tall: float, stride: float) -> np.ndarray:
    """Drawn into `frame`; returns uint8 [H, W], 255 where."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    unit = tall / 8

    def at(dx: float, up: float) -> tuple[int, int]:
        return round(x + dx * unit), round(foot - up * unit)

    def limb(start: tuple[int, int], end: tuple[int, int], thick: float) -> None:
        cv2.line(mask, start, end, 255, max(round(thick * unit), 1), cv2.LINE_AA)

    cv2.circle(mask, at(0, 7.4), round(0.55 * unit), 255, -1, cv2.LINE_AA)
    cv2.ellipse(mask, at(0, 5.3), (round(0.85 * unit), round(1.5 * unit)), 0, 0, 360, 255, -1)
    for side in (-1, 1):
        limb(at(0.35 * side, 4), at(0.9 * side * stride, 0.2), 0.75)
        limb(at(0.8 * side, 6.3), at(1.1 * side, 3.9), 0.4)
    mask = np.uint8(255) * (mask > 127)
    frame[mask > 0] = (40, 35, 60)
    return mask


def still_walk(count: int = 16, height: int = 96, width: int = 160, noise: float = 0.0) -> Walk:
    """A person of three quarters of the height crosses a still scene."""
    return _walk([texture(height, width)] * count, noise)


def panning_walk(count: int = 16, height: int = 96, width: int = 160) -> Walk:
    """The camera follows the person by 5.3 pixels a frame, and turns and comes nearer a little."""
    wide = texture(2 * height, 4 * width)
    views = []
    for t in range(count):
        turn = cv2.getRotationMatrix2D((width, height), 0.2 * t, 1 + 0.004 * t)
        turn[:, 2] -= (30 + 5.3 * t, 40)
        views.append(cv2.warpAffine(wide, turn, (width, height), flags=cv2.INTER_LINEAR))
    return _walk(views, 0.0, keeps_place=True)


def _walk(backgrounds: list[np.ndarray], noise: float, keeps_place: bool = False) -> Walk:
    draw, count = np.random.default_rng(1), len(backgrounds)
    height, width = backgrounds[0].shape[:2]
    frames, truth, masks = [], [], []
    for t, background in enumerate(backgrounds):
        rough = background + draw.normal(0, noise, background.shape) if noise else background
        frame = rough.clip(0, 255).astype(np.uint8)
        truth.append(background.copy())
        share = 0.5 if keeps_place else 0.15 + 0.7 * t / (count - 1)
        masks.append(draw_person(frame, share * width, 0.92 * height, 0.75 * height, np.cos(t)))
        frames.append(frame)
    return Walk(np.stack(frames), np.stack(truth), np.stack(masks))


def write_lossless(path: Path, frames: np.ndarray, rate: int = 10) -> Path:
    """A video that decodes to the very same frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_frames(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        coded = image[..., ::-1] if image.ndim == 3 else image
        cv2.imwrite(str(folder / f"{index:03}.png"), coded)
    return folder
