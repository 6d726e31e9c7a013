"""Scene bias for summary.json and MLflow, and what the sweep says of SynAPT's claim.

The claim: the lower the scene bias of a downstream dataset, the more it gains from alignment on
synthetic clips rather than on human-free ones. Stage 1 may have seen either: it is told beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from search_spaces.rank_correlation import spearman
from trainables.bias import VIEWS, Measured
from trainables.data.catalog import Dataset
from trainables.stage_store import StageStore

SYNTHETIC, HUMAN_FREE = {"virtual"}, {"removed", "none"}


def bias_summary(
    measured: Sequence[Measured],
    trials: Sequence[Mapping[str, Any]],
    downstream: Sequence[str],
    data: Mapping[str, Dataset],
    store: StageStore,
) -> dict[str, Any] | None:
    """None where bias is not asked for. `trials` as they stand in the summary.

    `datasets`: of each, in each view, what its stage measured, or the `reason` why not.
    """
    if not measured:
        return None
    datasets: dict[str, dict[str, Any]] = {
        each.dataset: {
            "downstream": each.dataset in downstream,
            "humans": data[each.dataset].humans,
        }
        for each in measured
    }
    for each in measured:
        datasets[each.dataset][each.view] = _figures(each, store)
    gain = _gain(trials, downstream, data)
    return {
        "datasets": datasets,
        "gain": gain,
        "claim": {view: _claim(view, datasets, gain) for view in VIEWS} if gain else None,
    }


def bias_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """bias/<dataset>/<view> in bits with its ends, gain/<dataset>; none where none was measured."""
    found = summary["bias"]
    if found is None:
        return {}
    metrics: dict[str, float] = {}
    for name, dataset in found["datasets"].items():
        for view in VIEWS:
            if "bias" in dataset[view]:
                for key, end in (
                    ("bias", ""),
                    ("interval_low", "/low"),
                    ("interval_high", "/high"),
                ):
                    metrics[f"bias/{name}/{view}{end}"] = dataset[view][key]
    if found["gain"]:
        gains = found["gain"]["datasets"]
        metrics |= {f"gain/{name}": each["gain"] for name, each in gains.items()}
    return metrics


def _figures(measured: Measured, store: StageStore) -> dict[str, Any]:
    if measured.stage is None:
        return {"reason": measured.reason}
    record = store.record(measured.stage.identity)
    if record is None:
        return {"reason": "it is not measured yet, or that failed"}
    seconds = record.cost["device_seconds"]
    return {**record.metrics, "stage": record.identity, "device_seconds": seconds}


def _gain(
    trials: Sequence[Mapping[str, Any]], downstream: Sequence[str], data: Mapping[str, Dataset]
) -> dict[str, Any] | None:
    """Top-1 after alignment on synthetic clips alone less that on human-free ones alone; None: not
    tried.

    On the report split where both were scored on it. Both were scored on the same clips, so that
    their errors go together, and the interval (squares of the half-widths add) is too wide, not
    too narrow, for the noise of the clips; that of training is not in it.
    """
    pair = _pair(trials, data)
    if pair is None:
        return None
    synthetic, free = pair
    split = "report" if synthetic["report"] and free["report"] else "selection"
    one, other = (trial["report"] if split == "report" else trial for trial in (synthetic, free))
    gains = {}
    for name in downstream:
        gain = one["scores"][name] - other["scores"][name]
        half = math.hypot(*(np.ptp(each["intervals"][name]) / 2 for each in (one, other)))
        gains[name] = {"gain": gain, "interval": [gain - half, gain + half]}
    return {
        "synthetic": synthetic["number"],
        "human_free": free["number"],
        "aligned_from": {
            "synthetic": synthetic["aligned_from"],
            "human_free": free["aligned_from"],
        },
        "split": split,
        "datasets": gains,
    }


def _pair(
    trials: Sequence[Mapping[str, Any]], data: Mapping[str, Dataset]
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Two complete trials, aligned on synthetic clips alone and on human-free ones alone.

    Those that started from the same stage 1, where there are such; of these baselines, where
    there are; of these the best on the selection split.
    """

    def preferred(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[float, ...]:
        one, other = pair
        same = one["aligned_from"]["stage"] == other["aligned_from"]["stage"]
        given = sum(trial["origin"] == "baseline" for trial in pair)
        numbers = [-trial["number"] for trial in pair]
        return (same, given, sum(trial["score"] for trial in pair), *numbers)

    synthetic, free = (_aligned_on(trials, humans, data) for humans in (SYNTHETIC, HUMAN_FREE))
    return max(product(synthetic, free), key=preferred, default=None)


def _aligned_on(
    trials: Sequence[Mapping[str, Any]], humans: set[str], data: Mapping[str, Dataset]
) -> list[Mapping[str, Any]]:
    """The complete trials that aligned on sources with such `humans` alone."""
    return [
        trial
        for trial in trials
        if trial["state"] == "complete"
        and trial["aligned_from"] is not None
        and any(trial["shares"].values())
        and {data[source].humans for source, share in trial["shares"].items() if share} <= humans
    ]


def _claim(
    view: str, datasets: Mapping[str, Mapping[str, Any]], gain: Mapping[str, Any]
) -> dict[str, Any]:
    """Spearman's correlation of bias and gain over the downstream datasets, its 90 % interval."""
    names = [name for name in gain["datasets"] if "bias" in datasets[name][view]]
    bias = np.array([datasets[name][view]["bias"] for name in names])
    gains = np.array([gain["datasets"][name]["gain"] for name in names])
    rho, interval = spearman(bias, gains) if len(names) > 1 else (None, None)
    return {
        "datasets": len(names),
        "spearman": rho,
        "interval": None if interval is None else list(interval),
    }
