"""How long a sampler takes to say what to try next, at trial 10, 100 and 1,000.

    python benchmarks/ask_time.py                     all samplers, on PPMA's space
    python benchmarks/ask_time.py --objectives 2 --samplers random tpe gp

The history is random points with made-up scores, one in ten pruned, one in twenty failed, four
running. For `cost_aware` the costs are those of the trials of sweeps/ppma.yaml, priced by their
stages as a sweep prices them, on datasets that are made up.
Medians over asks, wall and processor seconds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search_spaces.candidates import random_points  # noqa: E402
from search_spaces.cost_aware import Costs  # noqa: E402
from search_spaces.space import Space, load_space  # noqa: E402
from search_spaces.study import Study  # noqa: E402
from sweeps.planning.spending import Spending  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402
from trainables.data.catalog import Clip, Dataset  # noqa: E402

SAMPLERS = ("random", "tpe", "gp", "cost_aware")
TRIALS = (10, 100, 1000)
RUNNING = 4


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--asks", type=int, default=5)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--objectives", type=int, default=1)
    arguments = parser.parse_args()
    space = load_space(ROOT / "search_spaces" / "ppma.yaml")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for sampler in arguments.samplers:
        found[sampler] = {}
        for trials in TRIALS:
            wall, processor = zip(
                *(
                    timed_ask(space, sampler, trials, seed, arguments.objectives)
                    for seed in range(arguments.asks)
                ),
                strict=True,
            )
            found[sampler][str(trials)] = {
                "wall": round(statistics.median(wall), 3),
                "processor": round(statistics.median(processor), 3),
            }
            print(f"{sampler} at {trials}: {found[sampler][str(trials)]}", flush=True)
    print(json.dumps({"benchmark": "ask_time", **vars(arguments), "seconds": found}))
    return 0


def timed_ask(
    space: Space, sampler: str, trials: int, seed: int, objectives: int
) -> tuple[float, float]:
    """Wall and processor seconds of one ask after `trials` trials."""
    study = with_history(space, sampler, trials, seed, objectives)
    wall, processor = time.monotonic(), time.process_time()
    assert study.ask(spent=0.3) is not None
    return time.monotonic() - wall, time.process_time() - processor


def priced() -> Costs:
    """What trials of PPMA's sweep cost, nothing of it made yet."""
    sweep = Sweep(ROOT / "sweeps" / "ppma.yaml", {"storage": tempfile.mkdtemp()})
    clips = tuple(
        Clip(path=f"{i}.mp4", label=i % 2, group=f"{i}", split=split)
        for i, split in enumerate(["train", "selection", "report"] * 4)
    )
    data = {
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
    return Spending(sweep, data, lambda record: sweep.settings.trial).left


def with_history(space: Space, sampler: str, trials: int, seed: int, objectives: int) -> Study:
    draw = random.Random(seed)
    study = Study(
        space,
        sampler=sampler,
        seed=seed,
        startup_trials=5,
        costs=priced(),
        directions=["maximize"] * objectives,
    )
    for values in random_points(space, trials, np.random.default_rng(seed)):
        number = study.add(values).number
        study.report(number, 1, draw.random())
        if number >= trials - min(RUNNING, trials // 3):
            continue
        chance = draw.random()
        if chance < 0.1:
            study.tell(number, "pruned", None)
        elif chance < 0.15:
            study.tell(number, "failed", None)
        else:
            study.tell(number, "complete", [draw.random() for _ in range(objectives)])
    return study


if __name__ == "__main__":
    sys.exit(main())
