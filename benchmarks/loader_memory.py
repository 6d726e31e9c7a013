"""Memory of the loader while it reads 10,000 clips: this process and its loader processes.

Files like those of Kinetics (340 x 256) but short, read again and again in 16 frames of 224 pixels
as stage 1 reads them, and thrown away. Private memory (USS) counts once what processes share, as
the memory through which batches come; resident memory (RSS) counts it in each.

    python benchmarks/loader_memory.py                              2 processes, some minutes
    python benchmarks/loader_memory.py --clips 1000 --workers 0 --reader pyav

The last line is JSON: median, least and most of the readings in each quarter of the clips. Growth:
of the median of the last quarter beyond that of the second; the first fills what is kept of short
clips.
"""

from __future__ import annotations

import argparse
import json
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
from benchmarks.spread import spread  # noqa: E402
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


def mib() -> dict[str, float]:
    """Private and resident memory of this process and its children."""
    here = psutil.Process()
    found = [p.memory_full_info() for p in (here, *here.children(recursive=True))]
    return {name: sum(getattr(each, name) for each in found) / MIB for name in ("uss", "rss")}


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
        readings: list[dict[str, float]] = []
        began = time.monotonic()
        for step, _ in enumerate(batches, start=1):
            if step * READINGS // steps > (step - 1) * READINGS // steps:
                readings.append(mib())
                shown = ", ".join(f"{name} {value:7.0f}" for name, value in readings[-1].items())
                print(f"{step * stream.batch_size:6} clips  MiB {shown}", flush=True)
    quarter = len(readings) // 4
    result: dict[str, object] = {
        "benchmark": "loader_memory",
        "reader": arguments.reader,
        "workers": arguments.workers,
        "clips": stream.total,
        "seconds": round(time.monotonic() - began),
    }
    for name in ("uss", "rss"):
        values = [reading[name] for reading in readings]
        quarters = [spread(values[q * quarter : (q + 1) * quarter]) for q in range(4)]
        result[f"{name}_mib_quarters"] = quarters
        result[f"{name}_growth_mib"] = round(quarters[3]["median"] - quarters[1]["median"], 1)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
