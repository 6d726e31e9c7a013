from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_spaces.space import load_space
from sweeps.records import write_sweep
from sweeps.searching.given import given_trials
from sweeps.searching.search import Search
from sweeps.searching.warm_start import WarmStart, warm_start
from sweeps.sweep import Sweep
from tests.sweeps.test_report import STOPPED, Finished
from tests.sweeps.test_search import run_all
from tests.toy import STOPPING, toy_data, write_toy_sweep
from trainables.stage_store import StageStore

SCORES = {0: 0.3, 1: 0.5, 2: 0.4, 3: 0.6, 5: 0.7, 6: 0.2}  # 4 fails; 0 to 4 are baselines
SHARES = "align.mixture.shares"


def earlier_sweep(folder: Path, scores: dict[int, float] = SCORES, **overrides: Any) -> Finished:
    (folder / "old").mkdir()
    settings = {"name": "old", "search__trials": 7, **overrides}
    old = Finished(folder / "old", scores, storage=str(folder / "runs"), **settings)
    hashes = {name: dataset.content_hash for name, dataset in old.data.items()}
    stored = {**old.sweep.settings.model_dump(mode="json"), "space": None, "data": hashes}
    write_sweep(old.sweep.folder, stored)
    return old


def begin(folder: Path, **overrides: Any) -> tuple[WarmStart, Search]:
    """A new sweep in the same storage, that begins with the earlier one."""
    (folder / "new").mkdir(exist_ok=True)
    settings: dict[str, Any] = {"storage": str(folder / "runs"), "search__warm_start": ["old"]}
    sweep = Sweep(write_toy_sweep(folder / "new", **{**settings, **overrides}), {})
    assert sweep.space_file is not None
    space, data = load_space(sweep.space_file), toy_data()
    found = warm_start(sweep, space, data, StageStore(sweep.storage / "stages"))
    found.keep(sweep)
    given = given_trials(sweep, space, {"synthetic": 16, "scenes": 8})
    given = [] if not sweep.settings.search.baselines else given
    search = Search(sweep, space, [*given, *found.given], data, earlier=found.observations)
    return found, search


