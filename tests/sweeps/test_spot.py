"""The simulation of nodes that are taken back, beside closed forms."""

from __future__ import annotations

import math
from statistics import mean

import numpy as np
import pytest

from sweeps.planning.schedule import Run, Task, makespan, simulate
from sweeps.planning.spot import Spot

HOUR = 3600.0


def spot(seed: int = 0, per_hour: float = 1.0, away: float = 0.0, restart: float = 0.0) -> Spot:
    return Spot(per_hour=per_hour, away_seconds=away, restart_seconds=restart, seed=seed)


def runs(task: Task, nodes: list[float], count: int = 1500, **of_spot: float) -> list[Run]:
    return [simulate({"align": task}, nodes, spot=spot(seed, **of_spot)) for seed in range(count)]


def seconds_of(found: list[Run]) -> float:
    return mean(run.seconds for run in found)


def expected_seconds(segments: list[float], rate: float, away: float, restart: float) -> float:
    """Of work in segments, each followed by a checkpoint that takes no time, where failures come
    at `rate` a second, also while it restarts: (e^(rate C) - 1) (1/rate + D) e^(rate R) a segment.

    From E = C p + (1 - p) (what a failed try takes + D + what the restart takes + E), p = e^(-rate
    C); Daly 2006 and Herault and Robert 2015 have it with the checkpoint's own time in C.
    """
    return sum(
        math.exp(rate * restart) * (1 / rate + away) * math.expm1(rate * each) for each in segments
    )


def random_tasks(seed: int) -> dict[str, Task]:
    """What a trial wants, it wants the inputs of too."""
    rng = np.random.default_rng(seed)
    tasks: dict[str, Task] = {}
    wanted: dict[int, set[int]] = {i: set() for i in range(20)}
    for i in reversed(range(20)):
        inputs = [j for j in range(i) if rng.random() < 0.2]
        wanted[i].add(int(rng.integers(3)))
        for j in inputs:
            wanted[j] |= wanted[i]
        tasks[f"t{i}"] = Task(
            seconds=float(rng.integers(1, 9)),
            devices=float(rng.choice([0.5, 1, 4])),
            waits_for=[f"t{j}" for j in inputs],
            trials=sorted(wanted[i]),
        )
    return tasks


def test_one_stage_without_a_fault_takes_what_it_costs() -> None:
    run = simulate({"align": Task(seconds=100, devices=8)}, [8])
    assert run == Run(seconds=100, taken_back=0, interrupted=0, repeated=0, restarting=0)


@pytest.mark.parametrize("seed", range(5))
def test_nodes_that_stay_give_the_time_that_the_plan_tells(seed: int) -> None:
    tasks = random_tasks(seed)
    for calm in (None, spot(per_hour=0.0)):
        run = simulate(tasks, [4.0, 4.0], concurrent=2, spot=calm)
        assert run.seconds == makespan(tasks, 8, concurrent=2)


def test_without_checkpoints_a_stage_takes_what_waiting_for_a_long_enough_calm_takes() -> None:
    rate, length = 1 / HOUR, 1.5 * HOUR
    found = runs(Task(seconds=length, devices=1), [1])
    # The mean of 1,500 is within 3 standard errors, of about 2 %.
    assert seconds_of(found) == pytest.approx(math.expm1(rate * length) / rate, rel=0.07)
    # All that is not the last, whole attempt is work that is done again.
    again = math.expm1(rate * length) / rate - length
    assert mean(run.repeated for run in found) == pytest.approx(again, rel=0.1)


def test_with_checkpoints_it_takes_what_the_closed_form_says() -> None:
    away, restart, every = 300.0, 120.0, 600.0
    task = Task(seconds=1.5 * HOUR, devices=8, checkpoint_seconds=every)
    found = runs(task, [8], per_hour=2.0, away=away, restart=restart)
    expected = expected_seconds([every] * 9, 2 / HOUR, away, restart)
    assert seconds_of(found) == pytest.approx(expected, rel=0.02)
    # Each segment is begun until one goes well: of what that takes, its own length is not repeated.
    again = 9 * (math.expm1(every * 2 / HOUR) / (2 / HOUR) - every)
    assert mean(run.repeated for run in found) / 8 == pytest.approx(again, rel=0.05)


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    task = Task(seconds=2 * HOUR, devices=1)
    one, same, other = (simulate({"a": task}, [1], spot=spot(seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_a_gang_on_two_nodes_is_struck_twice_as_often_as_one_on_one() -> None:
    checkpointed = Task(seconds=HOUR, devices=8, checkpoint_seconds=1.0)
    one, two = (runs(checkpointed, nodes, 800) for nodes in ([8.0], [4.0, 4.0]))
    struck = [mean(run.interrupted for run in each) for each in (one, two)]
    assert struck == pytest.approx([1, 2], rel=0.08)


def test_a_stage_whose_node_went_takes_another_rather_than_wait_for_it() -> None:
    task = Task(seconds=HOUR, devices=8, checkpoint_seconds=60)
    alone, beside = (runs(task, nodes, 300, away=HOUR) for nodes in ([8.0], [8.0, 8.0]))
    assert seconds_of(alone) > 1.8 * HOUR
    assert seconds_of(beside) < 1.4 * HOUR


def test_an_elastic_stage_goes_on_with_what_is_left_and_ends_with_that() -> None:
    rigid = Task(seconds=HOUR, devices=8, checkpoint_seconds=1.0)
    elastic = Task(seconds=HOUR, devices=8, checkpoint_seconds=1.0, fewer=[4.0])
    nodes, seed, away = [4.0, 4.0], 3, 100 * HOUR
    assert simulate({"a": elastic}, [8.0], spot=spot(seed, away=away)).interrupted == 1
    wide, narrow = (
        simulate({"a": task}, nodes, spot=spot(seed, per_hour=0.5, away=away))
        for task in (rigid, elastic)
    )
    assert wide.seconds > away  # until the node is back
    assert HOUR < narrow.seconds < 2 * HOUR + 1


def test_stages_that_share_a_device_fall_with_their_node_together() -> None:
    tasks = {f"features {i}": Task(seconds=2 * HOUR, devices=0.5) for i in range(4)}
    found = [simulate(tasks, [1.0, 1.0], spot=spot(seed)) for seed in range(50)]
    assert {run.interrupted % 2 for run in found} == {0} and any(r.interrupted for r in found)
