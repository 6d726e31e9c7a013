"""--status: how a sweep stands, from its files alone. Needs no Ray, takes no lock, writes nothing.

So it works while the sweep runs, after it has ended or died, and on any machine that sees the
storage. What runs and waits is what the sweep last wrote; see `heartbeat`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sweeps.records import TrialRecord, read_json, read_records, read_sweep
from sweeps.storage_use import StorageUse, storage_use
from sweeps.sweep import ExecutionSettings
from sweeps.watching.heartbeat import BEAT_SECONDS, PLAN, STAGES
from sweeps.watching.stage_status import Cost, StageStatus, SweepStages, ToDo
from sweeps.watching.usage import Usage, counted, read_usage
from trainables.settings import parse
from trainables.stage_store import StageStore
from trainables.storage.folder import Folder

SILENT_SECONDS = 3 * BEAT_SECONDS  # whoever has not been heard for so long is dead

Life: TypeAlias = Literal["runs", "silent", "stopped", "finished", "not begun"]


@dataclass(frozen=True, kw_only=True)
class Status:
    name: str
    question: str
    folder: Folder
    life: Life
    now: float  # seconds since 1970
    heard: float | None  # when the sweep last wrote how it stands
    host: str | None  # where its entry process runs
    began: float | None  # the first trial
    trials: int  # in all
    counts: Mapping[str, int]  # of trials, by state
    records: Sequence[TrialRecord]
    running: Sequence[StageStatus]
    waiting: Sequence[StageStatus]
    later: int  # stages of the known trials that are to come after these
    cost: Cost
    gpu_utilisation: float | None  # 0 to 1, over all epochs for which it is known
    to_do: ToDo
    use: StorageUse
    usage: Usage


def read_status(folder: Folder, store: StageStore, now: float | None = None) -> Status:
    """How the sweep in `folder` stands.

    Raises:
        ValueError: it was never started, or a file of it is damaged.
    """
    now = time.time() if now is None else now
    settings = read_sweep(folder)
    if settings is None:
        raise ValueError(
            f"{folder}: no sweep has been started there; run the command without --status to "
            "start it, or give the storage and name that it runs with (--set storage=FOLDER)"
        )
    plan = read_json(folder, PLAN) or {"trials": None, "known": 0, "stages": {}}
    last = read_json(folder, STAGES) or {}
    records = read_records(folder)
    soups = sum(record.origin == "soup" for record in records)
    asked = plan["trials"] or settings["search"]["trials"] or len(records)
    trials = max(asked + soups, len(records))
    execution = parse(ExecutionSettings, settings["execution"], "execution")
    began = min((seconds_of(r.started_at) for r in records if r.started_at), default=None)
    stages = SweepStages(plan["stages"], records, store, execution, began)
    life = _life(last, sum(record.finished for record in records) == trials, now)
    until = now if life == "runs" else last.get("time", now)
    told = [each for each in last.get("stages", []) if not stages.finished(each["identity"])]
    known = [stages.status(each, until) for each in told]
    # What has a place but no workers yet waits as well, for a node.
    running = [each for each in known if each.hosts or not each.why]
    waiting = [each for each in known if each not in running]
    counts = {
        state: sum(record.state == state for record in records)
        for state in ("complete", "failed", "pruned", "running")
    }
    to_suggest = max(0, trials - max(plan["known"], len(records)))
    return Status(
        name=settings["name"],
        question=settings["question"],
        folder=folder,
        life=life,
        now=now,
        heard=last.get("time"),
        host=last.get("host"),
        began=began,
        trials=trials,
        counts=counts | {"waiting": trials - sum(counts.values())},
        records=records,
        running=running,
        waiting=waiting,
        later=len({*stages.missing()} - {each["identity"] for each in told}),
        cost=stages.cost(),
        gpu_utilisation=stages.gpu_utilisation(),
        use=storage_use(store, execution.storage.budget_gb),
        to_do=stages.to_do(running, to_suggest, now if life == "runs" else None),
        usage=read_usage(folder, counted(execution)),
    )


def seconds_of(moment: str) -> float:
    """ISO 8601 as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def _life(last: Mapping[str, Any], all_finished: bool, now: float) -> Life:
    if last.get("ended", True) and all_finished:
        return "finished"
    if not last:
        return "not begun"
    if last["ended"]:
        return "stopped"
    return "runs" if now - last["time"] < SILENT_SECONDS else "silent"
