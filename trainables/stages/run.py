"""Run one stage: in a plain process, under torchrun, or under Ray Train, all the same."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist

from trainables.config import Execution
from trainables.data.catalog import Dataset
from trainables.gpu_meter import GpuMeter
from trainables.intermediate_probes import IntermediateProbes
from trainables.process_group import join_process_group, rank, world_size
from trainables.stage import TRAINED, Stage
from trainables.stage_run import Outcome, StageRun
from trainables.stage_store import StageStore
from trainables.stages.align import run_align
from trainables.stages.average import run_average
from trainables.stages.bias import run_bias
from trainables.stages.contrastive import run_contrastive
from trainables.stages.evaluate import run_evaluate
from trainables.stages.features import run_features
from trainables.stages.finetune import run_finetune
from trainables.stages.greedy_soup import run_greedy_soup
from trainables.stages.imported import run_import
from trainables.stages.init import run_init
from trainables.stages.learned_average import run_learned_average
from trainables.stages.mae import run_mae
from trainables.stages.probe import run_probe

KINDS: dict[str, Callable[[StageRun], Outcome]] = {
    "init": run_init,
    "import": run_import,
    "mae": run_mae,
    "mae_trunk": run_mae,
    "contrastive": run_contrastive,
    "contrastive_trunk": run_contrastive,
    "align": run_align,
    "align_trunk": run_align,
    "average": run_average,
    "learned_average": run_learned_average,
    "greedy_soup": run_greedy_soup,
    "features": run_features,
    "probe": run_probe,
    "augmented_probe": run_finetune,
    "finetune": run_finetune,
    "evaluate": run_evaluate,
    "bias": run_bias,
}


def run_stage(
    stage: Stage,
    store: StageStore,
    datasets: Mapping[str, Dataset],
    execution: Execution,
    should_stop: Callable[[], bool],
    probes: IntermediateProbes | None = None,
    beat: Callable[[], bool] = lambda: False,
) -> None:
    """Bring `stage` into `store`, from its last checkpoint if it has one; its inputs are there.

    `probes` are made on the way where it aligns, for those who watch.

    Returns at once if the stage is finished. Every process of a distributed run calls this
    alike; kinds that are not trained run on the first alone. `beat` is called after each step or
    batch of clips, by every process, and must be cheap.

    Raises:
        StageStopped: at a checkpoint, when `should_stop()` said so; and after any step, with a
            checkpoint of it, when `beat()` did.
        NonFiniteLoss: nothing was published; the last checkpoint stands.
        ValueError: the user's mistake, in words.
    """
    if store.finished(stage.identity) is not None:
        return
    for role, needed in stage.inputs.items():
        assert store.finished(needed.identity), f"input {role} of {stage.kind} is missing"
    torch.set_num_threads(execution.cpus_per_worker)
    device = _device(execution)
    join_process_group(device)
    run = StageRun(
        stage=stage,
        store=store,
        datasets=datasets,
        execution=execution,
        should_stop=should_stop,
        beat=beat,
        device=device,
        gpu=GpuMeter(device),
        probes=probes,
    )
    if stage.kind in TRAINED or rank() == 0:
        with run.gpu:
            outcome = KINDS[stage.kind](run)
        if rank() == 0:
            _publish(run, outcome)
    if world_size() > 1:
        dist.barrier()  # when one process returns, the artifact is there for all


def _publish(run: StageRun, outcome: Outcome) -> None:
    devices = world_size() if run.stage.kind in TRAINED else 1
    if run.store.finished(run.stage.identity) is not None:
        run.store.clean(run.stage.identity)  # another was first
        return
    device_seconds = outcome.earlier_device_seconds + run.seconds() * devices
    run.store.publish(
        run.stage,
        write=outcome.write,
        kept=outcome.kept,
        metrics=outcome.metrics,
        cost={"device_seconds": device_seconds, "clips": outcome.clips},
        mixture=outcome.mixture,
        trained_on=_trained_on(run),
    )


def _trained_on(run: StageRun) -> dict[str, dict[str, str]]:
    """All that the weights have learnt from: this stage's own datasets and those of its inputs."""
    learnt: dict[str, dict[str, str]] = {}
    if run.stage.kind == "import":
        content_hash = run.stage.data["weights"]
        learnt["imported_weights"] = {"content_hash": content_hash, "humans": "unknown"}
    for needed in run.stage.inputs.values():
        record = run.store.record(needed.identity)
        assert record is not None
        learnt |= record.trained_on
    if run.stage.kind in TRAINED:
        for name, content_hash in run.stage.data.items():
            dataset = run.datasets[name]
            learnt[name] = {"content_hash": content_hash, "humans": dataset.humans}
            if dataset.leak_rate is not None:
                learnt[name]["leak_rate"] = str(dataset.leak_rate)
            if dataset.version is not None:
                learnt[name]["version"] = dataset.version
    return learnt


def _device(execution: Execution) -> torch.device:
    if execution.gpus_per_worker > 0 and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        torch.cuda.set_device(local)  # NCCL sends objects through the current device
        return torch.device("cuda", local)
    if execution.gpus_per_worker > 0:
        warnings.warn("a GPU was given, and torch sees none: this runs on the CPU", stacklevel=2)
    return torch.device("cpu")
