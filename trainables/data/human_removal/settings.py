"""What decides how people are removed. It changes pixels, so it belongs to the data's identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

# Raise it when the same settings give other pixels than before.
CODE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RemovalSettings:
    masks_from: str  # "detector", "mask_rcnn sha256:..." or "files"
    all_that_moves: bool  # the detector's masks: what moves before a still camera is a person
    detector: str  # of the leak check: "hog" or "mask_rcnn sha256:..."
    dilation: int  # times that a 3x3 cross is applied; HAT's is 4
    soft_edge: int  # pixels at a hole's rim over which it is faded in
    max_leak: float  # share of a clip's frames with a person found in the result
    redo: int  # how often a clip past it is done again, with twice the dilation and what was found
    crf: int  # x264's constant rate factor of videos; 0 is lossless
    hat_resampling: bool  # every frame passes through 432x240, as HAT's do

    def __str__(self) -> str:
        more = ", all that moves" if self.all_that_moves else ""
        more += ", through 432x240" if self.hat_resampling else ""
        return (
            f"humans removed ({self.masks_from}, dilation {self.dilation}, soft edge "
            f"{self.soft_edge}, at most {self.max_leak:g} leak by {self.detector}, redone "
            f"{self.redo} times, crf {self.crf}{more}, code {CODE_VERSION})"
        )

    def fingerprint(self) -> str:
        content = {**asdict(self), "code_version": CODE_VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
