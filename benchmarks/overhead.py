"""What a trial costs beside its training, by cause.

A sweep of no-op trials (see `orchestration.py`) runs through the command's own path and Ray, one
trial at a time, so that one cause follows another and the rows add up to what a trial takes. Each
cause is timed from outside, in whichever process it is. Parts:

- ours: a trial of the later half by cause, wall seconds and the driver's processor seconds; and
  what a sweep pays once.
- tune: as many Tune trials that only report a number.
- stock: Tune, a TorchTrainer in each trial, OptunaSearch, MLflowLoggerCallback.
- training: one real alignment of the demo's model: clips a second, and what a checkpoint takes.

    python benchmarks/overhead.py                                        15 minutes or so
    python benchmarks/overhead.py --trials 8 --repeats 1 --parts ours    a rehearsal

Prints a table; the last line is JSON: medians, the least and the most of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.orchestration import (  # noqa: E402
    Parts,
    datasets,
    in_a_process,
    is_a_part,
    parser_of,
    stock,
    tune_alone,
)
from benchmarks.overhead_causes import IN_ALL, TELLS, ours  # noqa: E402
from benchmarks.spread import spread  # noqa: E402
from benchmarks.timeline import noted, read_spans  # noqa: E402

TRAINING = {"clips_per_source": 256, "heldout_per_source": 8, "downstream_train": 8}
CLIPS, STEPS_TO_CHECKPOINT = 512, 4


def main() -> int:
    parser = parser_of(__doc__, PARTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.set_defaults(trials=40, stock_trials=2, concurrent=1)  # of more, causes overlap
    arguments = parser.parse_args()
    if is_a_part(arguments, PARTS):
        return 0
    rounds = [
        {part: in_a_process(part, arguments, __file__) for part in arguments.parts}
        for _ in range(arguments.repeats)
    ]
    found = together(rounds)
    print("\n".join(table(found)))
    load = round(os.getloadavg()[0], 1)
    settings = {key: value for key, value in vars(arguments).items() if key != "folder"}
    print(json.dumps({"benchmark": "overhead", "load": load, **settings, **found}))
    return 0


def together(rounds: list[Any]) -> Any:
    """The same nested figures, each with its spread over the rounds."""
    if isinstance(rounds[0], Mapping):
        return {key: together([each[key] for each in rounds]) for key in rounds[0]}
    return spread(rounds)


def training(arguments: argparse.Namespace) -> dict[str, Any]:
    """A real alignment in this process, as a worker runs it, a checkpoint every few steps."""
    import torch

    from sweeps.sweep import Sweep
    from trainables import training_state
    from trainables.stage_store import StageStore
    from trainables.stages.run import run_stage
    from trainables.storage.folder import Folder
    from trainables.trial import trial_stages

    noted_in: Path = arguments.folder
    small = {f"datasets.demo_world.{name}": count for name, count in TRAINING.items()}
    changes = {
        **small,
        "storage": str(noted_in / "runs"),
        "trial.align.epochs": 1,
        "trial.align.clips_per_epoch": CLIPS,
        "trial.align.heldout_clips": 0,
        "execution.align.checkpoint_every_steps": STEPS_TO_CHECKPOINT,
    }
    demo, sweep = (Sweep(ROOT / "sweeps" / "demo.yaml", each) for each in ({}, changes))
    data, store = datasets(sweep), StageStore(noted_in / "stages")
    sizes: list[int] = []
    save = training_state.save_checkpoint

    def save_and_look(folder: Folder, state: dict[str, Any]) -> None:
        noted(save, "checkpoint", noted_in)(folder, state)
        sizes.extend(file.size for file in folder.listed())

    training_state.save_checkpoint = save_and_look
    torch.set_num_threads(1)
    aligned = trial_stages(sweep.settings.trial, data).weights
    for stage in aligned.chain():
        run_stage(stage, store, data, sweep.settings.execution.align, lambda: False)
    record = store.record(aligned.identity)
    assert record is not None
    saves = [span.ended - span.began for span in read_spans(noted_in)]
    rate = CLIPS / (record.cost["device_seconds"] - sum(saves))
    align = demo.settings.trial.align
    clips = int(align.epochs) * int(align.clips_per_epoch)
    every = demo.settings.execution.align.checkpoint_every_steps
    in_demo = (clips // align.optimizer.batch_size - 1) // every
    each = sum(saves) / len(saves)
    return {
        "clips_per_second": rate,
        "checkpoint_seconds": each,
        "checkpoint_megabytes": max(sizes) / 1e6,
        "demo_alignment_seconds": clips / rate,
        "demo_checkpoints_seconds": in_demo * each,
    }


def late(part: Callable[[argparse.Namespace], dict[str, Any]]) -> Any:
    """Of a part of `orchestration.py`, what is compared."""

    def figures(arguments: argparse.Namespace) -> dict[str, Any]:
        found = part(arguments)
        last = str(found["trials"])
        return {
            "seconds_a_trial": found["seconds_per_trial_at"][last],
            "driver_cpu_seconds_a_trial": found["cpu_seconds_per_trial_at"][last],
        }

    return figures


def table(found: Mapping[str, Any]) -> list[str]:
    """The same for a person: medians, in brackets the least and the most."""
    lines = []

    def row(cause: str, *values: Mapping[str, float] | None) -> None:
        shown = [f"{_shown(value) if value else '':>32}" for value in values]
        lines.append(f"{cause:46}{''.join(shown)}".rstrip())

    if mine := found.get("ours"):
        wall, cpu = mine["seconds_a_trial"], mine["driver_cpu_seconds_a_trial"]
        lines.append(f"{'seconds a trial':46}{'wall':>32}{'CPU of the driver':>32}")
        causes = [cause for cause in dict.fromkeys([*wall, *cpu]) if cause != IN_ALL]
        for cause in [*causes, IN_ALL]:
            row(cause, wall.get(cause), cpu.get(cause))
        row(TELLS, mine["seconds_a_trial_in_which_mlflow_is_told"])
        row("changes to the storage of stages, a number", mine["storage_changes_a_trial"])
    for part in ("tune", "stock"):
        if other := found.get(part):
            row(part + " alone" * (part == "tune"), *other.values())
    if mine:
        lines.append("\nseconds of the whole sweep, wall")
        for cause, seconds in mine["seconds_of_the_sweep"].items():
            row(cause, seconds)
    if trained := found.get("training"):
        lines.append("\nthe training itself: the demo's alignment, one thread")
        for name, value in trained.items():
            row(name.replace("_", " "), value)
    return lines


def _shown(value: Mapping[str, float]) -> str:
    return f"{value['median']:.3g} ({value['least']:.3g} to {value['most']:.3g})"


PARTS: Parts = {
    "ours": ours,
    "tune": late(tune_alone),
    "stock": late(stock),
    "training": training,
}

if __name__ == "__main__":
    sys.exit(main())
