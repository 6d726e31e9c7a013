"""What earlier sweeps found, for a new one to begin with.

Their trials are told to the sampler as past observations. They are no trials of the new sweep and
cannot be recommended by it, but for the best of each: where all of its stages are in the store it
is run again as a given trial, which costs nothing. What was read is kept in `warm_start.json`, so
that a sweep that is continued has begun with the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.study import RungPoint
from search_spaces.space import Space, encode
from search_spaces.study import Observation
from sweeps.records import TrialRecord, flattened, read_json, read_records, read_sweep, write_json
from sweeps.search_settings import MlflowSweep
from sweeps.searching.given import GivenTrial
from sweeps.searching.objectives import values_of
from sweeps.searching.sampler_view import at, device_seconds, step_of
from sweeps.searching.trial_names import trial_name
from sweeps.sweep import Sweep
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.settings import nearest, parse, with_overrides
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

FILE = "warm_start.json"


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What a sweep begins with."""

    read: dict[str, Any]  # name -> the earlier sweep, as `warm_start.json` keeps it
    observations: list[Observation]
    given: list[GivenTrial]  # the best of each sweep, where running it again costs nothing
    notes: list[str]

    def keep(self, sweep: Sweep) -> None:
        if self.read:
            write_json(sweep.folder, FILE, self.read)


def warm_start(
    sweep: Sweep, space: Space, data: Mapping[str, Dataset], store: StageStore
) -> WarmStart:
    """Read the sweeps of `search.warm_start`, or what was kept of them when this one began.

    Raises:
        ValueError: one is not to be had, or its scores cannot be compared with this sweep's.
    """
    kept = read_json(sweep.folder, FILE) or {}
    read: dict[str, Any] = {}
    found = WarmStart(read=read, observations=[], given=[], notes=[])
    for source in sweep.settings.search.warm_start:
        name = source if isinstance(source, str) else f"{source.experiment} (MLflow)"
        read[name] = kept.get(name) or _read(sweep, source, store)
        _check_same_objective(name, read[name], sweep, data)
        _add(found, name, sweep, space, data, store)
    return found


def _read(sweep: Sweep, source: str | MlflowSweep, store: StageStore) -> dict[str, Any]:
    """An earlier sweep: `trial` (its settings), `data` (name -> hash), `trials`."""
    if isinstance(source, MlflowSweep):
        from cluster.mlflow_reader import read_summary

        uri = source.uri or sweep.tracking_uri or f"sqlite:///{sweep.disk}/mlflow.db"
        summary = read_summary(uri, source.experiment)
        if "trial" not in summary:
            raise ValueError(
                f"search.warm_start: the summary of {source.experiment!r} is of an older version; "
                "run that sweep's command once more, which trains nothing and writes it anew"
            )
        keys = ("number", "name", "values", "config", "state", "score", "scores", "device_seconds")
        return {
            "trial": summary["trial"],
            "data": summary["data"],
            "trials": [
                {key: trial[key] for key in keys}
                | {"stages": list(trial["stages"]), "rungs": trial.get("rungs", [])}
                for trial in summary["trials"]
            ],
        }
    if source == sweep.settings.name:
        raise ValueError(f"search.warm_start: {source!r} is this sweep itself; take it out")
    folder = sweep.storage / source
    settings = read_sweep(folder)
    if settings is None:
        names = [file.name.split("/") for file in sweep.storage.listed()]
        there = [name[0] for name in names if name[1:] == ["sweep.json"]]
        raise ValueError(
            f"search.warm_start: {sweep.storage} has no sweep {source!r}{nearest(source, there)}"
        )
    return {
        "trial": settings["trial"],
        "data": settings["data"],
        "trials": [_described(record, settings["trial"], store) for record in read_records(folder)],
    }


def _described(record: TrialRecord, trial: dict[str, Any], store: StageStore) -> dict[str, Any]:
    alone = record.device_seconds
    return {
        "number": record.number,
        "name": trial_name(record),
        "values": record.values,
        "config": with_overrides(trial, dict(record.values)),
        "state": record.state,
        "score": record.score,
        "scores": record.scores,
        "device_seconds": device_seconds(store, record.stages) if alone is None else alone,
        "stages": list(record.stages.values()),
        "rungs": [asdict(point) for point in record.rungs],
    }


