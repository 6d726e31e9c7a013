"""Searches how to mix synthetic and human-free video, for how long to train, how to average.

Without a sweep file it runs the demo, on clips that it renders itself. The same command again
continues: finished trials are kept, interrupted ones go on, nothing is trained twice.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script: this folder is on the path, the project is not
    sys.path.insert(0, str(ROOT))

from sweeps.run import run_sweep  # noqa: E402
from sweeps.sweep import Sweep, parse_assignments  # noqa: E402
from sweeps.watching.status import read_status  # noqa: E402
from sweeps.watching.status_tables import print_status  # noqa: E402
from sweeps.watching.terminal import make_console  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402

EXAMPLES = """examples:
  python sweeps/mixing.py                                   the demo
  python sweeps/mixing.py sweeps/my.yaml --dry-run          the plan and its price
  python sweeps/mixing.py sweeps/my.yaml --status           what runs, what waits, the cost so far
  python sweeps/mixing.py sweeps/my.yaml --trials 40        more trials of the same sweep
  python sweeps/mixing.py sweeps/my.yaml --set trial.seed=1 --set name=my-seed-1
  ray job submit --working-dir . -- python sweeps/mixing.py sweeps/my.yaml
"""


def main(argv: list[str] | None = None) -> int:
    """Run from the command line.

    Returns 0; 1 if no trial could be completed; 2 for what the user can mend; 130 when interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python sweeps/mixing.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sweep",
        nargs="?",
        type=Path,
        default=ROOT / "sweeps" / "demo.yaml",
        metavar="SWEEP.yaml",
        help="the sweep file (default: the demo)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run", action="store_true", help="print the plan and its price, touch nothing"
    )
    instead.add_argument(
        "--status",
        action="store_true",
        help="print what runs where, what waits, cost so far, estimated end and leaderboard, from "
        "the files of the sweep: while it runs or later, here or on another machine; touches "
        "nothing",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="trials in all, baselines and points included, which come first; more extends",
    )
    parser.add_argument(
        "--devices",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="numbers of GPUs (of workers, where the sweep uses none) that the plan tells the time "
        "for, beside 1, 8 and 64",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the sweep file by its dotted path; may be given several times",
    )
    arguments = parser.parse_args(argv)
    console = make_console()
    try:
        overrides = parse_assignments(arguments.set)
        if arguments.trials is not None:
            overrides["search.trials"] = arguments.trials
        sweep = Sweep(arguments.sweep, overrides)
        if arguments.status:
            storage = sweep.storage.impatient()
            store = StageStore(storage / "stages")
            print_status(read_status(storage / sweep.settings.name, store), console)
            return 0
        if any(count < 1 for count in arguments.devices):
            raise ValueError(f"--devices {arguments.devices}: give numbers above 0")
        summary = run_sweep(sweep, console, dry_run=arguments.dry_run, devices=arguments.devices)
        return 1 if summary and summary["recommended"] is None else 0
    except ValueError as error:
        if os.environ.get("SWEEPS_TRACEBACK"):
            raise
        console.print("error:", style="red bold", end=" ")
        console.print(str(error), markup=False, soft_wrap=True)
        return 2
    except OSError as error:
        if os.environ.get("SWEEPS_TRACEBACK"):
            raise
        console.print("error:", style="red bold", end=" ")
        said = f"{error}. What is finished is kept; the same command continues."
        console.print(said, markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped. What is finished is kept; the same command continues.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
