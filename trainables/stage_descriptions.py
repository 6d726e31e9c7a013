"""What each stage of a trial is, as its identity sees it: settings, data, inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from trainables import training_descriptions
from trainables.config import AlignSettings, FinetuneSettings, MaeSettings, TrialConfig
from trainables.data.catalog import Dataset
from trainables.data.mixture import exact_shares
from trainables.schedules import check_schedule, decay_start
from trainables.settings import nearest
from trainables.stage import Stage, file_hash
from trainables.training_descriptions import of_trunk
from trainables.training_settings import Share


def start(trial: TrialConfig) -> Stage:
    """Random weights, or public ones: known by what their file holds, not by where it lies."""
    if trial.start.path is None:
        return Stage(kind="init", settings={"seed": trial.seed, **_model(trial)})
    path = Path(trial.start.path)
    return Stage(
        kind="import",
        settings={"format": trial.start.weights, "seed": trial.seed, **_model(trial)},
        data={"weights": file_hash(path)},
        where={"weights": str(path.resolve())},
    )


def mae(
    trial: TrialConfig, settings: MaeSettings, data: Mapping[str, Dataset], start: Stage
) -> Stage:
    return _pretraining("mae", trial, settings, data, start, [])


def align(
    trial: TrialConfig, settings: AlignSettings, data: Mapping[str, Dataset], start: Stage
) -> Stage:
    """`settings` are the trial's own, or those of an endpoint of its average."""
    named = [trial.align.mixture.shares]
    if settings.mixture.match_repetition:  # else a soup would ask each endpoint for all others
        others = [trial.endpoint(index) for index in range(len(trial.average.endpoints))]
        named += [other.mixture.shares for other in others]
    return _pretraining("align", trial, settings, data, start, named)


def _pretraining(
    kind: str,
    trial: TrialConfig,
    settings: MaeSettings | AlignSettings,
    data: Mapping[str, Dataset],
    start: Stage,
    named: list[dict[str, Share]],
) -> Stage:
    """`named`: all the shares of the trial, whose sources `match_repetition` has to know."""
    sizes = {name: len(dataset.split("train")) for name, dataset in data.items()}
    exact = exact_shares(settings.mixture.shares, sizes)
    if settings.mixture.match_repetition:  # then the clips kept depend on every source's size
        names = [*exact, *(name for shares in named for name in shares)]
        exact = {name: exact.get(name, Decimal(0)) for name in names}
    else:
        exact = {name: share for name, share in exact.items() if share}
    for name in settings.mixture.resample:
        if name not in data:
            raise ValueError(
                f"{kind}.mixture.resample: {name!r} is no dataset of this sweep"
                f"{nearest(name, list(data))}"
            )
    described = training_descriptions.described(settings)
    mixture = described["mixture"]
    mixture["shares"] = {name: f"{share.normalize():f}" for name, share in exact.items()}
    mixture["resample"] = {
        name: size for name, size in mixture["resample"].items() if exact.get(name)
    }
    del mixture["max_repetition"]  # a limit on what may be asked, not on how it runs
    if len(exact) == 1:  # of one source, batches and heads of every kind are the same
        mixture["granularity"] = "clip"
        if kind == "align":
            described["head"] = "per_source"
    if settings.clips_per_epoch == "sum_of_sources":
        described["clips_per_epoch"] = sum(sizes[name] for name, share in exact.items() if share)
    whole = Stage(
        kind=kind,
        settings={"seed": trial.seed, **_model(trial), kind: described},
        data={source: data[source].content_hash for source in exact},
        inputs={"start": start},
    )
    if settings.optimizer.lr_schedule != "constant_then_decay":
        return whole
    trunk = _trunk(whole, settings)
    return whole if trunk is None else replace(whole, inputs={"start": start, "trunk": trunk})


def _trunk(whole: Stage, settings: MaeSettings | AlignSettings) -> Stage | None:
    """What a run shares with runs of other lengths: all that comes before its decay.

    Known by its last step and not by the length. It follows the trunks of those `branch_epochs`
    whose decay begins earlier. None if the decay is the whole run.
    """
    described, optimizer = whole.settings[whole.kind], settings.optimizer
    steps_per_epoch = described["clips_per_epoch"] // optimizer.batch_size
    check_schedule(settings.epochs * steps_per_epoch, optimizer, whole.kind)
    lengths = [epochs * steps_per_epoch for epochs in (settings.epochs, *settings.branch_epochs)]
    own, *others = branches = [decay_start(length, optimizer) for length in lengths]
    trunk = None
    for step in sorted({own, *(step for step in others if step < own)} - {0}):
        shared = {**whole.settings, whole.kind: of_trunk(described), "step": step}
        through = {run for run, end in zip(lengths, branches, strict=True) if end >= step}
        trunk = replace(
            whole,
            kind=f"{whole.kind}_trunk",
            settings=shared,
            after=trunk,
            lengths=tuple(sorted(through)),
        )
    return trunk


def average(trial: TrialConfig, method: str, inputs: dict[str, Stage]) -> Stage:
    """`method`: uniform, interpolate, model_stock, last_k, ema or posthoc_ema."""
    settings = trial.average
    read: dict[str, dict[str, Any]] = {
        "interpolate": {"coefficient": settings.coefficient},
        "last_k": {"last": settings.last},
        "posthoc_ema": {"ema_length": settings.ema_length},
    }
    return Stage(kind="average", settings={"method": method, **read.get(method, {})}, inputs=inputs)


