"""Which training states of trunks a finished search may give up."""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.planning.plan_lines import gigabytes
from sweeps.searching.search import Search
from trainables.data.catalog import Dataset
from trainables.stage import TRUNKS, Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


def give_up_states(search: Search, data: Mapping[str, Dataset], store: StageStore) -> str | None:
    """Delete the states that no length will branch from any more; what is to be said of it.

    A state is kept while the length that it was made for has not been trained. Of each run the
    longest is kept: more epochs go on from it.
    """
    stages: dict[str, Stage] = {}
    for record in search.records:
        for stage in trial_stages(search.config(record), data).all():
            stages[stage.identity] = stage
    trained = {s.inputs["trunk"].identity for s in stages.values() if _branched(s, store)}
    given_up = [
        stage
        for stage in stages.values()
        if stage.kind in TRUNKS
        and stage.identity in trained
        and stage.settings["step"] < max(store.trunks(stage.line), default=0)
    ]
    freed = sum(store.give_up(stage.identity) for stage in given_up)
    if not freed:
        return None
    return (
        f"gave up {len(given_up)} training states of trunks, {gigabytes(freed)}: their lengths are "
        "trained; the longest of each run is kept, for more epochs to go on from"
    )


def _branched(stage: Stage, store: StageStore) -> bool:
    return "trunk" in stage.inputs and store.finished(stage.identity) is not None
