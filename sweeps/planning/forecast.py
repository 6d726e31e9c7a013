"""What a sweep comes to with the trials that the sampler has yet to suggest, and how long it takes.

What they will be is not known. Random draws of the space stand in for them (of a grid, its own
points): their stages are real ones, so that sharing among them counts as it would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from search_spaces.space import Space
from search_spaces.study import Study
from sweeps.planning.costs import StageCosts
from sweeps.planning.plan import Plan, PlannedStage, make_plan, money_of, total_seconds
from sweeps.planning.schedule import Task, makespan
from sweeps.records import GIVEN
from sweeps.searching.objectives import directions
from sweeps.searching.sampler_view import SamplerView
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import Stage

MOST_SCHEDULED = 500  # trials beyond the drawn; what lies beyond these takes time in proportion
MOST_DRAWN = 100  # trials; what lies beyond is taken to cost what the later half of these does


@dataclass(frozen=True, kw_only=True)
class Later:
    """The later half of the drawn trials: so many from `first` on, and the stages they add."""

    first: int
    trials: int
    stages: list[PlannedStage]

    def more(self, tasks: Mapping[str, Task], count: int) -> dict[str, Task]:
        """The tasks of `count` further trials, which are like these over and over."""
        own = {each.stage.identity: each.trials[0] - self.first for each in self.stages}
        last = max((trial for task in tasks.values() for trial in task.trials), default=0)
        found = {}
        for before in range(0, count, max(self.trials, 1)):
            for name, place in own.items():
                if before + place < count:
                    shift = last + 1 + before - self.first
                    found[f"{name} {before}"] = replace(
                        tasks[name],
                        waits_for=[
                            f"{n} {before}" if n in own else n for n in tasks[name].waits_for
                        ],
                        trials=[trial + shift for trial in tasks[name].trials],
                    )
        return found


@dataclass(frozen=True, kw_only=True)
class Forecast:
    plan: Plan  # of the known trials and the drawn ones
    drawn: int
    exact: bool  # nothing had to be drawn: a grid's points are known
    stages: float  # that the trials to be suggested add
    clips: float
    seconds: float | None  # device-seconds; None where nothing tells
    money: float | None
    alone_clips: float  # of all trials, each alone
    alone_seconds: float | None  # likewise
    alone_money: float | None
    concurrent: int | Literal["auto"]  # search.concurrent
    beyond: int  # trials beyond those drawn
    later: Later  # what these are taken to be like

    def makespan(self, devices: float, *, concurrent: int | Literal["auto"] | None) -> float | None:
        """Seconds on so many devices; None if a stage needs more of them, or has no price."""
        drawn = tasks_of(self.plan.missing)
        if drawn is None:
            return None
        most = min(self.beyond, MOST_SCHEDULED)
        tasks = drawn | self.later.more(drawn, most)
        if concurrent == "auto":  # as often as the widest stage fits
            widest = max((task.devices for task in tasks.values()), default=0.0)
            concurrent = max(1, int(devices // (widest or 1.0)))
        seconds = makespan(tasks, devices, concurrent)
        if seconds is None or most == self.beyond:
            return seconds
        half = makespan(drawn | self.later.more(drawn, most // 2), devices, concurrent)
        assert half is not None
        return seconds + (seconds - half) / (most - most // 2) * (self.beyond - most)


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
    is_grid = sweep.settings.search.sampler == "grid"
    count = plan.to_suggest if is_grid else min(plan.to_suggest, MOST_DRAWN)
    drawn = draw(sweep, space, search, count)
    used_up = is_grid and len(drawn) < count
    whole = plan
    if drawn or used_up:
        everything = {**known, **drawn}
        whole = make_plan(everything, 0, data, costs, reported(search), of_no_trial)
    there = {planned.stage.identity for planned in plan.stages}
    more = [each for each in whole.missing if each.stage.identity not in there]
    beyond = plan.to_suggest - len(drawn) if drawn and not used_up else 0
    like = Later(
        first=len(known) + len(drawn) // 2,
        trials=len(drawn) - len(drawn) // 2,
        stages=[each for each in more if each.trials[0] >= len(known) + len(drawn) // 2],
    )
    later, times = like.stages, beyond / max(1, like.trials)
    all_drawn = (len(drawn) + beyond) / max(1, len(drawn))
    seconds, seconds_later = (total_seconds(each.price for each in of) for of in (more, later))
    money, money_later = money_of(more), money_of(later)
    return Forecast(
        plan=whole,
        drawn=len(drawn),
        exact=is_grid,
        stages=len(more) + times * len(later),
        clips=sum(each.clips for each in more) + times * sum(each.clips for each in later),
        seconds=None if seconds is None else seconds + times * (seconds_later or 0.0),
        money=None if money is None else money + times * (money_later or 0.0),
        alone_clips=plan.alone_clips + all_drawn * (whole.alone_clips - plan.alone_clips),
        alone_seconds=_grown(plan.alone_seconds, whole.alone_seconds, all_drawn),
        alone_money=_grown(plan.alone_money, whole.alone_money, all_drawn),
        concurrent=sweep.settings.search.concurrent,
        beyond=beyond,
        later=like,
    )


def _grown(known: float | None, whole: float | None, times: float) -> float | None:
    """`whole` with what it has beside `known` so many times."""
    if whole is None:
        return None
    return (known or 0.0) + times * (whole - (known or 0.0))


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
    view = SamplerView(sweep, space)
    for given in search.to_come():
        study.add(view.at_space(given.values))
    drawn = {}
    for number in range(first, first + count):
        suggestion = study.ask()
        if suggestion is None:  # the grid is exhausted
            break
        drawn[number] = ("", sweep.trial_with(suggestion.values, "a random draw of the space"))
    return drawn
