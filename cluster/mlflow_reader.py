"""An earlier sweep's summary, from MLflow. Writes nothing there."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from cluster.scrubbed import scrubbed
from cluster.tracking import ENVIRONMENT

SUMMARY = "summary.json"


def read_summary(uri: str, experiment: str) -> dict[str, Any]:
    """summary.json of the last sweep that `experiment` holds.

    Raises:
        ValueError: MLflow does not answer, or has no finished sweep of that name.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from cluster.mlflow_runs import UNUSABLE, connect  # which takes seconds

    database = uri.removeprefix("sqlite:///")
    where = f"search.warm_start: MLflow at {scrubbed(uri)}"
    if database != uri and not Path(database).exists():  # connecting would make it
        raise ValueError(f"{where} is not there; check the path")
    try:
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise ValueError(
                f"{where} has no experiment {experiment!r}; it has the name of its sweep"
            )
        sweeps = client.search_runs(
            [found.experiment_id],
            filter_string="tags.kind = 'sweep'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        artifacts = client.list_artifacts(sweeps[0].info.run_id) if sweeps else []
        if SUMMARY not in [artifact.path for artifact in artifacts]:
            raise ValueError(
                f"{where}: experiment {experiment!r} holds no {SUMMARY}; it is there when the "
                "sweep has ended"
            )
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(sweeps[0].info.run_id, SUMMARY, folder)
            summary: dict[str, Any] = json.loads(Path(path).read_text())
            return summary
    except UNUSABLE as error:
        raise ValueError(
            f"{where} cannot be read: {scrubbed(error)}; check the address, that its server runs, "
            "and MLFLOW_TRACKING_TOKEN where it asks for one"
        ) from None
