"""How many clips of virtual humans one core renders in a minute, files written.

Clips are drawn and encoded as `python -m trainables.data.virtual_humans` does by default (340x256,
4 s, one to three people), in this process; motions are read before the clock starts, as a clip of
a large set costs no reading of a new one. Seconds are CPU seconds, so that the load of a machine
counts little.

    python benchmarks/virtual_humans.py MOCAP               15 frames a second, 5 rounds of 12 clips
    python benchmarks/virtual_humans.py MOCAP --fps 30
    python benchmarks/virtual_humans.py MOCAP --profile     where the time goes, before the figures

MOCAP is a folder of BVH files with a clips.csv. The last line is JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from trainables.data.virtual_humans.plan import plan_clips  # noqa: E402
from trainables.data.virtual_humans.render import render_clips  # noqa: E402
from trainables.data.virtual_humans.settings import RenderSettings  # noqa: E402
from trainables.data.virtual_humans.takes import find_takes, motion_of  # noqa: E402

AIM = 100  # clips a minute a core


def main() -> None:
    arguments = _arguments()
    settings = RenderSettings(
        seed=0,
        clips=arguments.rounds * arguments.clips,
        heldout_clips=0,
        heldout_share=0.25,
        seconds=4.0,
        frames_per_second=arguments.fps,
        width=340,
        height=256,
        most_people=3,
        cast=200,
        cameras=200,
        crf=22,
        motions="",
        footage=None,
    )
    plans = plan_clips(settings, find_takes(arguments.motions, None), 0)
    for plan in plans:
        for take in plan.takes:
            motion_of(take.path)
    rates, profile = [], cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        render_clips(plans[:1], settings, [], Path(folder, "warm"), None)
        for number in range(arguments.rounds):
            part = plans[number * arguments.clips : (number + 1) * arguments.clips]
            if arguments.profile:
                profile.enable()
            begun = time.process_time()
            render_clips(part, settings, [], Path(folder, str(number)), None)
            rates.append(60 * len(part) / (time.process_time() - begun))
            profile.disable()
            print(f"round {number + 1}: {rates[-1]:.0f} clips a minute")
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    result = {
        "clips_per_minute_per_core": round(statistics.median(rates), 1),
        "spread": [round(min(rates), 1), round(max(rates), 1)],
        "rounds": arguments.rounds,
        "clips_a_round": arguments.clips,
        "frames_per_second": arguments.fps,
        "people_a_clip": round(statistics.mean(len(plan.cast) for plan in plans), 2),
        "aim": AIM,
    }
    print(json.dumps(result))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("motions", type=Path, metavar="MOCAP")
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
