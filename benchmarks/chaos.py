"""A sweep on a cluster of three nodes, in which something is killed at random, again and again.

What is killed: a training worker (or it is stopped, so that it hangs), a trial's driver, the entry
process (which is then submitted again), a whole node (in whose place another joins). The next
kill comes some seconds after training went on. Afterwards the same sweep runs undisturbed, and the
two are compared: trials, scores, stages, MLflow runs.

    python benchmarks/chaos.py                          30 kills, in at most 40 minutes
    python benchmarks/chaos.py --kills 5 --seed 1

The last line is JSON. It exits with 1 where a stage was lost or trained twice, the sweep did not
end as the undisturbed one, or time was up before all kills; above that line stands what was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from tests.faults.aftermath import check_aftermath, finished_stages, storage_of  # noqa: E402
from tests.faults.disturbed import DisturbedSweep  # noqa: E402
from tests.faults.ray_nodes import RayNodes  # noqa: E402
from tests.sweeps.commands import run_to_end, write_world_sweep  # noqa: E402

KINDS = {"worker": 4, "hang": 1, "driver": 2, "entry process": 2, "node": 2}  # how often
PAUSE_SECONDS = (1.0, 8.0)  # from training going on to the next kill
MANY_MIXES = {
    "parameters": {
        "align.mixture.shares": {
            "type": "simplex",
            "over": ["synthetic", "scenes"],
            "step": 0.01,
        }
    }
}
SWEEP: dict[str, Any] = {
    "space": MANY_MIXES,
    "trial__mae__epochs": 75,
    "trial__align__epochs": 75,  # 150 steps, of a tenth of a second or more each
    "execution__hang_seconds": 10.0,
    "execution__first_step_seconds": 120.0,  # one may be stopped while it waits for a stage
    "execution__attempts": 100,
}
CHECKPOINT = 2  # steps between two
MORE_TRIALS = 4  # where the sweep ends before the kills do


class Chaos:
    """Kills, and what there was of them."""

    def __init__(self, sweep: DisturbedSweep, cluster: RayNodes, seed: int) -> None:
        self.sweep, self.cluster = sweep, cluster
        self.seed, self.random = seed, random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.survived = 0  # kills after which a step was taken, or the sweep has ended well
        self.finished: dict[str, int] = {}  # stages, before the last kill at which they were

    def strike(self) -> None:
        """One kill, of what there is at that moment."""
        (kind,) = self.random.choices([*KINDS], [*KINDS.values()])
        self.finished = finished_stages(self.sweep.sweep) | self.finished
        if self._kill(kind):
            self.killed[kind] += 1
            print(f"{self.kills}: {kind}", flush=True)

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    def told(self) -> dict[str, Any]:
        return {
            "benchmark": "chaos",
            "seed": self.seed,
            "kills": self.kills,
            "killed": dict(self.killed),
            "kills_survived": self.survived,
        }

    def _kill(self, kind: str) -> bool:
        try:
            if kind in ("worker", "hang"):
                trainer = self.sweep.last_trainer()
                (trainer.kill if kind == "worker" else trainer.suspend)()
            elif kind == "driver":
                self.random.choice(self.cluster.find("ray::ImplicitFunc")).kill()
            elif kind == "node":
                node = self.random.choice([n for n in self.cluster.nodes[1:] if n.lives()])
                node.kill()
                self.cluster.add_node()
            else:
                self.sweep.process.kill()
                self.sweep.process.wait()
                self.sweep.start()
        except (psutil.NoSuchProcess, IndexError):
            return False  # it has just ended by itself
        return True

    def finished_again(self) -> list[str]:
        """Stages whose record was replaced, or that took a step after it was written."""
        now, steps = finished_stages(self.sweep.sweep), self.sweep.steps().taken
        replaced = [name for name, when in self.finished.items() if now.get(name, when) != when]
        late = [name for name in now if name in steps and steps[name][-1][2] > now[name] / 1e9]
        return sorted({*replaced, *late})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=40.0, help="no more kills after these")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        result, wrong = run(Path(folder), arguments)
    for each in wrong:
        print(each, flush=True)
    print(json.dumps(result))
    return 1 if wrong else 0


def run(folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """What was measured, and what of it is wrong."""
    began = time.monotonic()
    cluster = RayNodes(folder / "ray")
    sweep = DisturbedSweep(
        write_world_sweep(folder / "sweep", search__trials=arguments.trials, **SWEEP), cluster
    )
    chaos = Chaos(sweep, cluster, arguments.seed)
    try:
        trials = disturb(sweep, chaos, arguments)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return chaos.told(), [f"the sweep did not end: {error}"]
    finally:
        cluster.shut_down()
    seconds = {"seconds": round(time.monotonic() - began)}

    reference = write_world_sweep(folder / "undisturbed", search__trials=trials, **SWEEP)
    run_to_end(reference, seconds=1800)
    compared, wrong = compare(chaos, reference)
    if chaos.kills < arguments.kills:
        wrong.append(f"only {chaos.kills} of {arguments.kills} kills in {arguments.minutes:g} min")
    return {**chaos.told(), **compared, **seconds}, wrong


def disturb(sweep: DisturbedSweep, chaos: Chaos, arguments: argparse.Namespace) -> int:
    """How many trials the sweep had when the kills were done; raises where it does not end."""
    began, trials = time.monotonic(), arguments.trials
    for _ in range(2):
        sweep.cluster.add_node()
    sweep.start()
    while chaos.kills < arguments.kills:
        if time.monotonic() - began > 60 * arguments.minutes:
            break
        if sweep.goes_on():
            chaos.survived = chaos.kills
            time.sleep(chaos.random.uniform(*PAUSE_SECONDS))
            chaos.strike()
        elif sweep.process.poll() is not None:  # it has ended: more trials
            assert sweep.process.returncode == 0, sweep.printed()
            trials += MORE_TRIALS
            sweep.start("--trials", str(trials))
    sweep.end(seconds=1200)
    chaos.survived = chaos.kills
    return int(trials)


def compare(chaos: Chaos, reference: Path) -> tuple[dict[str, Any], list[str]]:
    """With the same sweep undisturbed: figures, and what must not be."""
    sweep, steps = chaos.sweep.sweep, chaos.sweep.steps()
    repeated, taken = sum(steps.repeated().values()), sum(map(len, steps.taken.values()))
    lost = sorted(finished_stages(reference).keys() - finished_stages(sweep).keys())
    twice = chaos.finished_again()
    wrong = [f"stages lost: {lost}"] if lost else []
    wrong += [f"stages trained twice: {twice}"] if twice else []
    try:
        check_aftermath(
            sweep,
            reference,
            finished_before=chaos.finished,
            steps=steps,
            most_repeated=CHECKPOINT * chaos.kills,
        )
    except AssertionError as error:
        wrong.append(f"it did not end as the undisturbed sweep: {error}")
    figures = {
        "stages": len(finished_stages(sweep)),
        "stages_lost": len(lost),
        "stages_trained_twice": len(twice),
        "steps": taken - repeated,
        "steps_repeated": repeated,
        "work_repeated_percent": round(100 * repeated / (taken - repeated), 2),
        "most_attempts_at_a_stage": max(
            len(path.read_text()) for path in storage_of(sweep).glob("stages/*/attempts")
        ),
        "ended_as_undisturbed": not wrong,
    }
    return figures, wrong


if __name__ == "__main__":
    sys.exit(main())
