"""People by torchvision's Mask R-CNN, from a weights file that the user has. Nothing is fetched."""

from __future__ import annotations

import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.data.human_removal.person_detector import Box, Detect, Seen
from trainables.models.timm_models import import_torchvision

NAMES = ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")
PERSON = 1  # of COCO's classes
SURE = 0.5  # scores below are no person


@lru_cache(maxsize=1)
def load_mask_rcnn(weights: Path) -> torch.nn.Module:
    """The model whose weights these are, ready to be asked.

    Raises:
        ValueError: the file cannot be read as weights, or is of another model; or torchvision is
            not the one for this torch.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"--weights {weights}: cannot be read as weights: {reason}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(each) for each in state.values()):
        raise ValueError(f"--weights {weights}: holds no state dict (names and tensors)")
    import_torchvision()
    from torchvision.models import detection

    apart: dict[str, str] = {}
    for name in NAMES:
        with torch.device("meta"):  # names and shapes are enough to tell
            wanted = getattr(detection, name)(weights=None, weights_backbone=None).state_dict()
        apart[name] = _difference(state, wanted)
        if not apart[name]:
            model: torch.nn.Module = getattr(detection, name)(weights=None, weights_backbone=None)
            model.load_state_dict(state)
            _check_operators()
            return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    told = "; ".join(f"beside {name} {what}" for name, what in apart.items())
    raise ValueError(
        f"--weights {weights}: is of another model: {told}. Give the file of torchvision's "
        f"{' or '.join(NAMES)}, trained on COCO"
    )


def _check_operators() -> None:
    from torchvision.ops import nms, roi_align

    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    try:
        nms(box, torch.ones(1), 0.5)
        roi_align(torch.zeros(1, 1, 2, 2), [box], 1)
    except (NotImplementedError, RuntimeError, AttributeError):
        raise ValueError(
            "--weights: torchvision's compiled operators, which Mask R-CNN needs, do not load "
            f"beside torch {torch.__version__}; install the torchvision that belongs to it"
        ) from None


def _difference(state: dict[str, Any], wanted: dict[str, Any]) -> str:
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    shapes = [n for n in wanted if n in state and wanted[n].shape != state[n].shape]
    kinds = (("missing", missing), ("not known", extra), ("of another shape", shapes))
    return ", ".join(f"{len(names)} are {kind} ({names[0]})" for kind, names in kinds if names)


def mask_rcnn_detector(model: torch.nn.Module) -> Detect:
    device = next(model.parameters()).device

    @torch.inference_mode()
    def detect(frame: np.ndarray) -> Seen:
        image = torch.from_numpy(frame.copy()).to(device).permute(2, 0, 1).float() / 255
        (found,) = model([image])
        person = (found["labels"] == PERSON) & (found["scores"] >= SURE)
        corners, scores, masks = (found[key][person] for key in ("boxes", "scores", "masks"))
        sizes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2], scores[:, None]], 1)
        mask = np.zeros(frame.shape[:2], np.uint8)
        if len(masks):
            mask = (255 * masks[:, 0].amax(0)).round().to(torch.uint8).cpu().numpy()
        return Seen([Box(*each) for each in sizes.tolist()], mask)

    return detect