def test_trials_of_the_space_are_told_and_those_outside_are_not(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    found, _ = begin(tmp_path)
    told = [(o.values[SHARES]["synthetic"], o.state, o.objectives) for o in found.observations]
    assert told[:4] == [
        (1.0, "complete", (0.5,)),
        (0.0, "complete", (0.4,)),
        (0.5, "complete", (0.6,)),
        (0.6667, "failed", None),
    ]  # random weights, with no alignment, lie outside
    assert len(told) == 6
    assert found.notes == [
        "Warm start from 'old': 6 of its 7 trials lie in this space and are told to the sampler; 6 "
        "would end the same here, and are not suggested again."
    ]


def test_no_trial_is_repeated_but_the_best_which_costs_nothing(tmp_path: Path) -> None:
    old = earlier_sweep(tmp_path, search__trials=6)
    _, search = begin(tmp_path, search__baselines=False, search__trials=2)
    run_all(search)
    tried = {str(record.values[SHARES]) for record in old.search.records if record.number}
    best, *others = search.records
    assert (best.origin, best.values[SHARES]) == ("earlier", old.search.records[5].values[SHARES])
    assert best.name == f"best of old: {old.summary()['recommended']['name']}"
    assert others and not {str(record.values[SHARES]) for record in others} & tried
    assert [record.number for record in search.records] == [0, 1]


def test_the_best_is_not_run_again_where_a_stage_of_it_is_gone(tmp_path: Path) -> None:
    old = earlier_sweep(tmp_path)
    best = old.search.records[5]
    old.store.folder(next(reversed(best.stages.values()))).remove()
    found, _ = begin(tmp_path)
    assert found.given == [] and len(found.observations) == 6


def test_the_sampler_begins_with_what_the_earlier_sweep_found(tmp_path: Path) -> None:
    def first(warm: list[str], **overrides: Any) -> Any:
        _, search = begin(
            tmp_path,
            space={"parameters": {SHARES: {"type": "simplex", "over": ["synthetic", "scenes"]}}},
            search__baselines=False,
            search__sampler="tpe",
            search__warm_start=warm,
            **overrides,
        )
        return search._study.ask()

    low_is_best = {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.3, 5: 0.6, 6: 0.5}
    earlier_sweep(tmp_path, low_is_best)
    warm, cold = first(["old"], name="warm"), first([], name="cold")
    assert warm.values != cold.values


def test_an_earlier_trial_that_was_stopped_is_told_with_how_far_it_came(tmp_path: Path) -> None:
    stops = {"search__early_stopping": STOPPING}
    earlier_sweep(tmp_path, {**SCORES, 6: STOPPED}, **stops)
    found, search = begin(tmp_path, search__baselines=False, **stops)
    stopped = found.observations[-1]
    assert (stopped.state, dict(stopped.intermediate)) == ("pruned", {500: 0.1})
    failed = next(o for o in found.observations if o.state == "failed")
    assert stopped.settled and failed.settled
    run_all(search)
    mixes = [record.values[SHARES] for record in search.records]
    assert stopped.values[SHARES] not in mixes and failed.values[SHARES] not in mixes
    without, _ = begin(tmp_path, name="unstopped")  # there it would come to a score
    assert not without.observations[-1].settled


def test_trials_with_another_seed_are_told_with_a_note_and_may_be_suggested(
    tmp_path: Path,
) -> None:
    earlier_sweep(tmp_path)
    found, _ = begin(tmp_path, trial__seed=1)
    assert not any(observation.settled for observation in found.observations)
    assert found.given == []
    assert "0 would end the same here" in found.notes[0]
    assert "differ from this sweep's trials in trial.seed (0 there, 1 here)" in found.notes[0]


def test_a_wider_space_takes_the_earlier_trials_at_the_settings_they_had(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    wider = {
        "parameters": {
            SHARES: {"type": "simplex", "over": ["synthetic", "scenes"]},
            "align.epochs": {"type": "int", "low": 1, "high": 3},
        }
    }
    found, _ = begin(tmp_path, space=wider)
    assert {observation.values["align.epochs"] for observation in found.observations} == {2}


@pytest.mark.parametrize(
    ("overrides", "differs"),
    [
        ({"trial__score__combine": "min"}, "trial.score.combine: mean there, min here"),
        ({"trial__test__clips": 2}, "trial.test.clips: 1 there, 2 here"),
        ({"trial__probe__l2_grid": [2.0]}, r"trial.probe.l2_grid: \[1.0\] there, \[2.0\] here"),
        (
            {"trial__downstream": ["low", "scenes"]},
            r"trial.downstream: \['low'\] there, \['low', 'scenes'\] here",
        ),
    ],
)
def test_a_sweep_with_another_objective_is_refused_with_what_differs(
    tmp_path: Path, overrides: dict[str, Any], differs: str
) -> None:
    earlier_sweep(tmp_path)
    with pytest.raises(ValueError, match=f"'old' are of another objective[^$]*{differs}"):
        begin(tmp_path, **overrides)


def test_other_clips_under_the_same_name_are_another_objective(tmp_path: Path) -> None:
    old = earlier_sweep(tmp_path)
    stored = old.sweep.settings.model_dump(mode="json")
    write_sweep(old.sweep.folder, {**stored, "data": {"low": "0123456789abcdef"}})
    with pytest.raises(ValueError, match="data.low: 0123456789abcdef there"):
        begin(tmp_path)


def test_a_sweep_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    with pytest.raises(ValueError, match="no sweep 'odl'; did you mean 'old'"):
        begin(tmp_path, search__warm_start=["odl"])
    with pytest.raises(ValueError, match="is this sweep itself"):
        begin(tmp_path, search__warm_start=["toy"])


def test_a_continued_sweep_has_begun_with_the_same_though_the_earlier_one_is_gone(
    tmp_path: Path,
) -> None:
    old = earlier_sweep(tmp_path)
    before, _ = begin(tmp_path)
    old.sweep.folder.remove()
    after, _ = begin(tmp_path)
    assert (after.observations, after.notes) == (before.observations, before.notes)


def test_with_hours_as_an_objective_those_of_the_earlier_trials_are_told(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    found, _ = begin(tmp_path, search__objectives=["score", "gpu_hours"])
    assert found.observations[0].objectives == pytest.approx((0.5, 12 / 3600))


@pytest.mark.slow
def test_a_sweep_that_mlflow_knows_tells_the_same_as_its_files(tmp_path: Path) -> None:
    from cluster.tracking import Tracker
    from sweeps.records import write_json
    from trainables.storage.folder import Folder

    old = earlier_sweep(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = Tracker(uri, "old", None, str(tmp_path / "artifacts"))
    tracker.start({}, "", {}, datasets=["low"], varied=[], must_answer=True)
    summary = tmp_path / "summary.json"
    write_json(Folder(str(tmp_path)), summary.name, old.summary())
    tracker.finish("", {}, [summary])
    tracker.wait()
    by_files, _ = begin(tmp_path, name="one")
    named = [{"experiment": "old", "uri": uri}]
    by_mlflow, _ = begin(tmp_path, name="other", search__warm_start=named)

    def told(found: WarmStart) -> list[str]:
        return sorted(map(repr, found.observations))

    assert told(by_mlflow) == told(by_files)
    assert [given.values for given in by_mlflow.given] == [g.values for g in by_files.given]
    with pytest.raises(ValueError, match="has no experiment 'odl'"):
        begin(tmp_path, name="x", search__warm_start=[{"experiment": "odl", "uri": uri}])
    gone = [{"experiment": "old", "uri": f"sqlite:///{tmp_path / 'other.db'}"}]
    with pytest.raises(ValueError, match="is not there"):
        begin(tmp_path, name="x", search__warm_start=gone)
    assert not (tmp_path / "other.db").exists()
