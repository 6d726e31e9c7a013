"""Replays samplers over recorded worlds: what each spends until it recommends well.

    python benchmarks/search.py                          all samplers, 50 seeds, on world 21
    python benchmarks/search.py --world 20 --seeds 10    the world that ours was tuned on
    python benchmarks/search.py --simulated 1            a made-up world, larger than was recorded

A table of benchmarks/record_search.py answers for training. A trial costs what its stages took,
each paid once in a replay; of one that ASHA stops, the epochs up to its stop. A replay ends when
the trial with the best score so far, which a sweep would recommend, has a mean over the training
seeds within half a standard error of the best mean of the table. Two kinds of replay:

  mean   a trial scores the mean over the training seeds (and costs the mean): no noise
  one    a trial scores what one training seed did, as in a real sweep; then it counts when such a
         configuration was tried, for the best score itself is partly luck

Ours decays its interest in costs over a budget of half the price of the whole grid. The last line
is JSON: device-seconds until then, median over seeds (null: most never came there).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search_spaces.points import grid  # noqa: E402
from search_spaces.space import Space, load_space, parse_space  # noqa: E402
from search_spaces.study import Study  # noqa: E402

SAMPLERS = ("random", "tpe", "gp", "asha+tpe", "cost_aware")
STARTUP_TRIALS = 5  # of every sampler that models scores
REDUCTION_FACTOR, GRACE_EPOCHS = 2, 1  # of ASHA
BUDGET = 0.5  # of the whole grid's price


@dataclass(frozen=True)
class Trial:
    """What one configuration did with one training seed, or with all of them on average."""

    score: float
    heldout: list[float]  # by epoch of alignment
    stages: dict[str, float]  # identity -> seconds
    trained: list[str]  # of those: the alignments, which ASHA may cut short


@dataclass
class World:
    space: Space
    trials: dict[int, dict[str, Trial]]  # training seed -> configuration -> trial
    means: dict[str, float] = field(init=False)  # configuration -> mean score
    error: float = field(init=False)  # standard error of such a mean
    target: float = field(init=False)

    def __post_init__(self) -> None:
        seeds = list(self.trials.values())
        scores = {key: [trials[key].score for trials in seeds] for key in seeds[0]}
        self.means = {key: statistics.mean(values) for key, values in scores.items()}
        variance = statistics.mean(statistics.variance(values) for values in scores.values())
        self.error = math.sqrt(variance / len(seeds))
        self.target = max(self.means.values()) - self.error / 2

    def price(self, trials: Mapping[str, Trial]) -> float:
        """Of the whole grid, every stage once."""
        return sum({i: s for trial in trials.values() for i, s in trial.stages.items()}.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--world", type=int, default=21, help="a recorded world")
    which.add_argument("--simulated", type=int, help="seed of a made-up world, instead")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    arguments = parser.parse_args()
    simulated = arguments.simulated is not None
    world = made_up(arguments.simulated) if simulated else load_world(arguments.world)
    name = f"simulated {arguments.simulated}" if simulated else f"world {arguments.world}"
    best = max(world.means, key=lambda key: world.means[key])
    within = sum(mean >= world.target for mean in world.means.values())
    print(f"{name}: {len(world.means)} configurations, best mean", end=" ")
    print(f"{world.means[best]:.3f} (standard error {world.error:.3f}) at {best}; {within} within")
    found: dict[str, dict[str, Any]] = {}
    for sampler in arguments.samplers:
        found[sampler] = {}
        for kind in ("mean", "one"):
            spent = [replay(world, sampler, seed, kind) for seed in range(arguments.seeds)]
            found[sampler][kind] = quartiles(spent)
        print(f"{sampler:>10}: {json.dumps(found[sampler])}", flush=True)
    ratios = {}
    others = [name for name in arguments.samplers if name != "cost_aware"]
    if "cost_aware" in found and others:
        for kind in ("mean", "one"):
            known = [v for name in others if (v := found[name][kind]["median"]) is not None]
            ours = found["cost_aware"][kind]["median"]
            ratios[kind] = round(ours / min(known), 2) if known and ours is not None else None
    result = {
        "benchmark": "search",
        "world": name,
        "seeds": arguments.seeds,
        "grid_seconds": round(world.price(average(world.trials))),
        "within": within,
        "seconds_to_target": found,
        "ours_over_best_other": ratios,
    }
    print(json.dumps(result))
    return 0


def load_world(number: int) -> World:
    table = json.loads((ROOT / "benchmarks" / f"search_world_{number}.json").read_text())
    whole = load_space(ROOT / "benchmarks" / "recorded_space.yaml")
    space = Space({path: each for path, each in whole.parameters.items() if path != "seed"})
    trials: dict[int, dict[str, Trial]] = {}
    for row in table["trials"]:
        values = dict(row["values"])
        seed = values.pop("seed")
        stages = {identity: table["stages"][identity] for identity in row["stages"]}
        trials.setdefault(seed, {})[key_of(values)] = Trial(
            score=statistics.mean(row["scores"].values()),
            heldout=row["heldout"],
            stages={identity: each["seconds"] for identity, each in stages.items()},
            trained=[identity for identity, each in stages.items() if each["kind"] == "align"],
        )
    return World(space, trials)


def made_up(seed: int) -> World:
    """495 configurations: shares under two mixing laws, epochs of both stages, coefficients.

    Longer stages score more and cost more; coefficients only their features. Two training seeds.
    """
    draw = np.random.default_rng(seed)
    space = parse_space(
        {
            "parameters": {
                "mae.epochs": {"type": "choice", "values": [0, 2, 4]},
                "align.epochs": {"type": "int", "low": 1, "high": 3},
                "average.coefficient": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
                "shares": {"type": "simplex", "over": ["synthetic", "scenes"], "step": 0.1},
            }
        },
        where="made up",
    )
    rises = draw.uniform(1.0, 3.0, size=2)  # of each dataset's loss away from its source
    gain, per_epoch = draw.uniform(-0.02, 0.04), draw.uniform(0.0, 0.03)
    peak = draw.uniform(0.3, 1.0)  # the best coefficient
    trials: dict[int, dict[str, Trial]] = {0: {}, 1: {}}
    for values in grid(space):
        share = values["shares"]["synthetic"]
        mae, align, at = (
            values[f"{k}"] for k in ("mae.epochs", "align.epochs", "average.coefficient")
        )
        mix = at * share  # between scenes alone and the mix
        loss = [0.3 + 0.2 * math.exp(-rises[0] * mix), 0.1 + 0.2 * math.exp(-rises[1] * (1 - mix))]
        score = 1 - sum(loss) / 2 + gain * mae / 2 + per_epoch * align - 0.05 * (at - peak) ** 2
        scenes, mixed = at < 1 or not share, at > 0 and share  # endpoints that are needed
        names = {f"mae {mae}": 30.0 * mae, f"w0 {mae} {align}": 40.0 * align * scenes}
        names[f"w1 {mae} {align} {share}"] = 40.0 * align if mixed else 0.0
        ends = [share if mixed else None, bool(scenes)]  # a pass for what lies between, or for one
        names[f"features {mae} {align} {ends}"] = 9.0 if all(ends) else 3.0
        names[f"probe {mae} {align} {ends} {at if all(ends) else None}"] = 2.0
        for training_seed, found in trials.items():
            heldout = [
                score - 0.1 * (1 - e / 3) + draw.normal(0, 0.02) for e in range(1, align + 1)
            ]
            noisy = score + draw.normal(0, 0.008)
            stages = {f"{training_seed} {name}": cost for name, cost in names.items() if cost}
            trained = [name for name in stages if " w" in name]
            found[key_of(values)] = Trial(noisy, heldout, stages, trained)
    return World(space, trials)


def key_of(values: Mapping[str, Any]) -> str:
    shown = {path: value for path, value in sorted(values.items())}
    return json.dumps(shown, sort_keys=True)


def average(trials: Mapping[int, Mapping[str, Trial]]) -> dict[str, Trial]:
    """As if one trial trained all seeds at the mean cost; stages are named by the first seed's."""
    first, *others = trials.values()
    stages = {i: s for trial in first.values() for i, s in trial.stages.items()}
    of_all: dict[str, list[float]] = {identity: [alone] for identity, alone in stages.items()}
    for other in others:
        paired: dict[str, float] = {}
        for key, trial in first.items():
            paired |= dict(zip(trial.stages, other[key].stages.values(), strict=True))
        for identity, alone in paired.items():
            of_all[identity].append(alone)
    seconds = {identity: statistics.mean(each) for identity, each in of_all.items()}
    return {
        key: Trial(
            score=statistics.mean(each[key].score for each in trials.values()),
            heldout=[
                statistics.mean(at)
                for at in zip(*(each[key].heldout for each in trials.values()), strict=True)
            ],
            stages={identity: seconds[identity] for identity in trial.stages},
            trained=trial.trained,
        )
        for key, trial in first.items()
    }


