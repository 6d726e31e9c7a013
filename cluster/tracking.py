"""What happened, told to MLflow: one run a sweep, a trial, a stage.

Files are the truth and MLflow is their picture: every method may be called again with the same
values and then writes nothing, so a sweep that continues tells all it knows and makes no twins.
Used by one thread of one process, the entry point's.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from cluster.run_contents import Contents, of_failed_stage, of_stage, of_trial

RETRY_SECONDS = 30.0  # after a failure, updates wait so long before the next try
ENVIRONMENT = {  # MLflow's own settings where the user leaves them open, set before its import
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds, in which the entry process waits
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # its retries take minutes and may make a run twice
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints addresses with their passwords
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a sweep reports to nobody but its own server
}
SECRETS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")

log = logging.getLogger(__name__)


class Tracker:
    """The runs of one sweep: a parent, its trials, and the stages that they share.

    Training never stops for MLflow: once `start` has succeeded, what cannot be sent is kept in
    memory, sent by a later call, and counted by `unsent` until then.
    """

    def __init__(self, uri: str, sweep: str, artifact_root: str | None) -> None:
        """Connect, make the experiment (named `sweep`) where it is missing, read its runs.

        `uri` is `sqlite:////absolute/path.db` or an MLflow server's address; `artifact_root` is
        where an experiment made here keeps artifacts, None leaves that to MLflow. Credentials
        come from MLflow's own environment variables.

        Raises:
            ValueError: MLflow does not answer, or refuses; the message holds no credentials.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from cluster.mlflow_runs import MlflowRuns

        self.sweep = sweep
        self._shown = scrubbed(uri)
        self._waiting: deque[Contents] = deque()
        self._refused = 0
        self._retry_at = 0.0
        self._in_step = True  # whether the last call succeeded, and so the runs read are current
        with self._usable():
            self._runs = MlflowRuns(uri, sweep, artifact_root)

    @property
    def unsent(self) -> int:
        """How many updates MLflow lacks, because it is away or refused them."""
        return len(self._waiting) + self._refused

    @property
    def page(self) -> str:
        """The sweep's leaderboard, to be put behind the address of MLflow's pages."""
        return self._runs.page()

    # The sweep

    def start(
        self,
        parameters: Mapping[str, Any],
        description: str,
        tags: Mapping[str, str],
        *,
        datasets: Sequence[str],
        varied: Sequence[str],
    ) -> None:
        """Open the parent run, or continue it. Comes before all that follows.

        `description` is Markdown. The leaderboard's columns are the score, the accuracy on each of
        `datasets`, and the `varied` parameters (dotted keys, as trials give them).

        Raises:
            ValueError: as the constructor.
        """
        with self._usable():
            self._runs.describe_experiment(datasets, varied)
            self._runs.write(
                Contents(
                    kind="sweep",
                    key=self.sweep,
                    status="RUNNING",
                    name=f"sweep {self.sweep}",
                    parameters=parameters,
                    tags={**tags, "state": "running"},
                    note=f"{self._runs.links}\n\n{description}",
                )
            )

    def finish(
        self, description: str, metrics: Mapping[str, Any], artifacts: Sequence[Path]
    ) -> None:
        """Close the parent run; a file whose content is there already is not sent again."""
        self._send(
            Contents(
                kind="sweep",
                key=self.sweep,
                status="FINISHED",
                tags={"state": "complete"},
                metrics=metrics,
                note=f"{self._runs.links}\n\n{description}",
                artifacts={path: _content_hash(path) for path in artifacts},
            ),
            at_once=True,
        )

    # Trials

    def trial_started(
        self, number: int, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Open a trial's run, or continue it. Returns its run id, "" while MLflow is away."""
        key = str(number)
        self._send(
            Contents(
                kind="trial",
                key=key,
                status="RUNNING",
                name=f"trial {number:04d} · {name}",
                parameters=parameters,
                tags={**tags, "state": "running"},
            )
        )
        run = self._runs.get("trial", key)
        return run.run_id if run else ""

    def trial_progress(self, number: int, points: Sequence[Mapping[str, float]]) -> None:
        """Intermediate values; each point holds at least `epoch`."""
        self._send(Contents(kind="trial", key=str(number), status="RUNNING", points=points))

    def trial_finished(
        self,
        number: int,
        state: Literal["complete", "failed", "pruned"],
        metrics: Mapping[str, Any],
        stages: Mapping[str, str],
        reason: str | None,
    ) -> None:
        """`metrics` may be nested; `stages` maps roles to identities."""
        self._send(of_trial(number, state, metrics, stages, reason))

    # Stages

    def stage_progress(
        self, identity: str, kind: str, points: Sequence[Mapping[str, float]]
    ) -> None:
        """Points of a stage's curves, all so far or the new ones; no points: it has started."""
        self._send(
            Contents(
                kind="stage",
                key=identity,
                status="RUNNING",
                tags={"state": "running", "stage_kind": kind},
                points=points,
            )
        )

    def stage_finished(self, record: Mapping[str, Any]) -> None:
        """`record` is a stage_store.Record as a dict."""
        inputs = [self._runs.get("stage", key) for key in record["stage"]["inputs"].values()]
        named = ", ".join(run.tags.get("datasets", "") for run in inputs if run)
        self._send(of_stage(record, [name for name in named.split(", ") if name]))

    def stage_failed(self, identity: str, kind: str, reason: str) -> None:
        self._send(of_failed_stage(identity, kind, reason))

    # Sending

    def sync(self) -> int:
        """Try now to send all that waits. Returns how many updates still wait."""
        from cluster.mlflow_runs import may_pass

        while self._waiting:
            try:
                if not self._in_step:  # a server may have done what it failed to confirm
                    self._runs.load()
                self._runs.write(self._waiting[0])
                self._in_step = True
            except Exception as error:  # whatever it is, it must not end the training
                tell = log.warning if self._in_step else log.debug
                self._in_step = False
                if may_pass(error):
                    tell("MLflow at %s: %s; it is sent later", self._shown, scrubbed(error))
                    self._retry_at = time.monotonic() + RETRY_SECONDS
                    break
                tell("MLflow at %s took no update: %s", self._shown, scrubbed(error))
                self._refused += 1
            self._waiting.popleft()
        return len(self._waiting)

    def _send(self, contents: Contents, at_once: bool = False) -> None:
        self._waiting.append(contents)
        if at_once or time.monotonic() >= self._retry_at:
            self.sync()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        from cluster.mlflow_runs import UNUSABLE

        try:
            yield
        except UNUSABLE as error:
            raise ValueError(
                f"tracking: MLflow at {self._shown} cannot be used: {scrubbed(error)}; check the "
                "address, that its server runs, and MLFLOW_TRACKING_TOKEN (or _USERNAME and "
                "_PASSWORD) where it asks for them; without an address a local database is used"
            ) from None


def scrubbed(text: object) -> str:
    """`text` in one line, without what stands before the @ of an address, and without tokens."""
    shown = re.sub(r"://\S*@", "://", " ".join(str(text).split()))
    for secret in filter(None, map(os.environ.get, SECRETS)):
        shown = shown.replace(secret.strip(), "***")
    return shown


def _content_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
