"""What each stage that pre-trains on a mixture is, as its identity sees it, and their trunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from trainables import training_descriptions
from trainables.config import AlignSettings, MaeSettings, TrialConfig
from trainables.contrastive_settings import ContrastiveSettings
from trainables.data.catalog import Dataset
from trainables.data.mixture import exact_shares
from trainables.schedules import check_schedule, decay_start
from trainables.settings import nearest
from trainables.stage import Stage
from trainables.training_descriptions import Pretraining, model_and_clip, of_trunk
from trainables.training_settings import Share


def mae(
    trial: TrialConfig, settings: MaeSettings, data: Mapping[str, Dataset], start: Stage
) -> Stage:
    return _pretraining("mae", trial, settings, data, start, [])


def contrastive(
    trial: TrialConfig, settings: ContrastiveSettings, data: Mapping[str, Dataset], start: Stage
) -> Stage:
    return _pretraining("contrastive", trial, settings, data, start, [])


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
    settings: Pretraining,
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
        if kind == "contrastive" and described["classes"] is not None:
            described["classes"] = "per_source"
    if isinstance(settings, ContrastiveSettings):
        sources = [data[name] for name, share in exact.items() if share]
        _check_latents(settings, sources)
        described["view_scale"] = _view_scale(settings, sources)
    if settings.clips_per_epoch == "sum_of_sources":
        described["clips_per_epoch"] = sum(sizes[name] for name, share in exact.items() if share)
    whole = Stage(
        kind=kind,
        settings={"seed": trial.seed, **model_and_clip(trial), kind: described},
        data={source: data[source].content_hash for source in exact},
        inputs={"start": start},
    )
    if settings.optimizer.lr_schedule != "constant_then_decay":
        return whole
    trunk = _trunk(whole, settings)
    return whole if trunk is None else replace(whole, inputs={"start": start, "trunk": trunk})


def _check_latents(settings: ContrastiveSettings, sources: Sequence[Dataset]) -> None:
    for source in sources if settings.loss == "inverter" else ():
        if source.latents is None and source.program is None:
            raise ValueError(
                f"contrastive.loss 'inverter': {source.name!r} has no latents to learn; take "
                "sources that data.generators sampled of an exported program, or another loss"
            )


def _view_scale(settings: ContrastiveSettings, sources: Sequence[Dataset]) -> float:
    """0 where no source has views, so that it decides nothing. Raises ValueError for a scale that
    a source with views has none of."""
    scale, with_views = settings.view_scale, [source for source in sources if source.has_views]
    for source in with_views if scale else ():
        if scale not in source.views and source.program is None:
            known = ", ".join(f"{each:g}" for each in (0, *sorted(source.views)))
            raise ValueError(
                f"contrastive.view_scale {scale:g}: {source.name!r} has no views of it; choose one "
                f"of {known}, or sample its generator with --scales {scale:g}"
            )
    return scale if with_views else 0.0


def _trunk(whole: Stage, settings: Pretraining) -> Stage | None:
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
