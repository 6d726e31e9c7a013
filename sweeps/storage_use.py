"""What the stages take of the storage, what a plan adds to it, and what may be deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from statistics import median
from typing import Any

from sweeps.planning.costs import rate_key
from sweeps.planning.plan import Plan
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.storage.folder import GIGABYTE

NOTES = ("record.json", "progress.jsonl", "attempts")


@dataclass(frozen=True, kw_only=True)
class StorageUse:
    """In bytes, of all stages on the storage, whichever sweep made them."""

    weights: int  # and what else finished stages are
    features: int  # of finished stages
    checkpoints: int  # of stages that are not finished
    snapshots: int  # weights that those keep of earlier epochs
    leftovers: int  # what no record names: of processes that were killed, or are at it now
    budget: int | None
    free: int | None  # on its disk; None: an object store
    finished: Set[str]  # identities of the stages whose artifact is there
    sizes: Mapping[tuple[str, str], float]  # `_like` -> median of these

    @property
    def total(self) -> int:
        kinds = (self.weights, self.features, self.checkpoints, self.snapshots, self.leftovers)
        return sum(kinds)

    def size_of(self, stages: Iterable[Stage]) -> tuple[int, int]:
        """Bytes of such stages as far as such are known, and how many are not."""
        sizes = [self.sizes.get(_like(each.kind, each.settings)) for each in stages]
        known = [size for size in sizes if size is not None]
        return round(sum(known)), len(sizes) - len(known)

    def added_by(self, plan: Plan) -> tuple[int, int]:
        """Of its missing stages: see `size_of`."""
        return self.size_of(each.stage for each in plan.missing)


def storage_use(store: StageStore, budget_gb: float | None) -> StorageUse:
    records = {record.identity: record for record in store.records()}
    taken = dict.fromkeys(("weights", "features", "checkpoints", "snapshots", "leftovers"), 0)
    by_stage = dict.fromkeys(records, 0)
    for file in store.root.listed():
        identity, _, name = file.name.partition("/")
        record = records.get(identity)
        if record is not None and name in (*NOTES, *record.files.values()):
            kind = "features" if record.stage["kind"] == "features" else "weights"
            by_stage[identity] += file.size
        elif record is None and name.startswith(("checkpoint/", "snapshots/")):
            kind = "checkpoints" if name.startswith("checkpoint/") else "snapshots"
        else:
            kind = "leftovers"
        taken[kind] += file.size
    finished = {identity for identity, record in records.items() if not record.given_up}
    seen: dict[tuple[str, str], list[int]] = {}
    for identity in finished:
        stage = records[identity].stage
        seen.setdefault(_like(stage["kind"], stage["settings"]), []).append(by_stage[identity])
    return StorageUse(
        **taken,
        budget=None if budget_gb is None else int(budget_gb * GIGABYTE),
        free=_free(store),
        finished=finished,
        sizes={key: median(sizes) for key, sizes in seen.items()},
    )


def _like(kind: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    """Stages that take about the same place; a trunk, with its optimizer's state, takes more than
    what takes as long."""
    return kind, rate_key(kind, settings)


def _free(store: StageStore) -> int | None:
    path = store.root.path
    if path is None:
        return None
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def check_fits(use: StorageUse, plan: Plan, *, begun: bool) -> None:
    """Raises ValueError where what is known of the plan's stages does not fit.

    `begun`: the sweep is continued, and keeps to the budget by itself: see `StorageRoom`.
    """
    added, _ = use.added_by(plan)
    remedy = "delete what may go, see --status, or use another --set storage=FOLDER"
    if use.budget is not None and not begun and use.total + added > use.budget:
        raise ValueError(
            f"execution.storage.budget_gb: the stages take {size(use.total)} and the plan adds "
            f"about {size(added)}, more than the budget of {size(use.budget)}; raise it, {remedy}"
        )
    if use.free is not None and added > use.free:
        raise ValueError(
            f"storage: the plan adds about {size(added)}, and its disk has {size(use.free)} free; "
            f"{remedy}"
        )


def use_lines(use: StorageUse) -> list[str]:
    """For a person: what is in use, and what may be deleted."""
    names = ("weights", "features", "checkpoints", "snapshots", "leftovers")
    parts = ", ".join(f"{name} {size(getattr(use, name))}" for name in names)
    of = "" if use.budget is None else f" of a budget of {size(use.budget)}"
    free = "" if use.free is None else f"; its disk has {size(use.free)} free"
    lines = [f"Storage: the stages take {size(use.total)}{of} ({parts}){free}."]
    if use.features or use.leftovers:
        lines.append(
            f"What may be deleted while no sweep runs here: leftovers ({size(use.leftovers)}), and "
            f"features ({size(use.features)}), which are computed again when a trial needs them."
        )
    return lines


def added_lines(use: StorageUse, plan: Plan) -> list[str]:
    """What the plan adds to that, where something is to do."""
    if not plan.missing:
        return []
    added, unknown = use.added_by(plan)
    if not added:
        return ["How much the known trials add is not known: no such stage is here yet."]
    more = f", and {unknown} stages of sizes not seen here yet" if unknown else ""
    return [f"The known trials add about {size(added)}{more}."]


def size(number: float) -> str:
    """'1.2 GB'"""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"
