"""PPMA's search on 8, 64 and 512 GPUs, simulated: with nodes taken back, with and without sharing.

The plan is the project's own (`--dry-run`): the trials of sweeps/ppma.yaml, those to be suggested
drawn at random from its space; their stages, prices and order. The simulation queues the stages as
`sweeps/planning/schedule.py` does for the plan, on nodes of 8 GPUs, each taken back at random; a
stage that runs there goes on from its last checkpoint where there is room. "Alone" is the same
trials with nothing shared.

The clips a second of one GPU are measured, on an H200 (benchmarks/gpu.sh, docs/results.md); that 8
GPUs do 8 times as much, and all that nodes do, is not. The sizes of the datasets are those of the
published lists; no file of them is needed.

    python benchmarks/scale.py
    python benchmarks/scale.py --rates mae=1800 align=450 finetune=450 tasks=1300
    python benchmarks/scale.py --share 0.4      stages cost their FLOPs at 40 % of an H200's peak
    python benchmarks/scale.py --trials 30 --seeds 3        seconds
    python benchmarks/scale.py --set trial.align.optimizer.lr_schedule=constant_then_decay ...

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from search_spaces.space import load_space  # noqa: E402
from sweeps.checks import within_limits  # noqa: E402
from sweeps.mixture_limits import limited  # noqa: E402
from sweeps.planning.costs import StageCosts  # noqa: E402
from sweeps.planning.forecast import draw, reported, tasks_of  # noqa: E402
from sweeps.planning.plan import Plan, PlannedStage, make_plan  # noqa: E402
from sweeps.planning.schedule import Task, simulate  # noqa: E402
from sweeps.planning.spot import Spot  # noqa: E402
from sweeps.planning.stage_facts import PRETRAINED, batch_size  # noqa: E402
from sweeps.searching.given import given_trials  # noqa: E402
from sweeps.searching.search import Search  # noqa: E402
from sweeps.sweep import Sweep, parse_assignments  # noqa: E402
from trainables.config import Execution  # noqa: E402
from trainables.data.catalog import Clip, Dataset  # noqa: E402
from trainables.stage import TRAINED, executed_as  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402

NODE = 8  # GPUs
# Compiled, the loader included; fine-tuning's step is alignment's; tasks extract features.
MEASURED = ["mae=1041", "align=350", "finetune=350", "tasks=965"]
H200_TERAFLOPS = 989.0  # bf16, dense, by NVIDIA's data sheet
SOURCES = {"nh_kinetics": ("removed", 89_665), "synapt": ("virtual", 140_245)}
# Train lists, of which a fifth is cut for selection, and val lists. Mini-SSv2's train list is not
# in PPMA's repository: its size is that of the other lists' authors, from memory.
DOWNSTREAM = {
    "ucf101": (9_537, 3_783),
    "hmdb51": (3_570, 1_530),
    "mini_ssv2": (81_663, 11_799),
    "diving48": (15_027, 1_970),
    "ikea_fa": (1_781, 163),
    "uav_human": (16_285, 6_191),
}
HOUR = 3600.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[30, 300])
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument(
        "--rates",
        nargs="+",
        default=MEASURED,
        metavar="KIND=CLIPS",
        help=f"clips a second of one GPU (default: {' '.join(MEASURED)})",
    )
    parser.add_argument(
        "--share", type=float, help="of the H200's peak that every stage reaches, instead of rates"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the sweep file"
    )
    parser.add_argument("--per-hour", type=float, default=0.05, help="that a node is taken back")
    parser.add_argument("--away", type=float, default=300.0, help="seconds until another is there")
    parser.add_argument("--restart", type=float, default=60.0, help="seconds from then to a step")
    parser.add_argument("--start", type=float, default=10.0, help="seconds that any stage starts")
    parser.add_argument("--seeds", type=int, default=20, help="simulations with nodes taken back")
    arguments = parser.parse_args()
    found, rates = {}, dict[str, float]()
    for trials in arguments.trials:
        swept = Swept(trials, arguments)
        rates = swept.clips_per_second()
        gpus = {str(count): on(count, swept, arguments) for count in arguments.gpus}
        found[str(trials)] = {**swept.figures(), "gpus": gpus}
        print_table(trials, found[str(trials)])
    assumed = {
        "gpus_a_node": NODE,
        "share_of_peak": arguments.share,
        "peak_teraflops": H200_TERAFLOPS if arguments.share else None,
        "clips_per_second": rates,
        "taken_back_per_hour": arguments.per_hour,
        "away_seconds": arguments.away,
        "restart_seconds": arguments.restart,
        "start_seconds": arguments.start,
    }
    result = {"benchmark": "scale", "simulated": True, "seeds": arguments.seeds}
    result["changed"] = arguments.set
    print(json.dumps({**result, "assumed": assumed, "trials": found}))
    return 0


class Swept:
    """The sweep's plan, its suggestions drawn, as tasks: shared, and each trial alone."""

    def __init__(self, trials: int, arguments: argparse.Namespace) -> None:
        changes = {**parse_assignments(arguments.set), "search.trials": trials}
        changes["storage"] = tempfile.mkdtemp(prefix="scale-")  # nothing is written there
        if arguments.share:
            changes["execution.device_teraflops"] = arguments.share * H200_TERAFLOPS
        else:
            given_rates = (each.split("=") for each in arguments.rates)
            changes["execution.clips_per_second"] = {kind: float(r) for kind, r in given_rates}
        sweep = Sweep(ROOT / "sweeps" / "ppma.yaml", changes)
        assert sweep.space_file is not None
        self._data, self._execution = datasets(), sweep.settings.execution
        self._start_seconds = arguments.start
        store = StageStore(sweep.storage / "stages")
        self._costs = StageCosts(self._data, store, self._execution)
        space = load_space(sweep.space_file)
        space = limited(space, sweep.settings.trial, self._data, sweep.space_file.name)
        sizes = {name: size for name, (_, size) in SOURCES.items()}
        given, _ = within_limits(sweep, space, given_trials(sweep, space, sizes), self._data)
        search = Search(sweep, space, given, self._data)
        known, in_full = search.known(), reported(search)
        everything = {**known, **draw(sweep, space, search, trials - len(known))}

        self._plan = make_plan(everything, 0, self._data, self._costs, in_full)
        self.shared = self._tasks(self._plan)
        self.alone: dict[str, Task] = {}
        for number, trial in everything.items():
            own = make_plan({number: trial}, 0, self._data, self._costs, in_full)
            for name, task in self._tasks(own).items():
                self.alone[f"{number} {name}"] = replace(
                    task,
                    waits_for=[f"{number} {other}" for other in task.waits_for],
                    # What no score needs comes after all trials here too.
                    trials=[number if number in task.trials else trials],
                )

    def figures(self) -> dict[str, Any]:
        hours, alone = gpu_hours(self.shared.values()), gpu_hours(self.alone.values())
        kinds: dict[str, list[Task]] = {}
        for planned in self._plan.missing:
            kinds.setdefault(planned.stage.kind, []).append(self.shared[planned.stage.identity])
        return {
            "stages": len(self.shared),
            "stages_alone": len(self.alone),
            "gpu_hours": round(hours, 1),
            "gpu_hours_alone": round(alone, 1),
            "saved": round(alone / hours, 2),
            "gpu_hours_by_kind": {kind: round(gpu_hours(of), 1) for kind, of in kinds.items()},
            "stages_by_kind": {kind: len(of) for kind, of in kinds.items()},
        }

    def clips_per_second(self) -> dict[str, float]:
        """Of one GPU, by kind of stage, as the plan's prices have it."""
        found: dict[str, float] = {}
        for planned in self._plan.missing:
            if planned.clips and planned.price is not None:
                found[planned.stage.kind] = round(planned.clips / planned.price.seconds, 1)
        return found

    def _tasks(self, plan: Plan) -> dict[str, Task]:
        """With what a stage takes beside its work, and with its checkpoints."""
        tasks = tasks_of(plan.missing)
        assert tasks is not None, "a stage has no price"
        for planned in plan.missing:
            name, kind = planned.stage.identity, planned.stage.kind
            execution: Execution = getattr(self._execution, executed_as(kind))
            tasks[name] = replace(
                tasks[name],
                seconds=tasks[name].seconds + self._start_seconds,
                checkpoint_seconds=checkpoint_seconds(planned, tasks[name], execution),
            )
        return tasks


