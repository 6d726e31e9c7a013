"""Probes of a model while it aligns, for a search that stops weak trials: when, and on what.

They change nothing of what comes out of a stage, and so are no part of its identity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.data.catalog import Dataset
from trainables.stage import Stage, canonical_hash
from trainables.training_descriptions import lower_precision

CODE_VERSION = 1  # raise it when the same settings measure something else


@dataclass(frozen=True, kw_only=True)
class IntermediateProbes:
    """At each rung, a logistic regression on frozen features of a few clips of each dataset.

    It is fitted on clips of the training split and scored on clips of the selection split, as the
    score of a trial is; the report split is not read.
    """

    rungs: tuple[float, ...]  # parts of the alignment that are done, above 0 and below 1
    downstream: tuple[str, ...]
    train_clips: int  # of each dataset, at most; the same ones always
    selection_clips: int
    l2_grid: tuple[float, ...]  # the best on the selection clips counts, as for the score
    max_unreadable: float
    precision: str  # of the pass that makes the features

    def key(self, data: Mapping[str, Dataset]) -> str:
        """Of what is measured: accuracies under the same key may be compared."""
        return canonical_hash(
            {
                "code_version": CODE_VERSION,
                "clips": [self.train_clips, self.selection_clips],
                "l2_grid": self.l2_grid,
                **lower_precision(self.precision),
                "data": {name: data[name].content_hash for name in self.downstream},
            }
        )

    def clips(self, data: Mapping[str, Dataset]) -> int:
        """Clips that go through the model for them, forwards only, in one alignment at the most."""
        return len(self.rungs) * sum(
            min(count, len(data[name].split(split)))
            for name in self.downstream
            for split, count in (("train", self.train_clips), ("selection", self.selection_clips))
        )

    def steps(self, steps: int) -> dict[float, int]:
        """Rung -> optimizer step of an alignment of `steps`; rungs that are its end are left out.

        The first step by which that part of the clips is trained. Equal parts and not equal epochs,
        for what is compared is where trials will end: under a schedule that decays to the end of
        the run, the shorter of two runs is ahead at equal epochs for its smaller learning rate
        alone, and a longer one's lead by its length is there at the end too.
        """
        at = {rung: math.ceil(round(rung * steps, 6)) for rung in self.rungs}
        return {rung: step for rung, step in at.items() if step < steps}


def steps_of(stage: Stage) -> int:
    """Optimizer steps of a whole alignment."""
    align: dict[str, Any] = stage.settings["align"]
    return int(align["epochs"] * (align["clips_per_epoch"] // align["optimizer"]["batch_size"]))
