"""The trunks that some trial wants, by the run that they are parts of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from trainables.stage import TRUNKS, Stage


class TrunkLines:
    """A longer trunk goes on from a shorter one of its run, so that no step is trained twice."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, dict[str, Stage]] = defaultdict(dict)

    def add(self, stage: Stage) -> None:
        """Remember a trunk; nothing for what is none."""
        if stage.kind in TRUNKS:
            self._lines[stage.line][stage.identity] = stage

    def before(self, stage: Stage, wanted_by: Mapping[str, set[int]]) -> Stage | None:
        """The longest trunk that the stage, if it is one, can go on from, and that is wanted.

        `wanted_by`: identity -> trials.
        """
        if stage.kind not in TRUNKS:
            return None
        step = stage.settings["step"]
        line = self._lines[stage.line].values()
        shorter = [
            each for each in line if each.settings["step"] < step and wanted_by[each.identity]
        ]
        return max(shorter, key=lambda each: int(each.settings["step"]), default=None)
