from __future__ import annotations

import hashlib
from decimal import Decimal

import numpy as np
import pytest

from trainables.data.mixture import (
    Mixture,
    largest_remainder,
    parse_shares,
    quota_pattern,
    round_shares,
)


def mixture(**changes: object) -> Mixture:
    settings: dict = {
        "sizes": {"real": 7, "virtual": 20},
        "shares": {"real": 0.3, "virtual": 0.7},
        "granularity": "clip",
        "batch_size": 4,
        "seed": 5,
        "total": 4000,
    }
    return Mixture(**{**settings, **changes})


def random_shares(rng: np.random.Generator) -> dict[str, Decimal]:
    places = int(rng.choice([10, 100, 1000, 10_000]))
    cuts = np.sort(rng.integers(0, places + 1, rng.integers(0, 5)))
    parts = np.diff([0, *cuts, places])
    return {f"s{i}": Decimal(int(part)) / places for i, part in enumerate(parts)}


def test_a_share_of_029_of_100_is_29_clips() -> None:
    assert largest_remainder({"a": 0.29, "b": 0.71}, 100) == {"a": 29, "b": 71}
    drawn = mixture(shares={"real": 0.29, "virtual": 0.71}).counts(0, 100)
    assert drawn == {"real": 29, "virtual": 71}


def test_largest_remainder_sums_to_the_total_and_is_within_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shares, total = random_shares(rng), int(rng.integers(0, 500))
        counts = largest_remainder(shares, total)
        assert sum(counts.values()) == total
        assert all(abs(counts[name] - shares[name] * total) < 1 for name in shares)


@pytest.mark.parametrize("granularity", ["clip", "batch"])
def test_what_is_drawn_does_not_depend_on_the_length_of_the_run(granularity: str) -> None:
    shorter, longer = (
        mixture(total=total, granularity=granularity, match_repetition=True) for total in (60, 4000)
    )
    assert [shorter.draw(i) for i in range(60)] == [longer.draw(i) for i in range(60)]


def test_rounded_shares_are_exact_and_proportional() -> None:
    assert round_shares({"a": 1, "b": 1, "c": 1}) == {
        "a": Decimal("0.3334"),
        "b": Decimal("0.3333"),
        "c": Decimal("0.3333"),
    }
    assert parse_shares(round_shares({"a": 0.1234567, "b": 0.7, "c": 0.0}))["c"] == 0


def test_every_prefix_is_within_one_unit_of_its_share_for_any_number_of_sources() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        shares = random_shares(rng)
        pattern = quota_pattern(shares)
        wanted = np.array([float(shares[name]) for name in sorted(shares)])
        counts = (np.tile(pattern, 2)[:, None] == np.arange(len(wanted))).cumsum(0)
        prefix = np.arange(1, len(counts) + 1)[:, None]
        assert np.abs(counts - prefix * wanted).max() < 1 - 1e-9
        assert (counts[len(pattern) - 1] == np.round(len(pattern) * wanted)).all()


def test_the_pattern_is_no_longer_than_the_shares_need() -> None:
    assert quota_pattern({"a": 0.5, "b": 0.5}).tolist() == [0, 1]
    assert len(quota_pattern({"a": 0.25, "b": "0.35", "c": 0.4})) == 20


