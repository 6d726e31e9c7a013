"""What the laws and the merges say of a sweep, as JSON for summary.json. Scores, not losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search_spaces.law_decision import interval
from search_spaces.mixture_laws import Array, Exponential
from search_spaces.rank_correlation import spearman
from sweeps.records import TrialRecord
from sweeps.searching.laws import Fitted, Laws
from sweeps.searching.mixtures import Mixture, Mixtures
from sweeps.searching.proposals import Proposals

TOLERANCES = (0.005, 0.01, 0.02)  # in score: half a point, one, two
SLICE = 21  # shares of one source, from 0 to 1


def law_summary(proposals: Proposals, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """The `law` section; None where no law is asked for.

    `reason` says why there are no laws; else it is null and these follow. `curve`: the candidate
    mixes with, for each dataset and their weighted mean, score and 90 % interval. `slices`, from
    three sources on: the same along the share of each source, the others as in the proposal.
    """
    laws = proposals.laws
    if laws is None:
        return None
    summary: dict[str, Any] = {
        "sources": list(laws.mixtures.sources),
        "weights": dict(zip(laws.datasets, laws.weights.tolist(), strict=True)),
        "kl_to_natural": laws.settings.kl_to_natural,
        "natural": laws.mixtures.named(laws.mixtures.natural()),
        "last_trials": laws.settings.last_trials,
        "reason": None,
    }
    fitted = laws.fit(records)
    if isinstance(fitted, str):
        return summary | {"reason": fitted}
    return _rounded(summary | _of_fitted(laws, fitted))


def _of_fitted(laws: Laws, fitted: Fitted) -> dict[str, Any]:
    comparison, decision, group = fitted.comparison, fitted.decision, fitted.group
    noise, best = comparison.noise, comparison.best()
    values = dict(group.best.record.values)
    for path in (laws.mixtures.path, "seed"):
        values.pop(path, None)
    return {
        "settings": values,
        "trials": [_trial(laws.mixtures, each) for each in group.complete],
        "mixes": group.mixes(unfinished=False),
        "noise": {
            "datasets": dict(zip(laws.datasets, noise.deviation.tolist(), strict=True)),
            "mean": decision.noise,
            "repeats": noise.repeats,
            "from_repeats": noise.from_repeats,
        },
        "laws": [
            {
                "name": name,
                "left_out_error": dict(zip(laws.datasets, error.tolist(), strict=True)),
                "weight": dict(zip(laws.datasets, comparison.weights[name].tolist(), strict=True)),
                "parameters": _parameters(laws, comparison.curves[name]),
                "proposes": laws.mixtures.named(_best_of(laws, fitted, name)),
            }
            for name, error in comparison.errors.items()
        ],
        "best_law": best,
        "best_law_of": {
            dataset: min(comparison.errors, key=lambda name: comparison.errors[name][place])
            for place, dataset in enumerate(laws.datasets)
        },
        "proposed": _proposed(laws, fitted),
        "curve": sorted(
            _curve(laws, fitted, fitted.candidates, fitted.drawn),
            key=lambda point: [*point["shares"].values()],
        ),
        "slices": _slices(laws, fitted),
    }


def _trial(mixtures: Mixtures, mixture: Mixture) -> dict[str, Any]:
    record = mixture.record
    return {
        "number": record.number,
        "shares": mixtures.named(mixture.shares),
        "seed": mixture.seed,
        "scores": record.scores,
    }


def _parameters(laws: Laws, curve: Any) -> dict[str, Any] | None:
    """c and t of the exponential law of each dataset's error."""
    if not isinstance(curve, Exponential):
        return None
    return {
        dataset: {"c": float(c), "t": laws.mixtures.named(t)}
        for dataset, c, t in zip(laws.datasets, curve.c, curve.t, strict=True)
    }


def _best_of(laws: Laws, fitted: Fitted, name: str) -> Array:
    """The mix that this law alone would propose."""
    losses = laws.weights @ fitted.comparison.curves[name](fitted.candidates)
    penalty = fitted.decision.objective - fitted.decision.losses
    return fitted.candidates[int((losses + penalty).argmin())]


def _proposed(laws: Laws, fitted: Fitted) -> dict[str, Any]:
    decision = fitted.decision
    mix = tuple(decision.candidates[decision.proposed].tolist())
    low, high = interval(decision.drawn_losses[:, decision.proposed])
    alone_low, alone_high = _interval_alone(laws, fitted)
    least, most = decision.best_shares()
    following = decision.next_trial()
    return {
        "shares": laws.mixtures.named(mix),
        "score": 1 - float(decision.losses[decision.proposed]),
        "interval": [1 - float(high), 1 - float(low)],
        "interval_of_best_law": [1 - alone_high, 1 - alone_low],
        "trials": [each.record.number for each in fitted.group.complete if each.shares == mix],
        "expected_regret": decision.regret(),
        "sure_within": {f"{each:g}": decision.sure_within(each) for each in TOLERANCES},
        "best_between": {
            source: [float(low), float(high)]
            for source, low, high in zip(laws.mixtures.sources, least, most, strict=True)
        },
        "next_trial": laws.mixtures.named(decision.candidates[following]),
    }


