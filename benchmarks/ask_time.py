"""How long a sweep takes to say what to try next, at trial 10, 100 and 1,000.

    python benchmarks/ask_time.py                     all samplers, on PPMA's space
    python benchmarks/ask_time.py --objectives 2 --samplers random tpe gp

It is `Search.ask` of sweeps/ppma.yaml that is timed, all of it: what is finished is read anew, the
sampler draws, `cost_aware` with the cost of trials beside the stages that are there, and the trial
is written. The history is random points with made-up scores, one in ten pruned, one in twenty
failed, four running; of those that are complete every stage is in the store. Datasets are made up.
Asks in a row, wall and processor seconds: median, least and most. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.spread import spread  # noqa: E402
from cluster.study import RungPoint  # noqa: E402
from search_spaces.candidates import random_points  # noqa: E402
from search_spaces.space import load_space  # noqa: E402
from sweeps.planning.stage_facts import stage_clips  # noqa: E402
from sweeps.records import TrialRecord, write_record  # noqa: E402
from sweeps.searching.search import Search  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402
from trainables.data.catalog import Clip, Dataset  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402
from trainables.trial import trial_stages  # noqa: E402

SAMPLERS = ("random", "tpe", "gp", "cost_aware")
TRIALS = (10, 100, 1000)
RUNNING = 4
CLIPS_PER_SECOND = 400.0  # that the stages of the history took


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--asks", type=int, default=5)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--objectives", type=int, default=1, choices=(1, 2))
    parser.add_argument("--trials", nargs="+", type=int, default=list(TRIALS))
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {
        each: {} for each in arguments.samplers
    }
    for trials in arguments.trials:
        with tempfile.TemporaryDirectory() as storage:
            records = history(trials)
            for sampler in arguments.samplers:
                search = begun(storage, sampler, records, arguments)
                times = [timed_ask(search) for _ in range(arguments.asks)]
                wall, processor = (spread([*each]) for each in zip(*times, strict=True))
                found[sampler][str(trials)] = {"wall": wall, "processor": processor}
                print(f"{sampler} at {trials}: {found[sampler][str(trials)]}", flush=True)
    print(json.dumps({"benchmark": "ask_time", **vars(arguments), "seconds": found}))
    return 0


def timed_ask(search: Search) -> tuple[float, float]:
    """Wall and processor seconds of one ask."""
    wall, processor = time.monotonic(), time.process_time()
    assert search.ask() is not None
    return time.monotonic() - wall, time.process_time() - processor


def history(trials: int) -> list[TrialRecord]:
    """What the trials came to, the last of them still running."""
    draw, records = random.Random(0), list[TrialRecord]()
    space = load_space(ROOT / "search_spaces" / "ppma.yaml")
    for number, values in enumerate(random_points(space, trials, np.random.default_rng(0))):
        told: dict[str, Any] = {"state": "running"}
        if number < trials - min(RUNNING, trials // 3):
            chance = draw.random()
            told = {"state": "complete", "score": draw.random(), "device_seconds": draw.random()}
            if chance < 0.1:
                told = {"state": "pruned", "reason": "weak"}
            elif chance < 0.15:
                told = {"state": "failed", "reason": "the loss is nan"}
        records.append(
            TrialRecord(
                number=number, name=None, origin="suggested", values=values, params={}, **told
            )
        )
    return records


def begun(
    storage: str, sampler: str, records: list[TrialRecord], arguments: argparse.Namespace
) -> Search:
    """A sweep with this history, as one that is continued, its running trials handed out again."""
    settings: dict[str, Any] = {
        "storage": storage,
        "name": sampler,
        "search.sampler": sampler,
        "search.trials": len(records) + arguments.asks,
        "search.objectives": ["score", "gpu_hours"][: arguments.objectives],
    }
    sweep = Sweep(ROOT / "sweeps" / "ppma.yaml", settings)
    data, downstream = made_up(sweep), sweep.settings.trial.downstream
    store = StageStore(sweep.storage / "stages")
    draw = random.Random(1)
    for record in records:
        height = dict.fromkeys(downstream, draw.random())
        record.rungs[:] = [RungPoint(rung=0.5, accuracies=height, device_seconds=1.0)]
        if record.state == "complete":
            record.scores.update(dict.fromkeys(downstream, record.score or 0.0))
        write_record(sweep.folder, record)
        stages = trial_stages(sweep.trial_with(record.values, "the history"), data)
        for stage in stages.searched() if record.state == "complete" else ():
            if store.record(stage.identity) is None:
                clips = float(stage_clips(stage, data))
                cost = {"device_seconds": clips / CLIPS_PER_SECOND, "clips": clips}
                store.publish(stage, write={}, metrics={}, cost=cost)
    assert sweep.space_file is not None
    search = Search(sweep, load_space(sweep.space_file), [], data)
    for record in records:
        if record.state == "running":
            assert search.ask() is not None
    return search


def made_up(sweep: Sweep) -> dict[str, Dataset]:
    clips = tuple(
        Clip(path=f"{i}.mp4", label=i % 2, group=f"{i}", split=split)
        for i, split in enumerate(["train", "selection", "report"] * 4)
    )
    return {
        name: Dataset(
            name=name,
            root=Path("nowhere"),
            humans="virtual",
            classes=("a", "b"),
            clips=clips,
            frame_rate=None,
            content_hash=name,
        )
        for name in ["nh_kinetics", "synapt", *sweep.settings.trial.downstream]
    }


if __name__ == "__main__":
    sys.exit(main())
