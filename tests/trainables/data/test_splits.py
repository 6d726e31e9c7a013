from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from trainables.data.splits import cut_by_group

THREE = {"train": 0.6, "selection": 0.2, "report": 0.2}


def test_a_group_is_never_on_both_sides_and_each_class_comes_near_its_fractions() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 60, 900)]
    labels = rng.integers(0, 5, 900).tolist()
    splits = cut_by_group(groups, labels, THREE, "set")
    sides = {(group, split) for group, split in zip(groups, splits, strict=True)}
    assert len(sides) == len(set(groups))
    for label in range(5):
        counts = Counter(s for s, mine in zip(splits, labels, strict=True) if mine == label)
        for split, fraction in THREE.items():
            assert counts[split] / counts.total() == pytest.approx(fraction, abs=0.08)


def test_the_cut_depends_on_the_name_and_the_content_and_not_on_the_order() -> None:
    groups = [f"g{i // 2}" for i in range(40)]
    labels = [i % 2 for i in range(40)]
    cut = cut_by_group(groups, labels, THREE, "set")
    assert cut == cut_by_group(groups, labels, THREE, "set")
    assert cut[::-1] == cut_by_group(groups[::-1], labels[::-1], THREE, "set")
    assert cut != cut_by_group(groups, labels, THREE, "other")


def test_no_class_is_missing_from_train_and_no_split_is_empty_where_that_can_be_had() -> None:
    rng = np.random.default_rng(3)
    for trial in range(200):
        # One class for each group, each class in one to three groups.
        owners = rng.permutation(np.repeat(np.arange(5), rng.integers(1, 4, 5)))
        groups = [f"g{i}" for i in range(len(owners)) for _ in range(rng.integers(1, 6))]
        labels = [int(owners[int(group[1:])]) for group in groups]
        fractions = {"train": 0.3, "selection": 0.3, "report": 0.4}
        if len(owners) < 7:
            continue  # two of 7 groups can always be spared
        splits = cut_by_group(groups, labels, fractions, f"set {trial}")
        classes = {
            split: {label for s, label in zip(splits, labels, strict=True) if s == split}
            for split in fractions
        }
        assert all(classes.values())
        assert classes["report"] | classes["selection"] <= classes["train"]


def test_three_groups_fill_three_splits() -> None:
    assert sorted(cut_by_group(["a", "b", "c"], [0, 0, 0], THREE, "set")) == sorted(THREE)


def test_fewer_groups_than_splits_is_an_error_with_counts_and_remedy() -> None:
    with pytest.raises(ValueError, match=r"'set' is too small .* 4 clips in 2 groups .*add groups"):
        cut_by_group(["a", "a", "b", "b"], [0, 1, 0, 1], THREE, "set")
