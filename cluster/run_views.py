"""How MLflow's table of a sweep's runs is set up. Plain values, no MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def trials_view(datasets: Sequence[str], varied: Sequence[str]) -> dict[str, Any]:
    """MLflow's table of the trials, best first."""
    columns = [
        "metrics.`score`",
        *(f"metrics.`accuracy/{name}`" for name in datasets),
        *(f"params.`{key}`" for key in varied),
        "tags.`state`",
    ]
    return _view('tags.kind = "trial"', "metrics.`score`", columns)


def stages_view() -> dict[str, Any]:
    """MLflow's table of the stages, newest first; features, the most of them, say little."""
    scores = ("accuracy", "top5", "mean_class_accuracy", "knn_accuracy")
    metrics = ("loss", *scores, "bias", "cost/device_seconds", "cost/clips")
    columns = [*(f"metrics.`{key}`" for key in metrics), "tags.`state`"]
    shown = 'tags.kind = "stage" AND tags.stage_kind != "features"'
    return _view(shown, "attributes.`Created`", columns)


def _view(shown: str, order_by: str, columns: Sequence[str]) -> dict[str, Any]:
    """What "Share" in MLflow's runs table would keep; columns as wide as names and numbers."""
    return {
        "searchFilter": shown,
        "orderByKey": order_by,
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", "attributes.`Date`", *columns],
        "columnWidths": {
            "attributes.`Run Name`": 300,
            **{column: max(130, 7 * len(column) - 20) for column in columns},
        },
    }
