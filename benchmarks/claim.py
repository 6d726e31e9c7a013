"""Tests the demo world's claim once, on seeds that nothing was tuned on.

The claim: aligned on synthetic clips alone, a probe is better on the dataset with low scene bias
than aligned on human-free clips alone; on the one with high scene bias the order turns round; and
a mix that is chosen on the selection split beats both on the mean. Stage 1 is the same: MAE on
human-free clips. World and training seed change together. Beside it: random weights, one joint
head, no stage 1.

    python benchmarks/claim.py                    seeds 10 to 14, at most an hour on 2 cores
    python benchmarks/claim.py --seeds 0 1 2      the seeds it was tuned on

Runs the main job for each seed; interrupted, the same command continues. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sweeps.records import read_json, write_json  # noqa: E402
from sweeps.run import run_sweep  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402
from sweeps.watching.terminal import make_console  # noqa: E402
from trainables.config import TrialConfig  # noqa: E402
from trainables.data.catalog import load_catalog  # noqa: E402
from trainables.data.demo_world.settings import world_hash  # noqa: E402
from trainables.settings import parse  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402
from trainables.stages.run import run_stage  # noqa: E402
from trainables.trial import trial_stages  # noqa: E402

# Two-sided 90 % quantiles of Student's t, by degrees of freedom (any table of it).
T_90 = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860, 9: 1.833}

SHARES = "align.mixture.shares"
SYNTHETIC, SCENES = "baseline: synthetic only", "baseline: scenes only"
RANDOM, EQUAL = "baseline: random weights", "baseline: equal"
THREE_QUARTERS = "0.75 synthetic"
MIXES = (EQUAL, THREE_QUARTERS)  # one of them is chosen on the selection split
UNION, STAGE_1 = "equal, union head", "equal, after stage 1"

# The demo's sweep file, longer and with these arms instead of a search.
CHANGES: dict[str, Any] = {
    "datasets.demo_world.clips_per_source": 4096,
    "datasets.demo_world.downstream_train": 960,
    "datasets.demo_world.downstream_selection": 480,
    "datasets.demo_world.downstream_report": 720,
    "trial.mae.clips_per_epoch": 3200,
    "trial.align.epochs": 4,
    "trial.align.clips_per_epoch": 3200,
    "trial.align.heldout_clips": 64,
    "search.points": [
        {"name": THREE_QUARTERS, "set": {SHARES: {"synthetic": 0.75, "scenes": 0.25}}},
        {"name": UNION, "set": {"align.head": "union"}},
        {"name": STAGE_1, "set": {"mae.epochs": 2}},
    ],
    "search.trials": 7,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    arguments = parser.parse_args()
    began = time.time()
    scores = {seed: run_seed(seed) for seed in arguments.seeds}
    result = {
        "benchmark": "claim",
        "seeds": arguments.seeds,
        "minutes": round((time.time() - began) / 60, 1),
        "differences": differences(scores),
        "scores": scores,
    }
    print(table(scores))
    print(verdict(result["differences"]))
    print(json.dumps(result))
    return 0


def run_seed(seed: int) -> dict[str, Any]:
    """Top-1 on the report split by arm and dataset, in percent; which mix was chosen."""
    changes = CHANGES | {
        "name": f"claim-seed-{seed}",
        "datasets.demo_world.seed": seed,
        "trial.seed": seed,
    }
    sweep = Sweep(ROOT / "sweeps" / "demo.yaml", changes)
    if answer := read_json(sweep.folder, "claim.json"):  # the report split is read once
        return answer
    summary = run_sweep(sweep, make_console())
    trials = {trial["name"]: trial for trial in summary["trials"]}
    failed = [name for name, trial in trials.items() if trial["state"] != "complete"]
    if failed:
        raise SystemExit(f"seed {seed}: {failed} did not complete; see {sweep.folder}")
    chosen = max(MIXES, key=lambda name: trials[name]["score"])
    arms = {
        "random weights": RANDOM,
        "human-free only": SCENES,
        "synthetic only": SYNTHETIC,
        "chosen mix": chosen,
        "equal": EQUAL,
        "equal, union head": UNION,
        "equal, after stage 1": STAGE_1,
    }
    scores: dict[str, Any] = {arm: report_scores(sweep, trials[name]) for arm, name in arms.items()}
    scores |= {"chosen": chosen, "world": world_of(sweep)}
    write_json(sweep.folder, "claim.json", scores)
    return scores


def world_of(sweep: Sweep) -> str:
    settings = sweep.settings.datasets.demo_world
    assert settings is not None
    return world_hash(settings)


def report_scores(sweep: Sweep, trial: Mapping[str, Any]) -> dict[str, float]:
    """The trial's probes on the report split, in this process; train features are there."""
    world = Path(sweep.disk.url) / "worlds" / world_of(sweep)
    data = load_catalog(world / "catalog.yaml")
    store = StageStore(sweep.storage / "stages")
    stages = trial_stages(parse(TrialConfig, trial["config"], "trial"), data, split="report")
    for stage in stages.all():
        run_stage(stage, store, data, sweep.settings.execution.tasks, lambda: False)
    records = {name: store.record(stage.identity) for name, stage in stages.scored.items()}
    scores = {name: 100 * record.metrics["accuracy"] for name, record in records.items() if record}
    return scores | {"mean": statistics.mean(scores.values())}


