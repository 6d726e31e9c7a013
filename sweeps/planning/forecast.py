"""What a sweep comes to with the trials that the sampler has yet to suggest, and how long it takes.

What they will be is not known. Random draws of the space stand in for them (of a grid, its own
points): their stages are real ones, so that sharing among them counts as it would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from search_spaces.space import Space
from search_spaces.study import Study
from sweeps.planning.costs import StageCosts
from sweeps.planning.plan import Plan, PlannedStage, make_plan, money_of, total_seconds
from sweeps.planning.schedule import Task, makespan
from sweeps.records import GIVEN
from sweeps.searching.objectives import directions
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import Stage

MOST_DRAWN = 100  # trials; what lies beyond is taken to cost what the later half of these does


@dataclass(frozen=True, kw_only=True)
class Forecast:
    plan: Plan  # of the known trials and the drawn ones
    drawn: int
    exact: bool  # nothing had to be drawn: a grid's points are known
    stages: float  # that the trials to be suggested add
    clips: float
    seconds: float | None  # device-seconds; None where nothing tells
    money: float | None
    concurrent: int | Literal["auto"]  # search.concurrent

    def makespan(self, devices: float, *, concurrent: int | Literal["auto"] | None) -> float | None:
        """Seconds on so many devices; None if a stage needs more of them, or has no price."""
        tasks = tasks_of(self.plan.missing)
        if tasks is None:
            return None
        if concurrent == "auto":  # as often as the widest stage fits
            widest = max((task.devices for task in tasks.values()), default=0.0)
            concurrent = max(1, int(devices // (widest or 1.0)))
        return makespan(tasks, devices, concurrent)


def forecast(
    sweep: Sweep,
    space: Space,
    search: Search,
    plan: Plan,
    data: Mapping[str, Dataset],
    costs: StageCosts,
    of_no_trial: Sequence[Stage] = (),
) -> Forecast:
    """`plan`: of the trials that `search` knows, and of the stages `of_no_trial`."""
    known = search.known()
    drawn = draw(sweep, space, search, min(plan.to_suggest, MOST_DRAWN))
    whole = plan
    if drawn:
        everything = {**known, **drawn}
        whole = make_plan(everything, 0, data, costs, reported(search), of_no_trial)
    there = {planned.stage.identity for planned in plan.stages}
    more = [each for each in whole.missing if each.stage.identity not in there]
    beyond = (plan.to_suggest - len(drawn)) / max(1, len(drawn) // 2) if drawn else 0.0
    later = [each for each in more if each.trials[0] >= len(known) + len(drawn) // 2]
    seconds, seconds_later = (total_seconds(each.price for each in of) for of in (more, later))
    money, money_later = money_of(more), money_of(later)
    return Forecast(
        plan=whole,
        drawn=len(drawn),
        exact=sweep.settings.search.sampler == "grid" and len(drawn) == plan.to_suggest,
        stages=len(more) + beyond * len(later),
        clips=sum(each.clips for each in more) + beyond * sum(each.clips for each in later),
        seconds=None if seconds is None else seconds + beyond * (seconds_later or 0.0),
        money=None if money is None else money + beyond * (money_later or 0.0),
        concurrent=sweep.settings.search.concurrent,
    )


def tasks_of(missing: Sequence[PlannedStage]) -> dict[str, Task] | None:
    """The stages that are to be made, to be scheduled; None where one has no price.

    What no score needs is one more trial's, the last: it runs when the search is over.
    """
    tasks = {}
    last = 1 + max((number for planned in missing for number in planned.trials), default=0)
    for planned in missing:
        if planned.price is None:
            return None
        tasks[planned.stage.identity] = Task(
            seconds=planned.price.seconds / planned.workers,
            devices=planned.workers * planned.devices,
            waits_for=planned.waits_for,
            trials=planned.trials if planned.scored else [last],
        )
    return tasks


def reported(search: Search) -> set[int]:
    """Those known trials that are scored in every way at the end whatever they score: the given
    ones. (So is the best of the others, whichever that will be.)"""
    begun = {record.number for record in search.records if record.origin in GIVEN}
    return begun | {number for number in search.known() if number >= len(search.records)}


def draw(
    sweep: Sweep, space: Space, search: Search, count: int
) -> dict[int, tuple[str, TrialConfig]]:
    """Trials that the sampler might suggest, numbered after the known ones."""
    settings, first = sweep.settings.search, len(search.known())
    if not count or not space.parameters:
        return {}
    sampler = "grid" if settings.sampler == "grid" else "random"
    study = Study(
        space,
        sampler=sampler,
        seed=settings.seed,
        startup_trials=0,
        directions=directions(settings.objectives),
        past=search.observations(),
    )
    drawn = {}
    for number in range(first, first + count):
        suggestion = study.ask()
        if suggestion is None:  # the grid is exhausted
            break
        drawn[number] = ("", sweep.trial_with(suggestion.values, "a random draw of the space"))
    return drawn
