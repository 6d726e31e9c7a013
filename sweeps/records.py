"""A sweep in its folder: `sweep.json` and `trials/NNNN.json`. These files are the truth.

A record is written before its trial starts and after each change, in one stroke: a crash leaves the
old file or the new one, never half of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, field
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from pydantic.dataclasses import dataclass

from cluster.study import RungPoint
from trainables.storage.folder import Folder

Origin: TypeAlias = Literal["baseline", "point", "earlier", "suggested", "proxy", "law", "soup"]
GIVEN: tuple[Origin, ...] = ("baseline", "point")  # before it; all are reported on
CHOSEN: tuple[Origin, ...] = ("suggested", "proxy", "law")  # while the search goes on
State: TypeAlias = Literal["waiting", "running", "complete", "failed", "pruned"]
READERS = 16  # records read at once

Finite = Annotated[float, Field(allow_inf_nan=False)]

Rung = Annotated[
    RungPoint, BeforeValidator(lambda read: RungPoint(**read) if isinstance(read, dict) else read)
]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class TrialRecord:
    """All that is known of a trial. Change it with `dataclasses.replace`, then write it."""

    number: Annotated[int, Field(ge=0)]
    name: str | None  # "baseline: synthetic only"; suggested trials have none
    origin: Origin
    values: dict[str, JsonValue]  # dotted path -> value
    params: dict[str, bool | int | float | str | None]  # the sampler's; empty outside its space
    state: State
    score: Finite | None = None
    scores: dict[str, Finite] = field(default_factory=dict)  # per downstream dataset
    rungs: list[Rung] = field(default_factory=list)  # of its alignment, as far as it came
    stages: dict[str, str] = field(default_factory=dict)  # role -> identity
    device_seconds: Finite | None = None  # of these stages, as if no other trial shared them
    reason: str | None = None  # why it failed or was pruned
    mlflow_run_id: str | None = None
    started_at: str | None = None  # ISO 8601, UTC
    finished_at: str | None = None
    attempts: int = 0

    def __post_init__(self) -> None:
        if self.state == "complete" and self.score is None:
            raise ValueError(f"trial {self.number} is complete without a score; it has failed")
        if self.state == "failed" and not self.reason:
            raise ValueError(f"trial {self.number} has failed without a reason; state it")

    @property
    def finished(self) -> bool:
        return self.state in ("complete", "failed", "pruned")


def write_record(folder: Folder, record: TrialRecord) -> None:
    """Write `folder/trials/NNNN.json`. Raises OSError if the folder cannot be written."""
    write_json(folder / "trials", f"{record.number:04d}.json", asdict(record))


def read_records(folder: Folder) -> list[TrialRecord]:
    """Every trial of the sweep in `folder`, by number.

    Raises:
        ValueError: a record is damaged or missing; the message names it.
        OSError: the storage does not answer, which says nothing of the record.
    """
    trials = folder / "trials"
    names = [file.name for file in trials.listed()]
    numbers = [int(name[:-5]) for name in names if re.fullmatch(r"\d{4,}\.json", name)]
    with ThreadPoolExecutor(READERS) as threads:  # each is one question to a remote storage
        known = range(max(numbers, default=-1) + 1)
        return list(threads.map(partial(_read_record, trials), known))


def _read_record(trials: Folder, number: int) -> TrialRecord:
    name = f"{number:04d}.json"
    try:
        record = TrialRecord(**json.loads(trials.read(name)))
        if record.number != number:
            raise ValueError(f"holds trial {record.number}")
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise ValueError(
            f"{trials}/{name}: is no record of trial {number} ({_short(error)}); restore it, or "
            "delete it and all later records: those trials are then chosen again and reuse "
            "finished stages"
        ) from None
    except OSError as error:
        said = f"the storage does not answer ({_short(error)})"
        raise OSError(error.errno, said, f"{trials}/{name}") from None
    return record


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
        )
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def write_sweep(folder: Folder, settings: Mapping[str, Any]) -> None:
    """Write `folder/sweep.json`, the resolved settings of the sweep."""
    write_json(folder, "sweep.json", settings)


def read_sweep(folder: Folder) -> dict[str, Any] | None:
    """The stored settings; None where the sweep is new. Raises ValueError if damaged."""
    try:
        return read_json(folder, "sweep.json")
    except ValueError as error:
        raise ValueError(
            f"{folder}/sweep.json: is no JSON ({error}); restore it, or rename the sweep"
        ) from None


def check_same_sweep(
    stored: Mapping[str, Any], new: Mapping[str, Any], may_change: Sequence[str]
) -> None:
    """Check that `new` settings continue the `stored` sweep.

    Args:
        may_change: dotted keys that are free, with all that lies below them.

    Raises:
        ValueError: names each differing key with both values.
    """
    before, after = flattened(json.loads(_dumps(stored))), flattened(json.loads(_dumps(new)))
    differing = [
        key
        for key in dict.fromkeys([*before, *after])
        # What a sweep of an earlier version did not know is off where it is null now.
        if before.get(key) != after.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in may_change)
    ]
    if differing:
        lines = [
            f"  {key}: {_shown(before, key)} when it began, {_shown(after, key)} now"
            for key in differing
        ]
        raise ValueError(
            "this sweep has begun with other settings:\n"
            + "\n".join(lines)
            + "\ngive the changed sweep another name, or set these back to continue it"
        )


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "absent"


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def read_json(folder: Folder, name: str) -> dict[str, Any] | None:
    """What `write_json` wrote; None if there is no such file.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        data = json.loads(folder.read(name))
    except FileNotFoundError:
        return None
    assert isinstance(data, dict)
    return data


def write_json(folder: Folder, name: str, data: Any) -> None:
    """Replace a file by `data` as JSON, in one stroke."""
    folder.write(name, _dumps(data).encode())


def _dumps(data: Any) -> str:
    return json.dumps(data, indent=1, allow_nan=False)