def differences(scores: Mapping[int, Any]) -> dict[str, Any]:
    """Paired over seeds: mean and 90 % interval, in points of top-1."""
    pairs = {
        "synthetic - human-free, low bias": ("synthetic only", "human-free only", "low_bias"),
        "human-free - synthetic, high bias": ("human-free only", "synthetic only", "high_bias"),
        "chosen mix - synthetic, mean": ("chosen mix", "synthetic only", "mean"),
        "chosen mix - human-free, mean": ("chosen mix", "human-free only", "mean"),
        "chosen mix - random weights, mean": ("chosen mix", "random weights", "mean"),
        "per-source heads - union head, mean": ("equal", "equal, union head", "mean"),
        "stage 1 - none, mean": ("equal, after stage 1", "equal", "mean"),
    }
    return {
        name: interval([seed[a][on] - seed[b][on] for seed in scores.values()])
        for name, (a, b, on) in pairs.items()
    }


def interval(values: list[float]) -> dict[str, float]:
    """Mean and 90 % interval of Student's t; one value has no interval."""
    mean = statistics.mean(values)
    half = math.nan
    if len(values) > 1:
        half = T_90[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": round(mean, 2), "low": round(mean - half, 2), "high": round(mean + half, 2)}


def table(scores: Mapping[int, Any]) -> str:
    """Markdown: low / high / mean for each arm and seed."""
    arms = [arm for arm, value in next(iter(scores.values())).items() if isinstance(value, dict)]
    lines = [f"| seed | {' | '.join(arms)} | chosen |", "|---" * (len(arms) + 2) + "|"]
    for seed, by_arm in scores.items():
        cells = [" / ".join(f"{value:.1f}" for value in by_arm[arm].values()) for arm in arms]
        lines.append(f"| {seed} | {' | '.join(cells)} | {by_arm['chosen']} |")
    return "\n".join(["Report split, top-1 in %: low bias / high bias / mean", "", *lines])


def verdict(found: Mapping[str, Any]) -> str:
    lines = ["", "| difference | mean | 90 % interval |", "|---|---:|---|"]
    for name, value in found.items():
        lines.append(
            f"| {name} | {value['mean']:+.1f} | {value['low']:+.1f} to {value['high']:+.1f} |"
        )
    claims = list(found)[:4]
    held = [name for name in claims if found[name]["low"] > 0]
    lines += ["", f"Of the claim's {len(claims)} differences {len(held)} are above 0 at 90 %."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