def greedy_soup(
    trial: TrialConfig, data: Mapping[str, Dataset], endpoints: dict[str, Stage]
) -> Stage:
    """Its score is the mean probe accuracy over the trial's downstream selection splits."""
    return Stage(
        kind="greedy_soup",
        settings={
            "downstream": list(trial.downstream),
            "probe": training_descriptions.described_probe(trial.probe),
            "test": _json(trial.test),
            **_model(trial),
        },
        data={name: data[name].content_hash for name in trial.downstream},
        inputs=endpoints,
    )


def learned_average(trial: TrialConfig, dataset: Dataset, endpoints: list[Stage]) -> Stage:
    assert trial.augmented_probe is not None
    _check_downstream_schedule(trial.augmented_probe, dataset, "augmented_probe")
    return Stage(
        kind="learned_average",
        settings={
            "dataset": dataset.name,
            "learned": trial.average.learned,
            "augmented_probe": training_descriptions.described(trial.augmented_probe),
            "seed": trial.seed,
            **_model(trial),
        },
        data={dataset.name: dataset.content_hash},
        inputs={f"w{index}": endpoint for index, endpoint in enumerate(endpoints)},
    )


def features(trial: TrialConfig, dataset: Dataset, weights: Stage, split: str) -> Stage:
    """Of one set of weights; of all coefficients together where the trial's is among them."""
    if _shares_its_pass(trial, weights):
        together = list(trial.average.scored_together)
        return _features(trial, dataset, weights.inputs, split, {"coefficients": together})
    return _features(trial, dataset, {"weights": weights}, split, {})


def _features(
    trial: TrialConfig,
    dataset: Dataset,
    inputs: dict[str, Stage],
    split: str,
    more: dict[str, Any],
) -> Stage:
    settings = {
        "dataset": dataset.name,
        "split": split,
        "views": {"clips": 1, "crops": 1} if split == "train" else _json(trial.test),
        "max_unreadable": trial.probe.max_unreadable,
        **training_descriptions.lower_precision(trial.probe.precision),
        **_model(trial),
        **more,
    }
    return Stage(
        kind="features", settings=settings, data={dataset.name: dataset.content_hash}, inputs=inputs
    )


def _shares_its_pass(trial: TrialConfig, weights: Stage) -> bool:
    return (
        weights.kind == "average"
        and weights.settings["method"] == "interpolate"
        and weights.settings["coefficient"] in trial.average.scored_together
    )


def probe(trial: TrialConfig, dataset: Dataset, weights: Stage, split: str) -> Stage:
    splits = ["train", "selection"] if split == "selection" else ["train", "selection", "report"]
    more = {}
    if _shares_its_pass(trial, weights):
        more = {"coefficient": weights.settings["coefficient"]}
    inputs = {name: features(trial, dataset, weights, name) for name in splits}
    return _probe(trial, dataset, inputs, split, more)


def _probe(
    trial: TrialConfig,
    dataset: Dataset,
    inputs: dict[str, Stage],
    split: str,
    more: dict[str, Any],
) -> Stage:
    settings = {
        "l2_grid": list(trial.probe.l2_grid),
        "neighbours": trial.probe.neighbours,
        "split": split,
        "classes": len(dataset.classes),
        **more,
    }
    return Stage(kind="probe", settings=settings, inputs=inputs)


def merged_probes(
    trial: TrialConfig, dataset: Dataset, experts: list[Stage], mixes: list[list[float]]
) -> list[Stage]:
    """A probe on the selection split for each merge sum_k a_k W_k of the experts, all in one pass.

    `mixes`: the a of each merge, one number an expert.
    """
    weights = {f"w{index}": expert for index, expert in enumerate(experts)}
    inputs = {
        split: _features(trial, dataset, weights, split, {"coefficients": mixes})
        for split in ("train", "selection")
    }
    return [_probe(trial, dataset, inputs, "selection", {"coefficient": mix}) for mix in mixes]


def trained_on_downstream(
    kind: str,
    trial: TrialConfig,
    settings: FinetuneSettings,
    dataset: Dataset,
    weights: Stage,
    split: str,
) -> Stage:
    """Training (`kind`: augmented_probe or finetune) and the evaluation that follows it."""
    _check_downstream_schedule(settings, dataset, kind)
    common: dict[str, Any] = {"dataset": dataset.name, **_model(trial)}
    trained = Stage(
        kind=kind,
        settings={**common, "seed": trial.seed, kind: training_descriptions.described(settings)},
        data={dataset.name: dataset.content_hash},
        inputs={"weights": weights},
    )
    return Stage(
        kind="evaluate",
        settings={
            **common,
            "split": split,
            "views": _json(trial.test),
            "max_unreadable": settings.max_unreadable,
        },
        data={dataset.name: dataset.content_hash},
        inputs={"model": trained},
    )


def downstream_steps_per_epoch(clips: int, batch_size: int) -> int:
    """An epoch is the whole batches of the training split, one at the least."""
    return max(1, clips // batch_size)


def _check_downstream_schedule(settings: FinetuneSettings, dataset: Dataset, where: str) -> None:
    clips = len(dataset.split("train"))
    steps_per_epoch = downstream_steps_per_epoch(clips, settings.optimizer.batch_size)
    check_schedule(settings.epochs * steps_per_epoch, settings.optimizer, where)


def _model(trial: TrialConfig) -> dict[str, Any]:
    return {"model": _json(trial.model), "clip": _json(trial.clip)}


def _json(settings: Any) -> dict[str, Any]:
    described: dict[str, Any] = settings.model_dump(mode="json")
    return described