def replay(world: World, sampler: str, seed: int, kind: str) -> float:
    """Device-seconds until the target is reached; infinite where the whole grid is used up."""
    seeds = list(world.trials)
    trials = average(world.trials) if kind == "mean" else world.trials[seeds[seed % len(seeds)]]
    budget = BUDGET * world.price(trials)
    paid: dict[str, float] = {}  # stage -> how much of it is there, 0 to 1
    known: set[tuple[str, ...]] = set()  # the stages of trials that there are
    spent, best = 0.0, -math.inf

    def left(points: Sequence[Mapping[str, Any]]) -> list[float]:
        there = [trials[key_of(point)].stages for point in points]
        return [
            math.inf
            if tuple(stages) in known
            else sum(s * (1 - paid.get(i, 0.0)) for i, s in stages.items())
            for stages in there
        ]

    study = Study(
        world.space,
        sampler="tpe" if sampler == "asha+tpe" else sampler,
        seed=seed,
        startup_trials=STARTUP_TRIALS,
        costs=left,
    )
    rungs: dict[int, list[float]] = {}
    for _ in range(len(world.means)):
        suggestion = study.ask(spent=spent / budget)
        assert suggestion is not None
        key, number = key_of(suggestion.values), suggestion.number
        trial = trials[key]
        known.add(tuple(trial.stages))
        stop = None
        for epoch, value in enumerate(trial.heldout, start=1):
            study.report(number, epoch, value)
            if sampler == "asha+tpe" and epoch < len(trial.heldout):
                if not goes_on(rungs.setdefault(epoch, []), value, epoch):
                    stop = epoch / len(trial.heldout)
                    break
        for identity, seconds in trial.stages.items():
            if stop is not None and identity not in before_and_in(trial):
                continue
            part = stop if stop is not None and identity in trial.trained else 1.0
            spent += seconds * max(0.0, part - paid.get(identity, 0.0))
            paid[identity] = max(part, paid.get(identity, 0.0))
        if stop is not None:
            study.tell(number, "pruned")
            continue
        study.tell(number, "complete", [trial.score])
        leads = trial.score > best
        best = max(best, trial.score)
        if world.means[key] >= world.target and (leads or kind == "one"):
            return spent
    return math.inf


def goes_on(rung: list[float], value: float, epoch: int) -> bool:
    """Ray's ASHA: not worse than the best 1 in REDUCTION_FACTOR of those that came here before."""
    steps = math.log(epoch / GRACE_EPOCHS, REDUCTION_FACTOR)
    if epoch < GRACE_EPOCHS or abs(steps - round(steps)) > 1e-9:
        return True
    share = 1 - 1 / REDUCTION_FACTOR
    stays = not rung or value >= float(np.percentile(rung, 100 * share))
    rung.append(value)
    return stays


def before_and_in(trial: Trial) -> list[str]:
    """The stages up to alignment, which stand first in a trial."""
    order = list(trial.stages)
    return order[: max(order.index(identity) for identity in trial.trained) + 1]


def quartiles(spent: list[float]) -> dict[str, Any]:
    ordered = sorted(spent)
    at = {"low": 0.25, "median": 0.5, "high": 0.75}
    found = {name: ordered[min(int(q * len(ordered)), len(ordered) - 1)] for name, q in at.items()}
    return {name: round(v, 1) if math.isfinite(v) else None for name, v in found.items()} | {
        "never": sum(not math.isfinite(v) for v in spent)
    }


if __name__ == "__main__":
    sys.exit(main())