def _interval_alone(laws: Laws, fitted: Fitted) -> tuple[float, float]:
    """Of the proposal's loss, were the law that foretells best known to be the true one."""
    comparison, decision = fitted.comparison, fitted.decision
    alone = comparison.alone(comparison.best())
    drawn = alone.draws(decision.candidates[[decision.proposed]], seed=laws.seed)
    low, high = interval(drawn[:, :, 0] @ laws.weights)
    return float(low), float(high)


def _curve(laws: Laws, fitted: Fitted, mixes: Array, drawn: Array) -> list[dict[str, Any]]:
    """Score and interval at each mix [M, K], from the losses [B, D, M] drawn there."""
    scores = 1 - fitted.comparison(mixes)
    low, high = interval(1 - drawn)
    mean = laws.weights @ scores
    mean_low, mean_high = interval(1 - np.einsum("d,bdm->bm", laws.weights, drawn))
    return [
        {
            "shares": laws.mixtures.named(mix),
            "scores": {
                dataset: [scores[d, m], low[d, m], high[d, m]]
                for d, dataset in enumerate(laws.datasets)
            },
            "mean": [mean[m], mean_low[m], mean_high[m]],
        }
        for m, mix in enumerate(mixes)
    ]


def _slices(laws: Laws, fitted: Fitted) -> dict[str, list[dict[str, Any]]]:
    sources = laws.mixtures.sources
    if len(sources) == 2:
        return {}
    proposed = fitted.candidates[fitted.decision.proposed]
    slices = {}
    for place, source in enumerate(sources):
        others = np.where(np.arange(len(sources)) == place, 0.0, proposed)
        rest = others if others.sum() else np.where(np.arange(len(sources)) == place, 0.0, 1.0)
        shares = np.linspace(0, 1, SLICE)[:, None]
        along = (1 - shares) * rest / rest.sum() + shares * np.eye(len(sources))[place]
        drawn = fitted.comparison.draws(along, seed=laws.seed)
        slices[source] = _curve(laws, fitted, along, drawn)
    return slices


def merge_summary(proposals: Proposals, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """The `merge_proxy` section; None where no merges are asked for.

    `curve` is null until they are scored. `correlation`: Spearman's between the merges' mean score
    and the trained one, over the mixes of more than one source; at one source both are the same
    weights.
    """
    merges = proposals.merges
    if merges is None:
        return None
    mixtures = proposals.mixtures
    summary: dict[str, Any] = {
        "sources": list(mixtures.sources),
        "experts": dict(
            zip(mixtures.sources, (expert.identity for expert in merges.experts), strict=True)
        ),
        "curve": None,
        "correlation": None,
        "trials": [record.number for record in records if record.origin == "proxy"],
    }
    losses = merges.losses()
    if losses is None:
        return summary
    weights = proposals.weights
    summary["curve"] = [
        {
            "shares": mixtures.named(mix),
            "scores": dict(zip(merges.datasets, (1 - losses[:, m]).tolist(), strict=True)),
            "mean": 1 - float(weights @ losses[:, m]),
        }
        for m, mix in enumerate(merges.mixes)
    ]
    summary["correlation"] = _correlation(proposals, records)
    return _rounded(summary)


def _correlation(proposals: Proposals, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Over the mixes of the experts' own group, seeds averaged."""
    merges, mixtures = proposals.merges, proposals.mixtures
    assert merges is not None
    curve = merges.curve()
    assert curve is not None
    own = mixtures.look({})
    trained: dict[tuple[float, ...], list[float]] = {}
    for group in mixtures.groups(records):
        if own is None or group.settings != own.settings:
            continue
        for each in group.complete:
            if max(each.shares) < 1:
                scores = [each.record.scores[name] for name in merges.datasets]
                trained.setdefault(each.shares, []).append(float(proposals.weights @ scores))
    if len(trained) < 2:
        return {"mixes": len(trained), "spearman": None, "interval": None}
    merged = -(proposals.weights @ curve(np.array([*trained])))
    rho, bounds = spearman(merged, np.array([np.mean(each) for each in trained.values()]))
    return {"mixes": len(trained), "spearman": rho, "interval": bounds and list(bounds)}


def _rounded(value: Any) -> Any:
    """Floats to 6 places: what a machine's arithmetic decides is not part of the answer."""
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(float(value), 6) + 0.0 if isinstance(value, float | np.floating) else value
