"""What a stage is: settings, data and inputs that decide its result, hashed into an identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# Raise a kind's version when its code changes the result; artifacts of the old code are then
# no longer found, rather than mistaken for those of the new.
CODE_VERSIONS = {
    "init": 1,
    "mae": 1,
    "align": 1,
    "average": 1,
    "features": 1,
    "probe": 1,
    "finetune": 1,
    "evaluate": 1,
}
TRAINED = frozenset({"mae", "align", "finetune"})  # these run as Ray Train runs, the rest as tasks


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a trial. Holds nothing about where or how fast it runs."""

    kind: str
    settings: dict[str, Any]  # JSON values
    data: dict[str, str] = field(default_factory=dict)  # dataset name -> content hash
    inputs: dict[str, Stage] = field(default_factory=dict)  # role -> the stage that gives it

    @cached_property
    def identity(self) -> str:
        """16 hex digits of SHA-256 over kind, code version, settings, data, inputs' identities."""
        return canonical_hash(self.described())

    def described(self) -> dict[str, Any]:
        """What the identity is a hash of, as JSON values."""
        return {
            "kind": self.kind,
            "code_version": CODE_VERSIONS[self.kind],
            "settings": self.settings,
            "data": self.data,
            "inputs": {role: stage.identity for role, stage in self.inputs.items()},
        }

    def chain(self) -> Iterator[Stage]:
        """This stage and all it stands on, inputs first; one that two need comes twice."""
        for stage in self.inputs.values():
            yield from stage.chain()
        yield self


def canonical_hash(value: Any) -> str:
    """16 hex digits of SHA-256 over `value` as JSON with sorted keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
