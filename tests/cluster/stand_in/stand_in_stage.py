"""A stage that trains nothing, but fails, dies, stops, resumes and publishes as a real one does.

`log` in the store's folder gets a line "identity kind step pid" for each step taken.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def run_stage(stage, store, datasets, execution, should_stop, probes, beat) -> None:  # type: ignore[no-untyped-def]
    if store.record(stage.identity) is not None:
        return
    for needed in stage.inputs.values():
        assert store.record(needed.identity) is not None
    wanted = {"steps": 1, "pause": 0.0, **stage.settings.get(stage.kind, {}), **stage.settings}
    if "epochs" in wanted:
        wanted |= {"steps": wanted["epochs"], "pause": 0.2}
    seeds = [part.settings["seed"] for part in stage.chain() if "seed" in part.settings]
    seed = seeds[0] if seeds else 0

    if message := wanted.get("mistake"):
        raise ValueError(message)
    if stage.kind == "init" and seed == 13:
        raise ValueError("13 is unlucky")
    if "mistake_of_rank" in wanted and wanted["mistake_of_rank"] == int(os.environ["RANK"]):
        raise ValueError("only one of us fails")
    checkpoint = store.checkpoint(stage.identity)
    try:
        start = int(checkpoint.read("step"))
    except FileNotFoundError:
        start = 0
    group = _ranks(execution.workers)  # after all have read where to start
    for step in range(start + 1, wanted["steps"] + 1):
        time.sleep(wanted["pause"])
        with (store.root.path / "log").open("a") as log:
            log.write(f"{stage.identity} {stage.kind} {step} {os.getpid()}\n")
        if wanted.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.write("step", str(step).encode())
        heldout = {f"heldout/{source}": seed / 100 for source in stage.data}
        store.add_progress(stage.identity, {"epoch": step, **heldout})
        if probes is not None and stage.kind == "align":
            trained = 2 * step  # optimizer steps; a step here is an epoch of two
            if trained in probes.steps(2 * wanted["steps"]).values():
                point = {"step": trained, "device_seconds": trained}
                point["accuracies"] = {"low": seed / 100}  # type: ignore[assignment]
                store.add_probe(stage.identity, probes.key(datasets), point)
        if step == wanted.get("hangs_at") and start < step:
            _hang(wanted["hangs_in"])
        if step < wanted["steps"] and (beat() or should_stop()):
            from trainables.stage_run import StageStopped

            raise StageStopped
    role = "state.json" if stage.kind.endswith("_trunk") else "data.json"
    store.publish(
        stage,
        write={role: lambda file: file.write(json.dumps(sorted(datasets)).encode())},
        metrics={"accuracy": seed / 100, "ranks": group},
        cost={"device_seconds": 1.0, "clips": 0},
    )


def _hang(way: str) -> None:
    """Come to nothing: in a way that no signal but SIGKILL ends."""
    if way == "a loop":  # which lets no other thread of this process have a turn
        sys.setswitchinterval(1e9)
        while True:
            pass
    os.kill(os.getpid(), signal.SIGSTOP)


def _ranks(workers: int) -> int:
    """How many processes the group has; None was needed where one trains alone."""
    if workers == 1:
        return 1
    import torch
    import torch.distributed as dist

    ranks = torch.ones(1)
    dist.all_reduce(ranks)
    return int(ranks.item())
