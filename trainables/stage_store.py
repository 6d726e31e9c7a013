"""Artifacts of stages on disk: `stages/<identity>/`, whole or not there at all.

An artifact is the files that its record names. The record is written last and is never replaced:
whoever writes it first wins, so a stage trained twice by accident is harmless.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trainables.stage import TRUNKS, Stage

LEASE_SECONDS = 30.0  # a lease not renewed for so long belongs to a process that died


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a finished stage."""

    identity: str
    stage: dict[str, Any]  # Stage.described()
    metrics: dict[str, Any]
    cost: dict[str, float]  # device_seconds, clips
    files: dict[str, str]  # role ("weights") -> file name in the stage's folder
    mixture: dict[str, Any] = field(default_factory=dict)  # realised counts, repetition, ...
    trained_on: dict[str, dict[str, str]] = field(default_factory=dict)  # name -> hash, humans
    attempts: int = 1
    finished_at: float = 0.0  # seconds since the epoch

    @property
    def given_up(self) -> bool:
        """Whether it is a trunk whose state is no longer kept: its cost is known, all else gone."""
        return self.stage["kind"] in TRUNKS and "state" not in self.files


class StageStore:
    """The folder of all stages of one storage, shared by every sweep on it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, identity: str) -> Path:
        return self.root / identity

    def record(self, identity: str) -> Record | None:
        """The record of a finished stage, or None.

        Raises:
            ValueError: the record exists and cannot be read.
        """
        path = self.folder(identity) / "record.json"
        try:
            return Record(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(
                f"{path}: is no stage record ({error}); delete this folder to train it again"
            ) from None

    def finished(self, identity: str) -> Record | None:
        """The record of a stage whose artifact is there, or None. Raises as `record` does."""
        record = self.record(identity)
        return None if record is None or record.given_up else record

    def file(self, identity: str, role: str) -> Path:
        """The path of one file of a finished stage's artifact."""
        record = self.record(identity)
        assert record is not None, f"stage {identity} is not finished"
        return self.folder(identity) / record.files[role]

    def publish(
        self,
        stage: Stage,
        *,
        write: Mapping[str, Callable[[Path], None]],
        metrics: dict[str, Any],
        cost: dict[str, float],
        mixture: dict[str, Any] | None = None,
        trained_on: dict[str, dict[str, str]] | None = None,
    ) -> Record:
        """Write the artifact's files, then its record; return the record that stands.

        `write` maps a role ("weights.safetensors") to a function that writes that file.
        """
        folder = self.folder(stage.identity)
        folder.mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(4)
        again = self.record(stage.identity)  # of a trunk that was given up and is needed after all
        if again is not None and again.given_up:
            cost = {name: value + again.cost[name] for name, value in cost.items()}
            (folder / "record.json").unlink(missing_ok=True)
        files = {}
        for name, write_file in write.items():
            role, _, suffix = name.partition(".")
            files[role] = f"{role}-{token}.{suffix}"
            write_file(folder / files[role])
            _flush(folder / files[role])
        record = Record(
            identity=stage.identity,
            stage=stage.described(),
            metrics=metrics,
            cost=cost,
            files=files,
            mixture=mixture or {},
            trained_on=trained_on or {},
            attempts=self.attempts(stage.identity),
            finished_at=time.time(),
        )
        written = folder / f"record-{token}.tmp"
        written.write_text(json.dumps(asdict(record), indent=1, allow_nan=False))
        _flush(written)
        try:
            os.link(written, folder / "record.json")  # fails if another was first
        except FileExistsError:
            for name in files.values():
                (folder / name).unlink()
        finally:
            written.unlink()
        if stage.kind in TRUNKS:
            self._line(stage.line).mkdir(parents=True, exist_ok=True)
            (self._line(stage.line) / f"{stage.settings['step']}-{stage.identity}").touch()
        for unfinished in (self.checkpoint(stage.identity), self.snapshots(stage.identity)):
            shutil.rmtree(unfinished, ignore_errors=True)
        standing = self.record(stage.identity)
        assert standing is not None
        return standing

    def trunks(self, line: str) -> dict[int, str]:
        """The finished trunks of a run: step -> identity. See `Stage.line`."""
        found = [path.name.split("-") for path in self._line(line).glob("*-*")]
        return {int(step): identity for step, identity in found if self.finished(identity)}

    def give_up(self, identity: str) -> int:
        """Delete a trunk's artifact and keep what it cost; if needed again it is trained again.

        Returns the bytes that are free now.
        """
        record, folder = self.finished(identity), self.folder(identity)
        if record is None:
            return 0
        written = folder / f"record-{secrets.token_hex(4)}.tmp"
        written.write_text(json.dumps(asdict(replace(record, files={})), indent=1))
        os.replace(written, folder / "record.json")
        files = [folder / name for name in record.files.values()]
        freed = sum(file.stat().st_size for file in files)
        for file in files:
            file.unlink()
        return freed

    def _line(self, line: str) -> Path:
        return self.root / "trunks" / line

    def checkpoint(self, identity: str) -> Path:
        """The folder a running stage keeps its last checkpoint in."""
        return self.folder(identity) / "checkpoint"

    def snapshots(self, identity: str) -> Path:
        """The folder a running stage keeps weights of earlier epochs in."""
        return self.folder(identity) / "snapshots"

    # Progress: one JSON line a point, so that it can be read while it is written.

    def add_progress(self, identity: str, point: dict[str, float]) -> None:
        """Append a point of the stage's curves; it holds at least `epoch`."""
        folder = self.folder(identity)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "progress.jsonl").open("a") as file:
            file.write(json.dumps(point) + "\n")

    def progress(self, identity: str) -> list[dict[str, float]]:
        """All points so far, by epoch. A resumed stage writes an epoch again: the last counts."""
        try:
            text = (self.folder(identity) / "progress.jsonl").read_text()
        except FileNotFoundError:
            return []
        points = {}
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):  # the last line may be half written
                try:
                    point = json.loads(line)
                except json.JSONDecodeError:  # a line cut by a kill, then appended to
                    continue
                points[point["epoch"]] = point
        return [points[epoch] for epoch in sorted(points)]

    # Probes of a model while it aligns: a file for each way of measuring, see IntermediateProbes.

    def add_probe(self, identity: str, key: str, point: dict[str, Any]) -> None:
        """Keep a probe, `step` in it; a resumed stage may measure at a step again."""
        kept = [each for each in self.probes(identity, key) if each["step"] != point["step"]]
        folder = self.folder(identity)
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / f"probes-{secrets.token_hex(4)}.tmp"
        written.write_text(json.dumps([*kept, point]))
        written.replace(folder / f"probes-{key}.json")

    def probes(self, identity: str, key: str) -> list[dict[str, Any]]:
        """The probes so far."""
        try:
            text = (self.folder(identity) / f"probes-{key}.json").read_text()
        except FileNotFoundError:
            return []
        points: list[dict[str, Any]] = json.loads(text)
        return points

    # Attempts and leases: these save work, nothing correct rests on them.

    def attempts(self, identity: str) -> int:
        try:
            return len((self.folder(identity) / "attempts").read_text())
        except FileNotFoundError:
            return 0

    def begin_attempt(self, identity: str) -> None:
        self.folder(identity).mkdir(parents=True, exist_ok=True)
        with (self.folder(identity) / "attempts").open("a") as file:
            file.write("|")

    def renew_lease(self, identity: str, owner: str) -> None:
        self.folder(identity).mkdir(parents=True, exist_ok=True)
        (self.folder(identity) / "lease").write_text(owner)

    def release_lease(self, identity: str) -> None:
        (self.folder(identity) / "lease").unlink(missing_ok=True)

    def leased_by_other(self, identity: str, owner: str) -> bool:
        """Whether another sweep has been training this stage within LEASE_SECONDS."""
        lease = self.folder(identity) / "lease"
        try:
            age = time.time() - lease.stat().st_mtime
            return age < LEASE_SECONDS and lease.read_text() != owner
        except FileNotFoundError:
            return False


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
