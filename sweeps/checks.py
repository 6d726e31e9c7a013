"""What is checked before anything is trained, so that a mistake costs seconds and no GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from search_spaces.points import edges
from search_spaces.simplex_parameter import SimplexParameter
from search_spaces.space import Space, check_paths
from sweeps.planning.stage_facts import excess_repetition
from sweeps.records import TrialRecord
from sweeps.searching.given import GivenTrial
from sweeps.sweep import Sweep
from trainables.config import FinetuneSettings, TrialConfig
from trainables.data.batch_order import check_parts, pairing_in
from trainables.data.catalog import Dataset, require_splits
from trainables.data.mixture import exact_shares
from trainables.settings import nearest
from trainables.stage import executed_as
from trainables.storage.folder import Folder
from trainables.training_descriptions import Pretraining
from trainables.training_settings import TSN, Share


def sources_of(sweep: Sweep, space: Space, records: Iterable[TrialRecord] = ()) -> dict[str, str]:
    """Every source that some trial may pre-train on, or did, -> where that trial comes from.

    `records`: trials that there are, of this space or another one.
    """
    sources: dict[str, str] = {}
    names = {f"trial {record.number}": record.values for record in records}
    there = ((name, sweep.trial_with(values, name)) for name, values in names.items())
    for where, trial in (*_trials(sweep, space), *there):
        for shares in _all_shares(trial):
            for source in shares:
                sources.setdefault(source, where)
    return sources


def check_comparable(sweep: Sweep, space: Space) -> None:
    """Raises ValueError where a trial is scored otherwise than the sweep's own."""
    own = sweep.settings.trial
    for where, trial in _trials(sweep, space):
        for key in ("downstream", "score"):
            if getattr(trial, key) != getattr(own, key):
                raise ValueError(
                    f"{where}: {key} is another than the sweep's, so that its score could not be "
                    f"compared; set trial.{key} for all, or make it a sweep of its own"
                )


def _trials(sweep: Sweep, space: Space) -> Iterator[tuple[str, TrialConfig]]:
    """The trial of the sweep file, its points and the edges of its space, and where each is."""
    yield "trial", sweep.settings.trial
    for point in sweep.points:
        where = f"search.points {point.name!r}"
        yield where, sweep.trial_with(point.set, where)
    file = sweep.settings.search.space or ""
    for values in edges(space):
        yield file, sweep.trial_with(values, file)


def check_names(named: Mapping[str, str], known: Collection[str]) -> None:
    """Raises ValueError for a dataset that is not known, with where it is named."""
    for name, where in named.items():
        if name not in known:
            raise ValueError(f"{where}: {name!r} is in no catalog{nearest(name, list(known))}")


def check_sources(sweep: Sweep, sources: Mapping[str, str], data: Mapping[str, Dataset]) -> None:
    """Sources and downstream datasets exist, have their splits; no real human by accident."""
    check_names(sources, data)
    for source, where in sources.items():
        require_splits(data[source], ("train",))
        if data[source].humans == "real" and not sweep.settings.allow_real_humans:
            raise ValueError(
                f"{where}: {source!r} is declared 'humans: real' and pre-training on real people "
                "is refused; take it out, or set allow_real_humans: true"
            )
    check_names(dict.fromkeys(sweep.settings.trial.downstream, "trial.downstream"), data)
    for name in sweep.settings.trial.downstream:
        require_splits(data[name], ("train", "selection", "report"))


def check_execution(sweep: Sweep, space: Space) -> None:
    """Raises ValueError where a stage's batches cannot be divided as `execution` says."""
    execution = sweep.settings.execution
    for where, trial in _trials(sweep, space):
        ends = [trial.endpoint(index) for index in range(len(trial.average.endpoints))]
        trained: list[tuple[str, Pretraining | FinetuneSettings | None]]
        trained = [("mae", trial.mae), (executed_as("contrastive"), trial.contrastive)]
        trained += [("align", each) for each in (trial.align, *ends)]
        trained += [("finetune", trial.augmented_probe), ("finetune", trial.finetune)]
        for kind, settings in trained:
            if settings is None or not settings.epochs:
                continue
            runs = getattr(execution, kind)
            pairing = pairing_in(settings)
            try:
                batch_size = settings.optimizer.batch_size
                for workers in runs.counts:
                    check_parts(batch_size, pairing, runs.per_device_batch, workers)
                if len(runs.counts) > 1:
                    check_counts(batch_size, runs.counts)
            except ValueError as error:
                raise ValueError(f"{where}, execution.{kind}: {error}") from None


