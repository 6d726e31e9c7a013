"""What happened, told to MLflow: one run a sweep, a trial, a stage.

Files are the truth and MLflow is their picture: every method may be called again with the same
values and then writes nothing, so a sweep that continues tells all it knows and makes no twins.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cluster.run_contents import (
    STATUS,
    Contents,
    as_parameters,
    of_stage,
    of_trial,
    of_unfinished_stage,
)
from cluster.scrubbed import scrubbed

REACH_SECONDS = 10.0  # how long the start of a sweep waits for MLflow, how long its end,
LAST_SECONDS = 300.0
AWAY_SECONDS = 30.0  # and how long that where MLflow does not answer
ENVIRONMENT = {  # MLflow's own settings where the user leaves them open, set before its import
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # its retries take minutes and may make a run twice
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints addresses with their passwords
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a sweep reports to nobody but its own server
}

log = logging.getLogger(__name__)


class Tracker:
    """The runs of one sweep: a parent, its trials, and the stages that they share.

    Training never waits for MLflow: all that is told goes to a thread of its own, which sends it
    when it can. Times are in seconds since the epoch, and come from the sweep's files.
    """

    def __init__(
        self, uri: str, sweep: str, sweep_id: str | None, artifact_root: str | None
    ) -> None:
        """Contacts nobody yet.

        `uri` is `sqlite:////absolute/path.db` or an MLflow server's address; the sweep's experiment
        has its name, and others of that name too: `sweep_id` tells its runs from theirs; None for
        one of before there were ids. `artifact_root` is where an experiment made here keeps
        artifacts, None leaves that to MLflow. Credentials come from MLflow's own environment
        variables.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from cluster.sender import Sender

        self.sweep = sweep
        self._reach_seconds = None if uri.startswith("sqlite:") else REACH_SECONDS
        self._sender = Sender(uri, sweep, sweep_id, artifact_root)
        self._gave_up = False
        self._shared: dict[str, str] = {}  # the sweep's parameters
        self._varied: set[str] = set()

    @property
    def unsent(self) -> int:
        """How many updates MLflow lacks, at most one a run, and those that it refused."""
        return self._sender.waiting() + self._sender.refused

    @property
    def away(self) -> bool:
        """Whether MLflow has not answered of late."""
        return self._sender.error is not None

    @property
    def page(self) -> str | None:
        """The sweep's leaderboard, to be put behind the address of MLflow's pages, once known."""
        runs = self._sender.runs
        return None if runs is None else runs.page()

    # The sweep

    def start(
        self,
        parameters: Mapping[str, Any],
        description: str,
        tags: Mapping[str, str],
        *,
        datasets: Sequence[str],
        varied: Sequence[str],
        must_answer: bool,
    ) -> None:
        """Open the parent run, or continue it. Comes before all that follows.

        `description` is Markdown. The leaderboard's columns are the score, the accuracy on each of
        `datasets`, and the `varied` parameters (dotted keys, as trials give them). A sweep that
        begins `must_answer` to its user if the address is wrong; one that continues goes on.

        Raises:
            ValueError: MLflow refuses; or `must_answer` and it does not answer. The message holds
                no credentials.
        """
        self._shared, self._varied = as_parameters(parameters), set(varied)
        self._sender.put(
            Contents(
                kind="sweep",
                key=self.sweep,
                status="RUNNING",
                name=f"sweep {self.sweep}",
                parameters=parameters,
                tags={**tags, "state": "running"},
                note=description,
            )
        )
        self._sender.start(datasets, varied)
        tried = self._sender.tried.wait(self._reach_seconds)
        error = self._sender.error
        if not tried and not self._sender.answered.is_set():
            error = TimeoutError(f"no answer within {REACH_SECONDS:.0f} s")
            if not must_answer:
                log.warning("MLflow at %s: %s; it is sent later", self._sender.shown, error)
        if error is not None:
            self._check(error, must_answer)

    def finish(
        self, description: str, metrics: Mapping[str, Any], artifacts: Sequence[Path]
    ) -> None:
        """Close the parent run; a file whose content is there already is not sent again."""
        self._sender.put(
            Contents(
                kind="sweep",
                key=self.sweep,
                status="FINISHED",
                tags={"state": "complete"},
                metrics=metrics,
                note=description,
                artifacts={path: _content_hash(path) for path in artifacts},
            )
        )

    def wait(self) -> None:
        """Until MLflow has all, at most LAST_SECONDS; AWAY_SECONDS, once, where it is away."""
        if not (self._gave_up and self.away):
            self._sender.wait(LAST_SECONDS, AWAY_SECONDS)
        self._gave_up = self.away

    # Trials

    def trial_started(
        self,
        number: int,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        at: float,
    ) -> None:
        """Open a trial's run, or continue it.

        Its parameters there are those that are searched and those that differ from the sweep's own
        trial, whose are all in the parent: in a table of a thousand trials the others say nothing.
        """
        own = as_parameters(parameters)
        self._sender.put(
            Contents(
                kind="trial",
                key=str(number),
                status="RUNNING",
                name=f"trial {number:04d} · {name}",
                parameters={
                    key: value
                    for key, value in own.items()
                    if key in self._varied or self._shared.get(f"trial.{key}") != value
                },
                tags={**tags, "state": "running"},
                at=at,
            )
        )

    def trial_progress(
        self, number: int, points: Sequence[Mapping[str, float]], started_at: float
    ) -> None:
        """Intermediate values; each point holds at least `epoch`."""
        self._sender.put(
            Contents(kind="trial", key=str(number), status="RUNNING", points=points, at=started_at)
        )

    def trial_finished(
        self,
        number: int,
        state: Literal["complete", "failed", "pruned"],
        metrics: Mapping[str, Any],
        stages: Mapping[str, str],
        reason: str | None,
        at: float,
    ) -> None:
        """`metrics` may be nested; `stages` maps roles to identities."""
        self._sender.put(of_trial(number, state, metrics, stages, reason, at))

    def trial_run(self, number: int) -> str | None:
        """The trial's run id, once MLflow has given it one."""
        run = self._sender.runs and self._sender.runs.get("trial", str(number))
        return run.run_id if run else None

    def knows_trial(self, number: int, state: str) -> bool:
        """Whether nothing is to be told of a trial that has ended in `state`, nor of its stages,
        except those that `open_stages` names."""
        return self._sender.status("trial", str(number)) == STATUS[state]

    # Stages

    def stage_progress(
        self, identity: str, kind: str, points: Sequence[Mapping[str, float]]
    ) -> None:
        """Points of a stage's curves, all so far or the new ones; no points: it has started."""
        self._sender.put(
            Contents(
                kind="stage",
                key=identity,
                status="RUNNING",
                tags={"state": "running", "stage_kind": kind},
                points=points,
            )
        )

    def stage_finished(self, record: Mapping[str, Any], datasets: Sequence[str]) -> None:
        """`record`: a stage_store.Record as a dict; `datasets`: those it or its inputs name."""
        self._sender.put(of_stage(record, datasets))

    def stage_ended(
        self, identity: str, kind: str, state: Literal["failed", "stopped"], reason: str
    ) -> None:
        """Without a result: it failed, or no trial wanted it any more."""
        self._sender.put(of_unfinished_stage(identity, kind, state, reason))

    def knows_stage(self, identity: str, unfinished: bool = False) -> bool:
        """Whether nothing is to be told of a finished stage, or of one that ended `unfinished`.

        False also for one that an earlier process told: telling it again is harmless.
        """
        status = self._sender.status("stage", identity)
        return status == "FINISHED" or (unfinished and status in ("FAILED", "KILLED"))

    def open_stages(self) -> set[str]:
        """Stages that run as far as MLflow knows; those of an earlier process may have died."""
        runs = self._sender.runs
        return set() if runs is None else {key for _, key in runs.unfinished("stage")}

    def _check(self, error: Exception, must_answer: bool) -> None:
        from cluster.mlflow_runs import may_pass

        if isinstance(error, ValueError):
            raise error
        if must_answer or not may_pass(error):
            raise ValueError(
                f"tracking: MLflow at {self._sender.shown} cannot be used: {scrubbed(error)}; "
                "check the address, that its server runs, and MLFLOW_TRACKING_TOKEN (or _USERNAME "
                "and _PASSWORD) where it asks for them; without an address a local database is used"
            ) from None


def _content_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
