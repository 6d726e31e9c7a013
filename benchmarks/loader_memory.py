"""Memory of the loader while it reads 10,000 clips: this process and its loader processes.

Files like those of Kinetics (340 x 256) but short, read again and again in 16 frames of 224 pixels
as stage 1 reads them, and thrown away. Private memory (USS), so that what processes share counts
once.

    python benchmarks/loader_memory.py                              2 processes, some minutes
    python benchmarks/loader_memory.py --clips 1000 --workers 0 --reader pyav

The last line is JSON. Growth: of the mean over the last quarter of the readings beyond that over
the second; the first quarter fills what is kept of short clips.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.input_pipeline import AUGMENT, CLIP, dataset, mixture  # noqa: E402
from benchmarks.moving_scene import HEIGHT, RATE, WIDTH, scene  # noqa: E402
from trainables.data.loader import training_batches  # noqa: E402

FILES = 40
SECONDS = (1, 6)  # of half the files each: some are shorter than a window and are kept, some not
READINGS = 40
MIB = 2**20


def render(path: Path, seed: int, seconds: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", 12
        for frame in scene(seed, seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def private_mib() -> float:
    """Of this process and its children."""
    here = psutil.Process()
    return sum(p.memory_full_info().uss for p in (here, *here.children(recursive=True))) / MIB


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reader", choices=["decord", "pyav"], default="decord")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(FILES):
            render(Path(scratch) / f"{number:02}.mp4", number, SECONDS[number % 2])
        data = dataset(Path(scratch))
        stream = mixture(data, arguments.clips, views=1)
        steps = stream.total // stream.batch_size
        batches = training_batches(
            {"clips": data},
            stream,
            CLIP,
            AUGMENT,
            start_step=0,
            stop_step=steps,
            rank=0,
            world_size=1,
            workers=arguments.workers,
            video_reader=arguments.reader,
            max_unreadable=0.0,
            pairing=None,
            resample={},
            second_views={},
            pin_memory=False,
        )
        readings: list[float] = []
        began = time.monotonic()
        for step, _ in enumerate(batches, start=1):
            if step * READINGS // steps > (step - 1) * READINGS // steps:
                readings.append(private_mib())
                print(f"{step * stream.batch_size:6} clips  {readings[-1]:7.0f} MiB", flush=True)
    quarter = len(readings) // 4
    settled, last = (statistics.mean(readings[q * quarter : (q + 1) * quarter]) for q in (1, 3))
    result = {
        "benchmark": "loader_memory",
        "reader": arguments.reader,
        "workers": arguments.workers,
        "clips": stream.total,
        "seconds": round(time.monotonic() - began),
        "mib_most": round(max(readings)),
        "mib_settled": round(settled),
        "mib_last_quarter": round(last),
        "growth_mib": round(last - settled, 1),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
