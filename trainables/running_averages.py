"""What is kept of the trunk's weights while it trains, for averages over time."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import KeepSettings
from trainables.posthoc_ema import LENGTHS, beta, gamma_of
from trainables.stage_store import Write
from trainables.stages.weights import writer
from trainables.storage.folder import Folder


class RunningAverages:
    """Averages of the trunk's parameters, by step, and files of them, by epoch.

    Averages are float32, on the parameters' device: `ema` starts from the first weights, the
    power-function averages from those after step 1. A step that fp16's loss scale skips counts as
    one that changed nothing. Buffers (BatchNorm's statistics) are not averaged: `ema` and
    `epoch_<e>` hold them as they are then, `power_ema_<i>_<e>` holds parameters only.

    What is kept of an epoch goes to a file in `folder` at once. Its name has never been used
    before, and it counts once it is in the checkpoint: a run that is cut short, or that trains the
    same stage beside this one, touches none of this one's files.
    """

    def __init__(
        self, trunk: nn.Module, keep: KeepSettings, *, epochs: int, folder: Folder
    ) -> None:
        self._trunk, self._folder = trunk, folder
        self._first_epoch = epochs - keep.last + 1  # whose weights are kept
        self._names = [name for name, _ in trunk.named_parameters()]
        self._kept: dict[str, Callable[[int], float]] = {}  # average -> its share of itself
        if keep.ema_decay is not None:
            decay = keep.ema_decay
            self._kept["ema"] = lambda step: decay
        if keep.posthoc_ema:
            for index, length in enumerate(LENGTHS):
                self._kept[f"power_ema_{index}"] = partial(beta, gamma=gamma_of(length))
        self._averages = {
            average: [parameter.detach().float().clone() for parameter in trunk.parameters()]
            for average in self._kept
        }
        self._attempt = secrets.token_hex(4)
        self._files: dict[str, str] = {}  # role -> name in the folder

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take in the weights after optimizer step `step`, which counts from 1."""
        weights = [parameter.float() for parameter in self._trunk.parameters()]
        for name, average in self._averages.items():
            torch._foreach_lerp_(average, weights, 1 - self._kept[name](step))

    def after_epoch(self, epoch: int) -> None:
        """Write what is kept of `epoch`, which counts from 1, before a checkpoint of its end."""
        if epoch >= self._first_epoch:
            self._write(f"epoch_{epoch}", self._trunk.state_dict())
        for name in self._averages:
            if name != "ema":
                self._write(f"{name}_{epoch}", self._named(name))

    def kept(self) -> dict[str, str]:
        """What is there already of the artifact, as `StageStore.publish` takes it."""
        return dict(self._files)

    def write(self) -> dict[str, Write]:
        """What is still to be written of the artifact, as `StageStore.publish` does it."""
        if "ema" not in self._averages:
            return {}
        return {"ema.safetensors": writer({**self._trunk.state_dict(), **self._named("ema")})}

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self._averages, "files": self._files}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, saved in state["averages"].items():
            for own, value in zip(self._averages[name], saved, strict=True):
                own.copy_(value)
        self._files = dict(state["files"])

    def take_over(self, folder: Folder, files: Mapping[str, str]) -> None:
        """Go on with what a trunk kept, role -> file, after `load_state_dict` of its state.

        Of the files in its `folder`, those that this run would have kept itself become its own too.
        """
        self._files = {}
        for role, file in files.items():
            kind, _, epoch = role.rpartition("_")
            if (kind == "epoch" and int(epoch) < self._first_epoch) or kind not in self._kinds():
                continue
            name = f"{role}-{self._attempt}.safetensors"
            self._folder.copy(name, folder, file)
            self._files[role] = name

    def _kinds(self) -> set[str]:
        """What there are files of, by epoch."""
        return {"epoch", *(name for name in self._averages if name != "ema")}

    def _named(self, average: str) -> dict[str, Tensor]:
        return dict(zip(self._names, self._averages[average], strict=True))

    def _write(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        content = io.BytesIO()
        writer(tensors)(content)
        name = f"{role}-{self._attempt}.safetensors"
        self._folder.write(name, content.getbuffer())  # before the checkpoint that names it
        self._files[role] = name
