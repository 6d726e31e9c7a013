from __future__ import annotations

import pytest

from trainables.data.batch_order import Pairing, batch_order, shard
from trainables.data.mixture import Mixture

PAIRINGS: list[Pairing] = ["within_source", "across_sources"]


def mixture(**changes: object) -> Mixture:
    settings: dict = {
        "sizes": {"a": 30, "b": 40, "c": 50},
        "shares": {"a": 0.5, "b": 0.3, "c": 0.2},
        "granularity": "clip",
        "batch_size": 24,
        "seed": 3,
        "total": 24 * 100,
    }
    return Mixture(**{**settings, **changes})


def pairs_of(order: list[int]) -> list[tuple[int, int]]:
    return list(zip(order[::2], order[1::2], strict=False))


@pytest.mark.parametrize("pairing", [None, *PAIRINGS])
@pytest.mark.parametrize("granularity", ["clip", "batch"])
@pytest.mark.parametrize(("batch_size", "views"), [(24, 1), (25, 1), (24, 4), (25, 5)])
def test_the_order_leaves_a_batch_its_views(
    pairing: Pairing, granularity: str, batch_size: int, views: int
) -> None:
    stream = mixture(granularity=granularity, batch_size=batch_size, views_per_clip=views)
    for step in range(30):
        order = batch_order(stream, step, pairing)
        whole = list(range(step * batch_size, (step + 1) * batch_size))
        assert sorted(order) == whole
        assert (order == whole) == (pairing is None)


@pytest.mark.parametrize("batch_size", [24, 25])
def test_partners_are_of_one_source_and_those_without_stand_at_the_end(batch_size: int) -> None:
    stream, left = mixture(batch_size=batch_size), set()
    for step in range(30):
        order = [stream.source_index(i) for i in batch_order(stream, step, "within_source")]
        odd = {source for source in order if order.count(source) % 2}
        paired = len(order) - len(odd)
        assert all(order[i] == order[i + 1] for i in range(0, paired, 2))
        assert set(order[paired:]) == odd
        left.add(len(odd))
    assert len(left) > 1


def test_partners_across_sources_are_of_any_source_even_where_the_mixture_is_periodic() -> None:
    # Half a batch is two periods a, b: taken as drawn, every clip would meet its own source.
    stream = mixture(shares={"a": 0.5, "b": 0.5}, batch_size=8)
    crossing = total = 0
    for step in range(100):
        order = batch_order(stream, step, "across_sources")
        for one, other in pairs_of(order):
            crossing += stream.source_index(one) != stream.source_index(other)
            total += 1
    assert 0.5 < crossing / total < 0.64  # 4 of the 7 others are of the other source: 0.571


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("batch_size", "views"), [(24, 4), (24, 2), (25, 5)])
def test_views_of_one_clip_are_no_partners(pairing: Pairing, batch_size: int, views: int) -> None:
    stream = mixture(batch_size=batch_size, views_per_clip=views)
    met = 0
    for step in range(60):
        order = batch_order(stream, step, pairing)
        of_source: dict[int, set[int]] = {}
        for index in order:
            of_source.setdefault(stream.source_index(index), set()).add(index // views)
        for one, other in pairs_of(order):
            same_source = stream.source_index(one) == stream.source_index(other)
            if not same_source or len(of_source[stream.source_index(one)]) > 1:
                assert one // views != other // views
                met += 1
    assert met > 100


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_order_is_a_function_of_seed_and_step(pairing: Pairing) -> None:
    orders = [batch_order(mixture(), step, pairing) for step in range(5)]
    assert orders[::-1] == [batch_order(mixture(), step, pairing) for step in range(4, -1, -1)]


def test_who_meets_whom_across_sources_changes_with_seed_and_step() -> None:
    def places(seed: int, step: int) -> list[int]:
        return [i % 24 for i in batch_order(mixture(seed=seed), step, "across_sources")]

    assert len({tuple(places(seed, step)) for seed in range(3) for step in range(5)}) == 15


@pytest.mark.parametrize("pairing", [None, *PAIRINGS])
@pytest.mark.parametrize("size", [24, 25, 7])
def test_ranks_cut_a_batch_in_even_parts_and_never_a_pair(pairing: Pairing, size: int) -> None:
    order = batch_order(mixture(batch_size=size), 2, pairing)
    for ranks in (1, 2, 3):
        parts = [shard(order, rank, ranks, pairing) for rank in range(ranks)]
        assert [index for part in parts for index in part] == order
        assert max(map(len, parts)) - min(map(len, parts)) <= (1 if pairing is None else 3)
        assert pairing is None or all(len(part) % 2 == 0 for part in parts[:-1])
