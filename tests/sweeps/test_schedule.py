from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from sweeps.planning.schedule import Task, critical_paths, makespan


def task(seconds: float, *waits_for: str, devices: float = 1, trials: tuple[int, ...] = ()) -> Task:
    return Task(seconds=seconds, devices=devices, waits_for=waits_for, trials=trials)


# Two trials on one stage 1, as small as it gets.
SHARED = {
    "mae": task(10),
    "align 0": task(4, "mae"),
    "align 1": task(6, "mae"),
    "probe 0": task(1, "align 0"),
    "probe 1": task(1, "align 1"),
}


def test_one_device_takes_the_sum_and_many_take_the_longest_chain() -> None:
    assert makespan(SHARED, 1) == 10 + 4 + 6 + 1 + 1
    assert makespan(SHARED, 2) == makespan(SHARED, 64) == 10 + 6 + 1


def test_who_unblocks_the_longest_chain_runs_first() -> None:
    tasks = {"a": task(6), "b": task(6), "long": task(6), "behind": task(12, "long")}
    assert critical_paths(tasks) == {"a": 6, "b": 6, "long": 18, "behind": 12}
    assert makespan(tasks, 2) == 18  # after a and b it would be 24
    other = {"a": task(3), "b": task(3), "c": task(2), "d": task(2), "e": task(2, "c")}
    assert makespan(other, 2) == 7  # c and a, b and e, d: by hand


def test_a_gang_waits_for_all_its_devices_and_is_not_overtaken() -> None:
    tasks = {"one": task(4), "gang": task(3, devices=2), "small": task(4, devices=1)}
    # The ones are longer and so stand first; the gang has to wait for both.
    assert makespan(tasks, 2) == 7
    assert makespan(tasks, 1) is None
    # At the head of the queue it is not starved by small ones, which would fit before.
    queue = {"long": task(20), "gang": task(15, devices=2), "small": task(5)}
    assert makespan(queue, 2) == 20 + 15 + 5


def test_stages_that_share_a_device_run_together_on_it() -> None:
    halves = {f"features {i}": task(2, devices=0.5) for i in range(4)}
    assert makespan(halves, 1) == 4
    assert makespan(halves, 2) == 2


def test_trials_at_a_time_bound_it_whatever_the_devices() -> None:
    tasks = {
        "mae": task(10, trials=(0, 1, 2)),
        **{f"align {i}": task(5, "mae", trials=(i,)) for i in range(3)},
    }
    assert makespan(tasks, 64) == 15
    assert makespan(tasks, 64, concurrent=1) == 10 + 5 * 3
    assert makespan(tasks, 64, concurrent=2) == 10 + 5 * 2


def test_what_is_finished_is_not_waited_for() -> None:
    assert makespan({"align": task(5, "a finished stage 1")}, 1) == 5
    assert makespan({}, 1) == 0


def test_it_is_within_grahams_bound_of_the_best_order() -> None:
    # List scheduling of tasks of one device each takes at most (2 - 1/m) times the optimum.
    rng = np.random.default_rng(0)
    for _ in range(30):
        seconds = [int(s) for s in rng.integers(1, 9, 5)]
        tasks = {f"t{i}": task(s, *([f"t{i - 2}"] if i > 2 else [])) for i, s in enumerate(seconds)}
        found = makespan(tasks, 2)
        assert found is not None
        best = min(in_order(tasks, order) for order in permutations(tasks))
        assert best <= found <= 1.5 * best


def in_order(tasks: dict[str, Task], order: tuple[str, ...]) -> float:
    """Seconds on two devices if each task, in this order, starts as soon as it can."""
    free, ends = [0.0, 0.0], dict[str, float]()
    for name in order:
        waits = tasks[name].waits_for
        if any(each not in ends for each in waits):
            return float("inf")
        free.sort()
        start = max([free[0], *(ends[each] for each in waits)])
        free[0] = ends[name] = start + tasks[name].seconds
    return max(ends.values())


@pytest.mark.parametrize("devices", [1, 3])
def test_more_trials_at_a_time_than_there_are_is_all_at_once(devices: int) -> None:
    tasks = {f"align {i}": task(5, trials=(i,)) for i in range(4)}
    assert makespan(tasks, devices, concurrent=9) == makespan(tasks, devices)