@pytest.mark.parametrize("share", [0, 1])
def test_shares_of_0_and_1_are_legal(share: int) -> None:
    stream = mixture(shares={"real": share, "virtual": 1 - share})
    assert stream.counts(0, 4000)["real"] == 4000 * share
    assert {stream.draw(i).source for i in range(50)} == {"real" if share else "virtual"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.5, "b": 0.4}, r"sum to 0\.9 \(a: 0\.5, b: 0\.4\); they must sum to 1"),
        ({"a": -0.5, "b": 1.5}, r"'a' is -0\.5; it must be between 0 and 1"),
        ({"a": 0.33333, "b": 0.66667}, "at most 4 decimal places"),
        ({"a": "half", "b": 0.5}, "'a' is 'half'; it must be a number"),
        ({"a": float("nan")}, "'a' is nan"),
        ({}, "none given"),
    ],
)
def test_bad_shares_are_refused_with_the_reason(shares: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_shares(shares)


def test_shares_of_an_unknown_or_empty_source_are_refused() -> None:
    with pytest.raises(ValueError, match="'rael', which is no source; sources are real, virtual"):
        mixture(shares={"rael": 1})
    with pytest.raises(ValueError, match="'real' has no training clips"):
        mixture(sizes={"real": 0, "virtual": 5})


def test_the_counts_are_those_of_the_draws_at_every_prefix() -> None:
    for granularity in ("clip", "batch"):
        stream = mixture(granularity=granularity)
        seen = {"real": 0, "virtual": 0}
        for index in range(170):
            assert stream.counts(0, index) == seen
            seen[stream.draw(index).source] += 1
        late = mixture(granularity=granularity).counts(33, 170)
        early = stream.counts(0, 33)
        assert {name: early[name] + late[name] for name in seen} == seen


def test_a_batch_comes_from_one_source_where_the_granularity_is_a_batch() -> None:
    stream = mixture(granularity="batch")
    sources = [[stream.draw(4 * step + i).source for i in range(4)] for step in range(40)]
    assert all(len(set(batch)) == 1 for batch in sources)
    for step in range(1, 41):
        real = sum(batch[0] == "real" for batch in sources[:step])
        assert abs(real - 0.3 * step) < 1


def test_no_clip_is_used_again_before_all_were_used() -> None:
    stream = mixture()
    order = [d.clip for d in map(stream.draw, range(1000)) if d.source == "real"]
    passes = [order[i : i + 7] for i in range(0, len(order) - 7, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) > 30  # freshly shuffled


def test_a_draw_depends_on_the_seed_and_the_index_alone() -> None:
    forward = [mixture().draw(i) for i in range(300)]
    stream = mixture(total=9999)
    backward = [stream.draw(i) for i in reversed(range(300))]
    assert forward == backward[::-1]
    assert forward != [mixture(seed=6).draw(i) for i in range(300)]
    assert len({draw.seed for draw in forward}) == 300


def test_the_order_of_the_keys_does_not_show() -> None:
    turned = mixture(
        sizes={"virtual": 20, "real": 7}, shares={"virtual": Decimal("0.7"), "real": "0.3"}
    )
    assert [turned.draw(i) for i in range(100)] == [mixture().draw(i) for i in range(100)]


def test_replacements_are_all_the_other_clips_of_the_source_once() -> None:
    stream = mixture()
    first = next(d for d in map(stream.draw, range(9)) if d.source == "real")
    index = next(i for i in range(9) if stream.draw(i) == first)
    others = [stream.replacement(index, attempt) for attempt in range(1, 7)]
    assert {d.source for d in others if d} == {"real"}
    assert sorted([first.clip, *(d.clip for d in others if d)]) == list(range(7))
    assert stream.replacement(index, 7) is None
    assert mixture().replacement(index, 2) == others[1]


def test_matched_repetition_is_the_same_for_all_sources_and_all_shares() -> None:
    sizes = {"real": 100, "virtual": 900}
    plain = mixture(sizes=sizes).repetition(4000)
    assert plain == {"real": 12.0, "virtual": pytest.approx(3.111, abs=1e-3)}
    for share in (0, 0.1, 0.5, 0.77, 1):
        shares = {"real": share, "virtual": round(1 - share, 2)}
        stream = mixture(sizes=sizes, shares=shares, match_repetition=True)
        used = {(d.source, d.clip) for d in map(stream.draw, range(4000))}
        assert len(used) == 100
        assert all(value in (0, 40) for value in stream.repetition(4000).values())


def test_one_view_a_clip_is_the_stream_that_the_first_results_came_from() -> None:
    # Computed with the code of commit 081a12b, before clips had views.
    draws = [
        (draw.source, draw.clip, draw.seed)
        for granularity in ("clip", "batch")
        for draw in map(mixture(granularity=granularity).draw, range(1000))
    ]
    digest = hashlib.sha256(repr(draws).encode()).hexdigest()
    assert digest == "aaf52c2167eb2795b6fe854f0e43175b724d33b7d3b263a82dddf2bad42136b2"
    stand_in = mixture().replacement(5, 2)
    assert stand_in is not None
    assert (stand_in.clip, stand_in.seed) == (2, 6881538501960116164)


@pytest.mark.parametrize("granularity", ["clip", "batch"])
def test_views_of_a_clip_are_runs_that_differ_in_their_seeds_alone(granularity: str) -> None:
    stream = mixture(granularity=granularity, batch_size=12, views_per_clip=4, total=2400)
    draws = [stream.draw(index) for index in range(2400)]
    runs = [draws[i : i + 4] for i in range(0, 2400, 4)]
    assert all(len({(d.source, d.clip, d.clip_seed) for d in run}) == 1 for run in runs)
    assert all(run[0].seed == run[0].clip_seed for run in runs)
    assert len({draw.seed for draw in draws}) == 2400
    assert len({run[0].clip_seed for run in runs}) == 600
    # No clip comes again before all have come, views or not.
    order = [run[0].clip for run in runs if run[0].source == "real"]
    assert all(sorted(order[i : i + 7]) == list(range(7)) for i in range(0, len(order) - 7, 7))


def test_with_views_the_unit_of_exactness_is_a_clip_with_all_its_views() -> None:
    stream = mixture(batch_size=12, views_per_clip=4)
    seen = {"real": 0, "virtual": 0}
    for index in range(200):
        assert stream.counts(0, index) == seen
        seen[stream.draw(index).source] += 1
        assert abs(seen["real"] - 0.3 * (index + 1)) < 4
    assert stream.counts(0, 400)["real"] == 120
    # Views count as uses of the clip.
    assert stream.repetition(400)["real"] == pytest.approx(120 / 7)


def test_a_batch_of_one_source_holds_all_views_of_its_clips() -> None:
    stream = mixture(granularity="batch", batch_size=12, views_per_clip=4)
    for step in range(20):
        draws = [stream.draw(12 * step + i) for i in range(12)]
        assert len({draw.source for draw in draws}) == 1
        assert len({draw.clip_seed for draw in draws}) == 3


def test_all_views_of_an_unreadable_clip_get_the_same_stand_in() -> None:
    stream = mixture(batch_size=12, views_per_clip=4)
    for first in range(0, 48, 4):
        for attempt in (1, 2):
            run = [stream.replacement(index, attempt) for index in range(first, first + 4)]
            assert len({(d.source, d.clip, d.clip_seed) for d in run if d}) == 1
            assert len({d.seed for d in run if d}) == 4
            assert run[0].clip != stream.draw(first).clip


@pytest.mark.parametrize("granularity", ["clip", "batch"])
def test_a_batch_that_would_cut_a_clip_from_its_views_is_refused(granularity: str) -> None:
    message = "optimizer.batch_size 6 is not a multiple of views_per_clip 4"
    with pytest.raises(ValueError, match=message):
        mixture(granularity=granularity, batch_size=6, views_per_clip=4)
