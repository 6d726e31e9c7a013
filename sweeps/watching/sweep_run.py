"""What the sweep's own run in MLflow says: when it begins, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.tracking import Tracker
from search_spaces.simplex_parameter import SimplexParameter
from search_spaces.space import Space
from sweeps.planning.plan_lines import plan_lines
from sweeps.prepare import Prepared
from sweeps.reporting.bias_summary import bias_metrics


def start_tracker(prepared: Prepared) -> Tracker:
    """Open the run, or continue it. Raises ValueError where MLflow refuses."""
    sweep, resolved = prepared.sweep, prepared.resolved
    uri, artifacts = sweep.tracking_uri, None
    if uri is None:
        uri, artifacts = f"sqlite:///{sweep.disk}/mlflow.db", str(sweep.disk / "mlartifacts")
    tracker = Tracker(uri, sweep.settings.name, resolved["id"], artifacts)
    tags = {f"data.{name}": value for name, value in resolved["data"].items()}
    tags["allow_real_humans"] = str(sweep.settings.allow_real_humans).lower()
    tracker.start(
        resolved,
        "\n\n".join(
            [
                f"**{sweep.settings.question}**",
                f"While it runs, the report so far is in {sweep.folder}/report.html.",
                *plan_lines(prepared.plan),
            ]
        ),
        tags,
        datasets=sweep.settings.trial.downstream,
        varied=_varied(prepared.space),
        must_answer=not prepared.search.records,  # a mistake in the address shows at the start
    )
    return tracker


def _varied(space: Space) -> list[str]:
    """The dotted keys of what is searched, as a trial's parameters name them."""
    keys = []
    for path, parameter in space.parameters.items():
        sources = parameter.over if isinstance(parameter, SimplexParameter) else ()
        keys += [f"{path}.{source}" for source in sources] or [path]
    return keys


def answer(summary: Mapping[str, Any]) -> str:
    """The run's description once the sweep is over, Markdown."""
    best = summary["recommended"]
    if best is None:
        return f"**{summary['question']}**\n\nNo trial was completed."
    return (
        f"**{summary['question']}**\n\nRecommended: trial {best['trial']}, {best['name']}; score "
        f"{best['score']:.1%} on the selection split. The report, its plots and the weights are "
        "among the artifacts."
    )


def metrics_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The run's metrics, once the sweep is over."""
    best = summary["recommended"]
    metrics = {f"trials/{state}": count for state, count in summary["counts"].items()}
    metrics |= {f"cost/{name}": value for name, value in summary["cost"].items()}
    metrics |= bias_metrics(summary)
    if best is not None:
        metrics["best/score"] = best["score"]
        if best["report"]:
            metrics["best/report_score"] = best["report"]["score"]
    return metrics
