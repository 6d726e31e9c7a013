"""Frames like those of Kinetics, for files that benchmarks read: no video library is needed."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

WIDTH, HEIGHT, RATE, SECONDS = 340, 256, 25, 10


def scene(seed: int, seconds: int = SECONDS) -> Iterator[np.ndarray]:
    """uint8 [HEIGHT, WIDTH, 3]: a panning camera, moving things and sensor noise."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    ground = cv2.resize(cells, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    for t in range(RATE * seconds):
        left = int(WIDTH / 2 * (1 + np.sin(t / 40 + seed)))
        top = int(HEIGHT / 2 * (1 + np.cos(t / 57)))
        frame = ground[top : top + HEIGHT, left : left + WIDTH].copy()
        for k in range(4):
            x, y = 170 + 80 * np.sin(t / 9 + k), 128 + 60 * np.cos(t / 13 + 2 * k)
            cv2.circle(frame, (int(x), int(y)), 18 + 5 * k, (40 * k, 200 - 30 * k, 90), -1)
        yield np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