def checkpoint_seconds(planned: PlannedStage, task: Task, execution: Execution) -> float:
    """Of its work between two checkpoints, with all its workers; infinite: it makes none."""
    stage = planned.stage
    if stage.kind not in TRAINED:
        return math.inf
    if stage.kind in PRETRAINED:
        batch = batch_size(stage)
    else:
        kind = "finetune" if stage.kind == "finetune" else "augmented_probe"
        batch = stage.settings[kind]["optimizer"]["batch_size"]
    return task.seconds * execution.checkpoint_every_steps * batch / planned.clips


def gpu_hours(tasks: Iterable[Task]) -> float:
    return sum(task.seconds * task.devices for task in tasks) / HOUR


def on(gpus: int, swept: Swept, arguments: argparse.Namespace) -> dict[str, Any]:
    """Hours: medians with nodes taken back. A trial at a time for each node is what
    `concurrent: auto` comes to; with two, one is scored while the other trains."""
    nodes = [float(NODE)] * (gpus // NODE)
    found: dict[str, Any] = {}
    ways = {
        "shared": (swept.shared, 1),
        "alone": (swept.alone, 1),
        "shared, two trials a node": (swept.shared, 2),
        "shared, elastic": (elastic(swept.shared), 1),
    }
    for way, (tasks, at_a_time) in ways.items():
        trials = at_a_time * len(nodes)
        calm = simulate(tasks, nodes, trials)
        struck = [
            simulate(tasks, nodes, trials, spot_of(arguments, seed))
            for seed in range(arguments.seeds)
        ]
        hours = sorted(run.seconds / HOUR for run in struck)
        found[way] = {
            "hours": round(calm.seconds / HOUR, 2),
            "busy": round(gpu_hours(tasks.values()) * HOUR / calm.seconds / gpus, 3),
            "hours_on_spot": round(statistics.median(hours), 2),
            "hours_on_spot_from_to": [round(hours[0], 2), round(hours[-1], 2)],
            "nodes_taken_back": statistics.median(run.taken_back for run in struck),
            "stages_interrupted": statistics.median(run.interrupted for run in struck),
            "gpu_hours_repeated": round(statistics.median(r.repeated for r in struck) / HOUR, 2),
            "gpu_hours_restarting": round(
                statistics.median(r.restarting for r in struck) / HOUR, 2
            ),
        }
    return found


def spot_of(arguments: argparse.Namespace, seed: int) -> Spot:
    return Spot(
        per_hour=arguments.per_hour,
        away_seconds=arguments.away,
        restart_seconds=arguments.restart,
        seed=seed,
    )


def elastic(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The same with `workers: [2, 4, 8]` for what is a whole node's."""
    return {
        name: replace(task, fewer=[4.0, 2.0]) if task.devices == NODE else task
        for name, task in tasks.items()
    }


def datasets() -> dict[str, Dataset]:
    """Of the published sizes, of clips that are nowhere."""
    made = {n: dataset(n, humans, {"train": size}) for n, (humans, size) in SOURCES.items()}
    for name, (train, report) in DOWNSTREAM.items():
        selection = train // 5
        splits = {"train": train - selection, "selection": selection, "report": report}
        made[name] = dataset(name, "real", splits)
    return made


def dataset(name: str, humans: Any, splits: Mapping[str, int]) -> Dataset:
    clips = [(f"{split}/{i}", split) for split, size in splits.items() for i in range(size)]
    return Dataset(
        name=name,
        root=Path("nowhere"),
        humans=humans,
        classes=("a", "b"),
        clips=tuple(Clip(path=p, label=i % 2, group=p, split=s) for i, (p, s) in enumerate(clips)),
        frame_rate=None,
        content_hash=name,
    )


def print_table(trials: int, figures: Mapping[str, Any]) -> None:
    title = (
        f"{trials} trials: {figures['stages']:,} stages, {figures['gpu_hours']:,.0f} GPU-hours; "
        f"alone {figures['stages_alone']:,} stages, {figures['gpu_hours_alone']:,.0f} GPU-hours"
    )
    table = Table(title=title, title_justify="left")
    columns = ("GPUs", "way", "hours", "busy", "on spot", "from", "to", "taken back", "interrupted")
    for column in (*columns, "GPU-h again"):
        table.add_column(column, justify="right")
    for gpus, ways in figures["gpus"].items():
        for way, found in ways.items():
            again = found["gpu_hours_repeated"] + found["gpu_hours_restarting"]
            table.add_row(
                gpus,
                way,
                f"{found['hours']:.1f}",
                f"{found['busy']:.0%}",
                f"{found['hours_on_spot']:.1f}",
                *(f"{each:.1f}" for each in found["hours_on_spot_from_to"]),
                f"{found['nodes_taken_back']:.0f}",
                f"{found['stages_interrupted']:.0f}",
                f"{again:.1f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
