"""What a stage is: settings, data and inputs that decide its result, hashed into an identity."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

# Raise a kind's version when its code changes the result; artifacts of the old code are then
# no longer found, rather than mistaken for those of the new.
CODE_VERSIONS = {
    "init": 1,
    "import": 1,
    "mae": 5,
    "mae_trunk": 5,
    "contrastive": 3,
    "contrastive_trunk": 3,
    "align": 6,
    "align_trunk": 6,
    "average": 1,
    "learned_average": 5,
    "greedy_soup": 4,
    "features": 5,
    "probe": 3,
    "augmented_probe": 5,
    "finetune": 6,
    "evaluate": 5,
    "bias": 1,
}
# Kinds that train -> the entry of the sweep's `execution` that says how they run.
TRAINED = {
    "mae": "mae",
    "mae_trunk": "mae",
    "contrastive": "align",
    "contrastive_trunk": "align",
    "align": "align",
    "align_trunk": "align",
    "learned_average": "finetune",
    "augmented_probe": "finetune",
    "finetune": "finetune",
}
# The part of a run that runs of other lengths share -> the kind of these runs.
TRUNKS = {"mae_trunk": "mae", "contrastive_trunk": "contrastive", "align_trunk": "align"}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a trial. Holds nothing about where or how fast it runs."""

    kind: str
    settings: dict[str, Any]  # JSON values
    data: dict[str, str] = field(default_factory=dict)  # dataset name -> content hash
    inputs: dict[str, Stage] = field(default_factory=dict)  # role -> the stage that gives it
    where: dict[str, str] = field(default_factory=dict)  # paths of files; no part of the identity
    # A trunk's: the one at an earlier step of the same run that is made first and that it goes on
    # from. No part of the identity, for the result is the same without it.
    after: Stage | None = None
    # A trunk's: the optimizer steps of each whole run that is known to go through it. Where they
    # are probed on the way follows from it; no part of the identity.
    lengths: tuple[int, ...] = ()

    @cached_property
    def identity(self) -> str:
        """16 hex digits of SHA-256 over kind, code version, settings, data, inputs' identities."""
        return canonical_hash(self.described())

    def described(self) -> dict[str, Any]:
        """What the identity is a hash of, as JSON values."""
        return {
            "kind": self.kind,
            "code_version": CODE_VERSIONS[self.kind],
            "settings": dict(self.settings),
            "data": self.data,
            "inputs": {role: stage.identity for role, stage in self.inputs.items()},
        }

    @cached_property
    def line(self) -> str:
        """Of a trunk: what the trunks at all steps of one run have in common, hashed."""
        return line_of(self.described())

    def before(self) -> Iterator[Stage]:
        """What is made before it: its inputs and what it follows."""
        yield from self.inputs.values()
        if self.after is not None:
            yield self.after

    def chain(self) -> Iterator[Stage]:
        """This stage and all that comes before it, in order; one that two need comes twice."""
        for stage in self.before():
            yield from stage.chain()
        yield self


def line_of(trunk: Mapping[str, Any]) -> str:
    """`Stage.line` of a trunk, from what its record keeps of it."""
    settings = {name: value for name, value in trunk["settings"].items() if name != "step"}
    return canonical_hash({**trunk, "settings": settings})


def executed_as(kind: str) -> str:
    """The entry of `execution` that says how a stage of this kind runs."""
    return TRAINED.get(kind, "tasks")


def canonical_hash(value: Any) -> str:
    """16 hex digits of SHA-256 over `value` as JSON with sorted keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's weights and configuration, as hex digits.

    Raises:
        ValueError: there is no such file.
    """
    files = [path]
    if path.is_dir():
        kinds = (".safetensors", ".bin", ".json")
        files = sorted(file for file in path.iterdir() if file.suffix in kinds)
    try:
        hashes = [_file_hash(file, os.stat(file).st_mtime_ns) for file in files]
    except OSError as error:
        raise ValueError(f"start.path {path}: {error.strerror}; give a file or folder") from None
    return hashes[0] if files == [path] else canonical_hash(hashes)


@lru_cache
def _file_hash(path: Path, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
