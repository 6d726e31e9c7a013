"""Artifacts of stages: `stages/<identity>/`, whole or not there at all.

An artifact is the files that its record names. The record is written last and is never replaced:
whoever writes it first wins, so a stage trained twice by accident is harmless.
"""

from __future__ import annotations

import io
import json
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from trainables.stage import TRUNKS, Stage
from trainables.storage.folder import Folder
from trainables.storage.lease import Lease

LEASE_SECONDS = 30.0  # a lease not renewed for so long belongs to a process that died
READERS = 16  # records read at once from a storage that lets each of them wait,
FIRST_READ, QUICK_SECONDS = 8, 0.001  # as so many show; in turns where one takes less than that

TRUNK = re.compile(r"(\d+)-([0-9a-f]+)")  # a file of a line: its step and identity

Write = Callable[[IO[bytes]], object]  # writes a file's content to it


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a finished stage."""

    identity: str
    stage: dict[str, Any]  # Stage.described()
    metrics: dict[str, Any]
    cost: dict[str, float]  # device_seconds, clips
    files: dict[str, str]  # role ("weights") -> file name in the stage's folder
    mixture: dict[str, Any] = field(default_factory=dict)  # realised counts, repetition, ...
    trained_on: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # name -> hash, humans, leak
    attempts: int = 1
    finished_at: float = 0.0  # seconds since the epoch

    @property
    def given_up(self) -> bool:
        """Whether it is a trunk whose state is no longer kept: its cost is known, all else gone."""
        return self.stage["kind"] in TRUNKS and "state" not in self.files


class StageStore:
    """The folder of all stages of one storage, shared by every sweep on it.

    It may be sent to other processes. All methods raise OSError where the storage refuses for
    longer than its patience.
    """

    def __init__(self, root: Folder | Path) -> None:
        self.root = root if isinstance(root, Folder) else Folder(str(root.absolute()))
        # How often it may be asked what is new: a remote storage takes its time, and money.
        self.poll_seconds = 0.2 if self.root.path else 2.0
        self._read: dict[str, Record] = {}  # records that never change

    def __reduce__(self) -> tuple[type[StageStore], tuple[Folder]]:
        return StageStore, (self.root,)

    def impatient(self) -> StageStore:
        """The same store, which raises at once where the storage refuses."""
        return StageStore(self.root.impatient())

    def folder(self, identity: str) -> Folder:
        return self.root / identity

    def record(self, identity: str) -> Record | None:
        """The record of a finished stage, or None.

        Raises:
            ValueError: the record exists and cannot be read.
        """
        if identity in self._read:
            return self._read[identity]
        folder = self.folder(identity)
        try:
            record = Record(**json.loads(folder.read("record.json")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{folder}/record.json: is no stage record ({error}); delete this folder to train "
                "it again"
            ) from None
        if record.stage["kind"] not in TRUNKS:  # which may be given up
            self._read[identity] = record
        return record

    def records(self) -> list[Record]:
        """Those of all finished stages, by identity. Raises as `record`."""
        names = self.root.folders()
        unread = [name for name in names if name not in self._read]
        began = time.monotonic()
        read = self._records_of(unread[:FIRST_READ])
        # Where nothing waits, threads would only take the interpreter from each other.
        quick = time.monotonic() - began < FIRST_READ * QUICK_SECONDS
        readers = 1 if quick else READERS
        parts = [unread[FIRST_READ + first :: readers] for first in range(readers)]
        with ThreadPoolExecutor(readers) as threads:
            read += [record for part in threads.map(self._records_of, parts) for record in part]
        found = {record.identity: record for record in read} | self._read
        return [found[name] for name in names if name in found]

    def _records_of(self, names: Iterable[str]) -> list[Record]:
        records = map(self.record, names)
        return [record for record in records if record is not None]

    def finished(self, identity: str) -> Record | None:
        """The record of a stage whose artifact is there, or None. Raises as `record` does."""
        record = self.record(identity)
        return None if record is None or record.given_up else record

    def file(self, identity: str, role: str) -> Path:
        """A file of a finished stage's artifact, on this node's disk."""
        record = self.record(identity)
        assert record is not None, f"stage {identity} is not finished"
        return self.folder(identity).local(record.files[role])

    def publish(
        self,
        stage: Stage,
        *,
        write: Mapping[str, Write],
        metrics: dict[str, Any],
        cost: dict[str, float],
        kept: Mapping[str, str] | None = None,
        mixture: dict[str, Any] | None = None,
        trained_on: dict[str, dict[str, str]] | None = None,
    ) -> Record:
        """Write the artifact's files, then its record; return the record that stands.

        `write` maps a role ("weights.safetensors") to a function that writes that file, `kept` a
        role ("epoch_3") to a file among the snapshots, which becomes part of the artifact.
        """
        folder = self.folder(stage.identity)
        token = secrets.token_hex(4)
        again = self.record(stage.identity)  # of a trunk that was given up and is needed after all
        if again is not None and again.given_up:
            cost = {name: value + again.cost[name] for name, value in cost.items()}
            folder.delete(["record.json"])
        snapshots = {role: f"snapshots/{name}" for role, name in (kept or {}).items()}
        written: dict[str, str] = {}
        for name, write_file in write.items():
            role, _, suffix = name.partition(".")
            written[role] = f"{role}-{token}.{suffix}"
            content = io.BytesIO()
            write_file(content)
            folder.write(written[role], content.getbuffer())
        record = Record(
            identity=stage.identity,
            stage=stage.described(),
            metrics=metrics,
            cost=cost,
            files={**snapshots, **written},
            mixture=mixture or {},
            trained_on=trained_on or {},
            attempts=self.attempts(stage.identity),
            finished_at=time.time(),
        )
        if stage.kind in TRUNKS:  # before it is finished: whoever dies in between hides no trunk
            self._line(stage.line).write(f"{stage.settings['step']}-{stage.identity}", b"")
        text = json.dumps(asdict(record), indent=1, allow_nan=False)
        if not folder.create("record.json", text.encode()):
            folder.delete(written.values())  # another was first; it may share the snapshots
        self.clean(stage.identity)
        standing = self.record(stage.identity)
        assert standing is not None
        return standing

    def clean(self, identity: str) -> None:
        """Delete what a stage kept while it ran and its artifact is without. It is finished."""
        record = self.record(identity)
        assert record is not None, f"stage {identity} is not finished"
        self.checkpoint(identity).remove()
        kept = {f"snapshots/{file.name}" for file in self.snapshots(identity).listed()}
        self.folder(identity).delete(kept - {*record.files.values()})

    def trunks(self, line: str) -> dict[int, str]:
        """The finished trunks of a run: step -> identity. See `Stage.line`."""
        named = [TRUNK.fullmatch(file.name) for file in self._line(line).listed()]
        found = [name.groups() for name in named if name]  # not those that are being written
        return {int(step): identity for step, identity in found if self.finished(identity)}

    def give_up(self, identity: str) -> int:
        """Delete a trunk's artifact and keep what it cost; if needed again it is trained again.

        Returns the bytes that are free now.
        """
        record, folder = self.finished(identity), self.folder(identity)
        if record is None:
            return 0
        text = json.dumps(asdict(replace(record, files={})), indent=1)
        folder.write("record.json", text.encode())
        files = {*record.files.values()}
        freed = sum(file.size for file in folder.listed() if file.name in files)
        folder.delete(files)
        return freed

    def _line(self, line: str) -> Folder:
        return self.root / "trunks" / line

    def checkpoint(self, identity: str) -> Folder:
        """The folder a running stage keeps its last checkpoint in."""
        return self.folder(identity) / "checkpoint"

    def snapshots(self, identity: str) -> Folder:
        """The folder a running stage keeps weights of earlier epochs in."""
        return self.folder(identity) / "snapshots"

    # Progress: one JSON line a point, the whole file written anew with each, for an object store
    # cannot append. Who trains the stage is the one who writes it.

    def add_progress(self, identity: str, *added: dict[str, float]) -> None:
        """Add points to the stage's curves; each holds at least `epoch`."""
        text = self._progress_text(identity)
        last = json.loads(text.rstrip("\n").rpartition("\n")[2])["epoch"] if text else -math.inf
        if any(point["epoch"] <= last for point in added):
            # A resumed stage comes to an epoch again: the last counts.
            added, text = (*_points(text), *added), ""
        points = {each["epoch"]: each for each in added}
        lines = [json.dumps(points[epoch]) + "\n" for epoch in sorted(points)]
        self.folder(identity).write("progress.jsonl", (text + "".join(lines)).encode())

    def progress(self, identity: str) -> list[dict[str, float]]:
        """All points so far, by epoch."""
        return _points(self._progress_text(identity))

    def _progress_text(self, identity: str) -> str:
        try:
            return self.folder(identity).read("progress.jsonl").decode()
        except FileNotFoundError:
            return ""

    # Probes of a model while it aligns: a file for each way of measuring, see IntermediateProbes.

    def add_probe(self, identity: str, key: str, point: dict[str, Any]) -> None:
        """Keep a probe, `step` in it; a resumed stage may measure at a step again."""
        kept = [each for each in self.probes(identity, key) if each["step"] != point["step"]]
        text = json.dumps([*kept, point])
        self.folder(identity).write(f"probes-{key}.json", text.encode())

    def probes(self, identity: str, key: str) -> list[dict[str, Any]]:
        """The probes so far."""
        try:
            text = self.folder(identity).read(f"probes-{key}.json")
        except FileNotFoundError:
            return []
        points: list[dict[str, Any]] = json.loads(text)
        return points

    # Attempts and leases: these save work, nothing correct rests on them.

    def attempts(self, identity: str) -> int:
        try:
            return len(self.folder(identity).read("attempts"))
        except FileNotFoundError:
            return 0

    def begin_attempt(self, identity: str) -> None:
        self.folder(identity).write("attempts", b"|" * (self.attempts(identity) + 1))

    def lease(self, identity: str) -> Lease:
        """Whose turn it is to train the stage, among the sweeps on this storage."""
        return Lease(self.folder(identity) / "lease", LEASE_SECONDS)


def _points(lines: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in lines.splitlines()]
