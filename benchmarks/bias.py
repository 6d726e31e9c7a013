"""The scene bias of a sweep's datasets, measured in this process: no Ray, no trials.

    python benchmarks/bias.py                                        the demo's world
    python benchmarks/bias.py --set datasets.demo_world.seed=1       another one
    python benchmarks/bias.py my.yaml --set bias.clips=2000

The figures lie in the sweep's storage, and the sweep finds them there. The last line is JSON:
dataset -> view -> bits with their interval, and the seconds of this process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sweeps.prepare import prepare  # noqa: E402
from sweeps.sweep import Sweep, parse_assignments  # noqa: E402
from trainables.bias import IN_WORDS  # noqa: E402
from trainables.stages.run import run_stage  # noqa: E402

KEYS = ("bias", "interval_low", "interval_high", "most_bits", "clips", "groups", "window")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", nargs="?", type=Path, default=ROOT / "sweeps" / "demo.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    try:
        sweep = Sweep(arguments.sweep, parse_assignments(arguments.set))
        if sweep.settings.bias is None:
            parser.error(f"{arguments.sweep} has bias: null; give it the settings of the demo")
        prepared = prepare(sweep, Console(stderr=True), dry_run=False)
    except ValueError as error:
        parser.error(str(error))
    found: dict[str, dict[str, object]] = {}
    for each in prepared.bias:
        figures = found.setdefault(each.dataset, {})
        if each.stage is None:
            figures[each.view] = {"reason": each.reason}
            continue
        began, tasks = time.process_time(), sweep.settings.execution.tasks
        run_stage(each.stage, prepared.store, prepared.data, tasks, lambda: False)
        seconds = time.process_time() - began
        record = prepared.store.record(each.stage.identity)
        assert record is not None
        metrics = record.metrics
        figures[each.view] = {
            **{key: round(metrics[key], 3) for key in KEYS if key in metrics},
            "cpu_seconds": round(seconds, 1),  # 0 where the figure was there
        }
        low, high = metrics["interval_low"], metrics["interval_high"]
        print(
            f"{each.dataset}, {IN_WORDS[each.view]}: {metrics['bias']:.2f} bits "
            f"({low:.2f} to {high:.2f}) of {metrics['most_bits']:.2f}, {metrics['clips']} clips, "
            f"{seconds:.1f} CPU s",
            flush=True,
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
