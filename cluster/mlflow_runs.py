"""One sweep's experiment and runs in MLflow, and writing what they lack.

The only file that imports mlflow. Tracking imports it when a sweep starts, for that takes seconds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cluster.run_contents import (
    ENDED,
    Contents,
    Run,
    as_metrics,
    as_parameters,
    as_tags,
    missing_points,
    stage_title,
)
from cluster.run_views import stages_view, trials_view

SWEEP_ID = "sweep_id"  # the tag that tells sweeps of one name apart
PAGE = 1000  # runs that are read with one request
LEADERBOARD, STAGES = "leaderboard", "stages"  # views of the runs table
UNUSABLE = (MlflowException, SQLAlchemyError, OSError)  # requests' errors are OSErrors


class MlflowRuns:
    """The runs of one sweep, found by their tags `sweep_id`, `kind` and `key`, read once.

    Another sweep of the same name (begun anew, or by somebody else) has runs of its own there.

    A sweep that continues may have thousands that have ended. Of trials little is kept, stages
    are read only when they are needed.
    """

    def __init__(
        self, client: MlflowClient, sweep: str, sweep_id: str | None, artifact_root: str | None
    ) -> None:
        """Find the experiment (named `sweep`), or make it, and read its runs.

        `sweep_id`: None for a sweep of before there were ids, whose runs have none.

        Raises:
            ValueError: the experiment was deleted.
            UNUSABLE: MLflow does not answer, or refuses.
        """
        self.sweep, self._sweep_id = sweep, sweep_id
        self._client = client
        self.experiment_id = self._find_experiment(artifact_root)
        self._runs: dict[tuple[str, str], Run] = {}
        self._absent: set[tuple[str, str]] = set()  # looked for in vain
        self._read("tags.kind = 'sweep'", whole=True)
        self._continued = bool(self._runs)
        self._read("tags.kind = 'trial'", whole=False)
        self._read("tags.kind = 'stage' and attributes.status != 'FINISHED'", whole=True)
        for kind, key in self.unfinished("stage"):
            self.read_again(kind, key)  # it may be a twin of one that is finished

    def get(self, kind: str, key: str) -> Run | None:
        """What is known here of the run; None also for a stage that an earlier process told."""
        return self._runs.get((kind, key))

    def unfinished(self, kind: str) -> list[tuple[str, str]]:
        """The kinds and keys of those that are known and have not ended."""
        return [
            n for n, run in list(self._runs.items()) if n[0] == kind and run.status == "RUNNING"
        ]

    def read_again(self, kind: str, key: str) -> None:
        """Read one run as it is now: MLflow may have done what it could not confirm."""
        self._runs.pop((kind, key), None)
        self._read(f"tags.kind = '{kind}' and tags.key = '{key}'", whole=True)

    def _find(self, kind: str, key: str) -> Run | None:
        """The run, whole, wherever it is."""
        run = self._runs.get((kind, key))
        unread = kind == "stage" and self._continued and (kind, key) not in self._absent
        if (run is None and unread) or (run is not None and not run.whole):
            self.read_again(kind, key)
            run = self._runs.get((kind, key))
            if run is None:
                self._absent.add((kind, key))
        return run

    def _read(self, wanted: str, *, whole: bool) -> None:
        """Read runs. Of twins, made by a request that was taken for lost, the fullest stays."""
        fullness: dict[tuple[str, str], int] = {}
        twins = []
        for run in self._search(wanted):
            name = run.tags["kind"], run.tags["key"]
            full = len(run.tags) + len(run.parameters) + len(run.metrics)
            if name in fullness:
                twins.append(run if full <= fullness[name] else self._runs[name])
                if full <= fullness[name]:
                    continue
            fullness[name], self._runs[name] = full, run
            if not whole:
                self._shorten(name)
        for twin in twins:
            self._client.delete_run(twin.run_id)

    def _search(self, wanted: str) -> Iterator[Run]:
        """The sweep's runs that have a kind and a key, the oldest first."""
        sweep, token = f"tags.sweep = '{self.sweep}'", None
        if self._sweep_id is not None:
            sweep += f" and tags.{SWEEP_ID} = '{self._sweep_id}'"
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                f"{sweep} and {wanted}",
                max_results=PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                tags = run.data.tags
                ours = tags.get(SWEEP_ID) == self._sweep_id
                if ours and "kind" in tags and "key" in tags:
                    yield Run(
                        run_id=run.info.run_id,
                        name=run.info.run_name,
                        status=run.info.status,
                        tags=tags,
                        parameters=run.data.params,
                        metrics=run.data.metrics,
                    )
            token = page.token
            if not token:
                return

    def _shorten(self, name: tuple[str, str]) -> None:
        """Forget most of a run that has ended: thousands of them would fill the memory."""
        run = self._runs[name]
        if run.status in ENDED[name[0]]:
            run.tags, run.parameters, run.metrics, run.whole = {}, {}, {}, False

    def page(self, view: str = LEADERBOARD) -> str:
        """The page of a view of the runs, relative to MLflow's address."""
        return f"#/experiments/{self.experiment_id}/runs?viewStateShareKey={view}"

    @property
    def links(self) -> str:
        return f"[Leaderboard of the trials]({self.page()}) · [Stages]({self.page(STAGES)})"

    def _note(self, contents: Contents, run_id: str) -> str:
        """The note, and links: a sweep's to its tables and reports, a trial's to its stages."""
        here = f"#/experiments/{self.experiment_id}/runs"
        if contents.kind == "sweep":
            reports = [f.name for f in contents.artifacts if f.suffix in (".html", ".md")]
            links = [f"[{name}]({here}/{run_id}/artifacts/{name})" for name in reports]
            return "\n\n".join([" · ".join([self.links, *links]), contents.note])
        links = []
        for role, key in contents.stages.items():
            stage = self.get("stage", key) or self._find("stage", key)  # a part will do
            link = f"[{stage.name}]({here}/{stage.run_id})" if stage else key
            links.append(f"- {role}: {link}")
        return "\n\n".join(part for part in (contents.note, "\n".join(links)) if part)

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
        run = self._find(contents.kind, contents.key) or self._create(contents)
        at = int(contents.at * 1000)
        # Of a run that has ended, only the end, missing points and parameters are news.
        late = contents.status == "RUNNING" and run.status in ENDED[contents.kind]
        status = run.status if late else contents.status
        tags = {} if late else {**self._outdated(run), **self._tags(contents, run.run_id)}

        parameters = as_parameters(contents.parameters)
        for key, value in parameters.items():
            if run.parameters.get(key, value) != value:  # MLflow never changes a parameter
                tags[f"now.{key}"] = value
        parameters = {k: v for k, v in parameters.items() if k not in run.parameters}
        tags = {k: v for k, v in tags.items() if run.tags.get(k) != v}

        points = missing_points(contents, run.metrics.get("epoch", -1.0))
        curves = [Metric(*point) for point in points]
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
        self._shorten((contents.kind, contents.key))

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
        if self._sweep_id is not None:
            tags[SWEEP_ID] = self._sweep_id
        tags |= self._tags(contents, "")
        if contents.kind != "sweep":
            tags["mlflow.parentRunId"] = self._runs["sweep", self.sweep].run_id
        kind = contents.tags.get("stage_kind", contents.kind)
        created = self._client.create_run(
            self.experiment_id,
            start_time=int(1000 * (contents.began or contents.at)),
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

    def _tags(self, contents: Contents, run_id: str) -> dict[str, str]:
        note = self._note(contents, run_id)
        return as_tags({**contents.tags, **({"mlflow.note.content": note} if note else {})})

    def _outdated(self, run: Run) -> dict[str, str]:
        return {"reason": ""} if "reason" in run.tags else {}  # it failed, and was run again

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
    """Whether the same call may succeed later: a server that is away, a database that is busy.

    So may one that is denied (401, 403): who runs the server can mend it.
    """
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return status >= 500 or status in (401, 403, 408, 429)
    return isinstance(error, UNUSABLE) and not isinstance(error, FileNotFoundError)


def connect(uri: str) -> MlflowClient:
    """A client that has had an answer. Raises UNUSABLE without one."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()  # where this fails, MLflow would try for minutes
    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client