def _check_same_objective(
    name: str, earlier: Mapping[str, Any], sweep: Sweep, data: Mapping[str, Dataset]
) -> None:
    own = sweep.settings.trial.model_dump(mode="json")
    hashes = {dataset: data[dataset].content_hash for dataset in own["downstream"]}
    there, here = _objective(earlier["trial"], earlier["data"]), _objective(own, hashes)
    differing = [
        f"  {key}: {there.get(key)} there, {here.get(key)} here"
        for key in dict.fromkeys([*there, *here])
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise ValueError(
            f"search.warm_start: the scores of {name!r} are of another objective, and would "
            "mislead this sweep's sampler:\n"
            + "\n".join(differing)
            + "\ntake it out of search.warm_start, or score this sweep as that one was"
        )


def _objective(trial: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    """All that a score depends on beside the weights that are scored."""
    use = trial["score"]["use"]
    return flattened(
        {
            "trial": {
                "downstream": sorted(trial["downstream"]),
                "score": trial["score"],
                "test": trial["test"],
                use: trial[use],
            },
            "data": {name: data.get(name, "absent") for name in trial["downstream"]},
        }
    )


def _add(
    found: WarmStart,
    name: str,
    sweep: Sweep,
    space: Space,
    data: Mapping[str, Dataset],
    store: StageStore,
) -> None:
    """The observations of one earlier sweep, its best trial, and what is to be said of both."""
    earlier = found.read[name]
    own = sweep.settings.trial.model_dump(mode="json")
    inside = []
    for trial in earlier["trials"]:
        values = _values_at(space, trial, own)
        if trial["state"] not in ("complete", "failed", "pruned") or values is None:
            continue
        config = sweep.trial_with(values, f"{name}: trial")
        identities = _identities(config, data)
        same = _ends_the_same(trial, identities, earlier["data"], sweep, data)
        objectives = None
        if trial["state"] == "complete":
            objectives = values_of(
                sweep.settings.search.objectives,
                trial["score"],
                trial["scores"],
                trial["device_seconds"],
            )
        found.observations.append(
            Observation(
                values=values,
                state=trial["state"],
                objectives=objectives,
                # A sweep that was read before rungs were kept has none.
                intermediate=dict(step_of(config, RungPoint(**r)) for r in trial.get("rungs", ())),
                settled=same,
            )
        )
        inside.append((trial, values, identities if same else None))
    found.notes.append(_note(name, earlier, own, inside, space))
    complete = [each for each in inside if each[0]["state"] == "complete"]
    if complete:
        best, values, known = max(complete, key=lambda e: (e[0]["score"], -e[0]["number"]))
        if known and all(store.record(identity) is not None for identity in known):
            found.given.append(
                GivenTrial(name=f"best of {name}: {best['name']}", origin="earlier", values=values)
            )


def _identities(config: TrialConfig, data: Mapping[str, Dataset]) -> list[str]:
    return [stage.identity for stage in trial_stages(config, data).searched()]


def _ends_the_same(
    trial: Mapping[str, Any],
    identities: Sequence[str],
    hashes: Mapping[str, str],
    sweep: Sweep,
    data: Mapping[str, Dataset],
) -> bool:
    """Whether a trial with these stages would end here as `trial` ended there.

    Of one that did not come to its end the stages follow from its settings, if these are still
    valid and its data (`hashes`) the same. One that was stopped there goes on where nothing stops.
    """
    if trial["state"] == "complete":
        return set(identities) <= set(trial["stages"])
    if trial["state"] == "pruned" and sweep.settings.search.early_stopping is None:
        return False
    if any(data[name].content_hash != hashes[name] for name in data.keys() & hashes.keys()):
        return False
    try:
        there = _identities(parse(TrialConfig, trial["config"], "an earlier trial"), data)
    except (ValueError, KeyError):
        return False
    return there == list(identities)


def _values_at(
    space: Space, trial: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The point of the space at which an earlier trial lies; None if it lies outside.

    What the earlier sweep set for all of its trials may differ from this one's: a note says so. But
    what it set for this trial alone must be in the space, or be what all trials here have.
    """
    for path, value in trial["values"].items():
        searched = any(path == known or path.startswith(f"{known}.") for known in space.parameters)
        if not searched and value != at(own, path):
            return None
    point: dict[str, Any] = {}
    for path, parameter in space.parameters.items():
        if parameter.holds(point):
            point[path] = at(trial["config"], path)
    try:
        encode(space, point)
    except ValueError:
        return None
    return point


def _note(
    name: str,
    earlier: Mapping[str, Any],
    own: Mapping[str, Any],
    inside: Sequence[tuple[Any, Any, Any]],
    space: Space,
) -> str:
    there, here = flattened(earlier["trial"]), flattened(own)
    differing = [
        key
        for key in dict.fromkeys([*there, *here])
        if there.get(key) != here.get(key)
        and not any(key == path or key.startswith(f"{path}.") for path in space.parameters)
    ]
    known = sum(same is not None for _, _, same in inside)
    note = (
        f"Warm start from {name!r}: {len(inside)} of its {len(earlier['trials'])} trials lie in "
        f"this space and are told to the sampler; {known} would end the same here, and are not "
        "suggested again."
    )
    if differing:
        settings = ", ".join(
            f"trial.{key} ({there.get(key)} there, {here.get(key)} here)" for key in differing[:5]
        )
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        note += f" All of them differ from this sweep's trials in {settings}{more}."
    return note