def check_counts(batch_size: int, counts: Collection[int]) -> None:
    """Raises ValueError unless each of several worker counts divides the global batch."""
    if wrong := [count for count in counts if batch_size % count]:
        divide = [count for count in range(1, max(counts) + 1) if batch_size % count == 0]
        raise ValueError(
            f"workers {list(counts)}: {' and '.join(map(str, wrong))} do not divide "
            f"optimizer.batch_size {batch_size}; of up to {max(counts)} workers, "
            f"{', '.join(map(str, divide))} do"
        )


def check_models(sweep: Sweep, space: Space) -> None:
    """Every model exists; weights that may have seen people are started from only with leave."""
    for where, trial in _trials(sweep, space):
        start = trial.start
        if start.path is not None and not sweep.settings.allow_real_humans:
            raise ValueError(
                f"{where}: start.weights {start.weights!r} from {start.path} were trained on data "
                "that this sweep does not know, most likely with real people; start from random "
                "weights, or set allow_real_humans: true"
            )
        if start.weights == "huggingface":
            from trainables.stages.imported import check_huggingface

            check_huggingface(Path(str(start.path)), trial.model, trial.clip)
        if trial.model.name.startswith(TSN):
            from trainables.models.timm_models import check_backbone  # which takes seconds

            check_backbone(trial.model.name.removeprefix(TSN))


def check_space(sweep: Sweep, space: Space) -> None:
    """Every path is a setting, and the settings accept both ends of every range."""
    check_paths(space, TrialConfig)
    for values in [{}, *edges(space)]:
        for shares in _all_shares(sweep.trial_with(values, str(sweep.settings.search.space))):
            exact_shares(shares, dict.fromkeys(shares, 1))


def within_limits(
    sweep: Sweep, space: Space, given: list[GivenTrial], data: Mapping[str, Dataset]
) -> tuple[list[GivenTrial], list[str]]:
    """The given trials that keep to `max_repetition`, and why each baseline left out was.

    Baselines keep to the space's limits of shares too; a point of the sweep file need not.

    Raises:
        ValueError: a point of the sweep file goes past it.
    """
    kept, left_out = [], []
    for trial in given:
        excess = excess_repetition(sweep.trial_with(trial.values, trial.name), data)
        if excess and trial.origin == "point":
            raise ValueError(f"search.points {trial.name!r}: {excess}; change it or raise the cap")
        if trial.origin == "baseline":
            excess = excess or _broken(space, trial)
        if excess:
            left_out.append(f"{trial.name} is left out: {excess}.")
        else:
            kept.append(trial)
    return kept, left_out


def _broken(space: Space, given: GivenTrial) -> str | None:
    """Which limit of the search space the shares of a baseline break; None if they keep to all."""
    for path, value in given.values.items():
        parameter = space.parameters.get(path)
        if isinstance(parameter, SimplexParameter) and (broken := parameter.broken_by(value)):
            return f"in the search space {broken}"
    return None


def check_storage(folder: Folder) -> None:
    """Raises ValueError where the folder cannot be made or written."""
    try:
        folder.impatient().write(".writable", b"")
        folder.delete([".writable"])
    except OSError as error:
        raise ValueError(
            f"storage {folder}: cannot be written ({error.strerror}); give another with "
            "--set storage=FOLDER"
        ) from None


def _all_shares(trial: TrialConfig) -> Iterator[dict[str, Share]]:
    if trial.mae is not None:
        yield trial.mae.mixture.shares
    if trial.contrastive is not None:
        yield trial.contrastive.mixture.shares
    yield trial.align.mixture.shares
    for index in range(len(trial.average.endpoints)):
        yield trial.endpoint(index).mixture.shares
