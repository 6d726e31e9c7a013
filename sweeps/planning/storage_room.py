"""Whether `execution.storage.budget_gb` has room for one more trial while a sweep runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median_low

from sweeps.records import TrialRecord
from sweeps.storage_use import StorageUse, size, storage_use
from trainables.stage import Stage
from trainables.stage_store import StageStore

SHARE_OF_TIME = 0.05  # that looking at the storage takes at most: of thousands of stages, seconds


class StorageRoom:
    """Of one sweep, as `refresh` last saw its trials and the storage. For one thread.

    What a stage will take is the median of those like it that are finished on the storage, and
    nothing as long as there are none.
    """

    def __init__(
        self,
        store: StageStore,
        budget_gb: float | None,
        stages_of: Callable[[TrialRecord], Mapping[str, Stage]],
    ) -> None:
        """`stages_of`: what a trial's score is made of, by identity."""
        self._store, self._budget_gb, self._stages_of = store, budget_gb, stages_of
        self._use: StorageUse | None = None
        self._look_after = 0.0
        self._settled: set[int] = set()  # trials that had ended by then: what they added is seen
        self._own: list[list[Stage]] = []  # of each trial: the stages that none before it needed
        self._needed: set[str] = set()
        self._coming, self._each = 0, 0

    def refresh(self, records: Sequence[TrialRecord], *, look: bool = False) -> None:
        """See the trials; and the storage, if it is time again or `look` says so.

        Does nothing where there is no budget.
        """
        if self._budget_gb is None:
            return
        began = time.monotonic()
        if look or self._use is None or began >= self._look_after:
            self._use = storage_use(self._store, self._budget_gb)
            looked = time.monotonic()
            self._look_after = looked + (looked - began) / SHARE_OF_TIME
            self._settled = {record.number for record in records if record.finished}
        for record in records[len(self._own) :]:
            stages = self._stages_of(record)
            self._own.append([stages[new] for new in stages.keys() - self._needed])
            self._needed |= stages.keys()
        coming: dict[str, Stage] = {}
        for record in records:
            if record.number not in self._settled:
                coming |= self._stages_of(record)
        missing = [coming[identity] for identity in coming.keys() - self._use.finished]
        self._coming, _ = self._use.size_of(missing)
        sizes = [self._use.size_of(stages)[0] for stages in self._own]
        # Of two the smaller: the first trial makes what all share.
        self._each = median_low(sizes) if sizes else 0

    @property
    def used_up(self) -> bool:
        """Whether one more trial would go past the budget."""
        if self._use is None or self._use.budget is None:
            return False
        return self._use.total + self._coming + self._each > self._use.budget

    def summary(self, records: Sequence[TrialRecord], to_begin: int) -> dict[str, int] | None:
        """As things are now, in bytes: the budget, what the stages take, what is coming of trials
        that have begun, what one more adds; and how many of those `to_begin` are left out for want
        of more. None where there is no budget."""
        self.refresh(records, look=True)
        if self._use is None or self._use.budget is None:
            return None
        return {
            "budget": self._use.budget,
            "taken": self._use.total,
            "coming": self._coming,
            "next_trial": self._each,
            "left_out": max(0, to_begin) if self.used_up else 0,
        }


def left_out(storage: Mapping[str, int] | None) -> str | None:
    """Of `Search.storage`: which trials the sweep ended without; None where it has all."""
    if storage is None or not storage["left_out"]:
        return None
    number = storage["left_out"]
    return (
        f"The storage budget ended the search: the stages take {size(storage['taken'])} of "
        f"{size(storage['budget'])}, those that are begun add about {size(storage['coming'])} and "
        f"one more trial about {size(storage['next_trial'])}. "
        f"{number} trial{'s were' if number > 1 else ' was'} not begun; raise "
        "execution.storage.budget_gb, or delete what may go (see --status), and run the same "
        "command again."
    )
