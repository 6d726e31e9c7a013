"""One sweep's experiment and runs in MLflow, and writing what they lack.

The only file that imports mlflow. Tracking imports it when a sweep starts, for that takes seconds.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cluster.run_contents import (
    Contents,
    as_metrics,
    as_parameters,
    as_tags,
    stage_title,
    stages_view,
    trials_view,
)

REACH_SECONDS = 10.0  # how long a server may take to answer for the first time
ENDED = ("FINISHED", "FAILED", "KILLED")
LEADERBOARD, STAGES = "leaderboard", "stages"  # views of the runs table
UNUSABLE = (MlflowException, SQLAlchemyError, OSError)  # requests' errors are OSErrors


@dataclass(kw_only=True)
class Run:
    """What MLflow holds of one run."""

    run_id: str
    name: str
    status: str
    parameters: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]  # the latest value of each


class MlflowRuns:
    """The runs of one sweep, found by their tags `sweep`, `kind` and `key`, read once."""

    def __init__(self, uri: str, sweep: str, artifact_root: str | None) -> None:
        """Connect, and make the experiment (named `sweep`) where it is missing.

        Raises:
            ValueError: the experiment was deleted.
            UNUSABLE: MLflow does not answer within REACH_SECONDS, or refuses.
        """
        self.sweep = sweep
        self._client = connect(uri)
        self.experiment_id = self._find_experiment(artifact_root)
        self.load()

    def get(self, kind: str, key: str) -> Run | None:
        return self._runs.get((kind, key))

    def load(self) -> None:
        """Read all runs of the sweep again."""
        self._runs: dict[tuple[str, str], Run] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                tags = run.data.tags
                if tags.get("sweep") == self.sweep and "kind" in tags and "key" in tags:
                    held = Run(
                        run_id=run.info.run_id,
                        name=run.info.run_name,
                        status=run.info.status,
                        parameters=run.data.params,
                        tags=tags,
                        metrics=run.data.metrics,
                    )
                    self._runs.setdefault((tags["kind"], tags["key"]), held)
            token = page.token
            if not token:
                return

    def page(self, view: str = LEADERBOARD) -> str:
        """The page of a view of the runs, relative to MLflow's address."""
        return f"#/experiments/{self.experiment_id}/runs?viewStateShareKey={view}"

    @property
    def links(self) -> str:
        return f"[Leaderboard of the trials]({self.page()}) · [Stages]({self.page(STAGES)})"

    def describe_experiment(self, datasets: Sequence[str], varied: Sequence[str]) -> None:
        """Give the experiment two views: its trials, best first, and its stages, newest first."""
        wanted = {
            "mlflow.experimentKind": "custom_model_development",  # opens the runs, not the traces
            "mlflow.note.content": self.links,
            f"mlflow.sharedViewState.{LEADERBOARD}": json.dumps(trials_view(datasets, varied)),
            f"mlflow.sharedViewState.{STAGES}": json.dumps(stages_view()),
        }
        held = self._client.get_experiment(self.experiment_id).tags
        for key, value in as_tags(wanted).items():
            if held.get(key) != value:
                self._client.set_experiment_tag(self.experiment_id, key, value)

    def write(self, contents: Contents) -> None:
        """Write what MLflow lacks of `contents`; nothing where it lacks nothing."""
        run = self.get(contents.kind, contents.key) or self._create(contents)
        at = int(contents.at * 1000)
        # Of a trial or stage that has ended, only the end, missing points and parameters are news;
        # but a stage that failed may be tried again, and a sweep be continued.
        lasting = {"sweep": (), "trial": ENDED, "stage": ("FINISHED",)}[contents.kind]
        late = contents.status == "RUNNING" and run.status in lasting
        status = run.status if late else contents.status
        tags = {} if late else self._tags(contents, run)

        parameters = as_parameters(contents.parameters)
        for key, value in parameters.items():
            if run.parameters.get(key, value) != value:  # MLflow never changes a parameter
                tags[f"now.{key}"] = value
        parameters = {k: v for k, v in parameters.items() if k not in run.parameters}
        tags = {k: v for k, v in tags.items() if run.tags.get(k) != v}

        last = run.metrics.get("epoch", -1.0)
        curves = [
            Metric(key, value, at, int(point["epoch"]))
            for point in contents.points
            if point["epoch"] > last
            # `epoch` comes last: it says that the whole point is there
            for key, value in sorted(as_metrics(point).items(), key=lambda item: item[0] == "epoch")
        ]
        metrics = {**run.metrics, **{metric.key: metric.value for metric in curves}}
        ending = {k: v for k, v in as_metrics(contents.metrics).items() if metrics.get(k) != v}
        step = max(int(metrics.get("epoch", 0)), 0)

        self._client.log_batch(
            run.run_id,
            metrics=[*curves, *(Metric(key, value, at, step) for key, value in ending.items())],
            params=[Param(key, value) for key, value in parameters.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        run.parameters |= parameters
        run.tags |= tags
        run.metrics = metrics | ending

        for path, content_hash in contents.artifacts.items():
            self._upload(run, path, content_hash)
        self._set_status(run, status, contents.name or run.name, at)

    def _find_experiment(self, artifact_root: str | None) -> str:
        experiment = self._client.get_experiment_by_name(self.sweep)
        if experiment is None:
            location = f"{artifact_root}/{self.sweep}" if artifact_root else None
            return str(self._client.create_experiment(self.sweep, artifact_location=location))
        if experiment.lifecycle_stage == "deleted":
            raise ValueError(
                f"tracking: experiment {self.sweep!r} was deleted in MLflow; restore it (mlflow "
                f"experiments restore -x {experiment.experiment_id}) or rename the sweep"
            )
        return str(experiment.experiment_id)

    def _create(self, contents: Contents) -> Run:
        tags = {"sweep": self.sweep, "kind": contents.kind, "key": contents.key}
        if contents.kind != "sweep":
            tags["mlflow.parentRunId"] = self._runs["sweep", self.sweep].run_id
        kind = contents.tags.get("stage_kind", contents.kind)
        created = self._client.create_run(
            self.experiment_id,
            start_time=int(contents.at * 1000),
            tags=tags,
            run_name=contents.name or stage_title(kind, contents.key),
        )
        run = Run(
            run_id=created.info.run_id,
            name=created.info.run_name,
            status="RUNNING",
            parameters={},
            tags=tags,
            metrics={},
        )
        self._runs[contents.kind, contents.key] = run
        return run

    def _tags(self, contents: Contents, run: Run) -> dict[str, str]:
        links = "".join(f"\n- {role}: {self._link(key)}" for role, key in contents.stages.items())
        note = "\n\n".join(part for part in (contents.note, links) if part)
        outdated = {"reason": ""} if "reason" in run.tags else {}  # it failed, and was run again
        noted = {"mlflow.note.content": note} if note else {}
        return as_tags({**outdated, **contents.tags, **noted})

    def _link(self, identity: str) -> str:
        run = self.get("stage", identity)
        if run is None:
            return identity
        return f"[{run.name}](#/experiments/{self.experiment_id}/runs/{run.run_id})"

    def _upload(self, run: Run, path: Path, content_hash: str) -> None:
        tag = f"artifact.{path.name}"
        if run.tags.get(tag) != content_hash:
            self._client.log_artifact(run.run_id, str(path))
            self._client.set_tag(run.run_id, tag, content_hash)
            run.tags[tag] = content_hash

    def _set_status(self, run: Run, status: str, name: str, at: int) -> None:
        if status != run.status and status != "RUNNING":
            self._client.set_terminated(run.run_id, status, end_time=at)
            run.status = status
        if (status, name) != (run.status, run.name):
            self._client.update_run(run.run_id, status=status, name=name)
            run.status, run.name = status, name


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later: a server that is away, a database that is busy."""
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return status >= 500 or status in (408, 429)
    return isinstance(error, UNUSABLE)


def connect(uri: str) -> MlflowClient:
    """A client that has had an answer."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
    clients: list[MlflowClient] = []
    errors: list[Exception] = []

    def contact() -> None:
        try:
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
            clients.append(client)
        except Exception as error:
            errors.append(error)

    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()  # where this fails, MLflow would try for minutes
        contact()
    else:
        # A look-up of a host's name, or a database's driver, has time limits of its own.
        thread = threading.Thread(target=contact, daemon=True)
        thread.start()
        thread.join(REACH_SECONDS)
    if errors:
        raise errors[0]
    if not clients:
        raise TimeoutError(f"no answer within {REACH_SECONDS:.0f} s")
    return clients[0]
