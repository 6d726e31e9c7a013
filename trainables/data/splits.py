"""Cutting a list of clips into splits so that a group never stands on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence


def cut_by_group(
    groups: Sequence[str], labels: Sequence[int], fractions: Mapping[str, float], name: str
) -> list[str]:
    """The split of each clip; same arguments, same cut (the order of clips does not matter).

    Whole groups are dealt to the split that lacks most of their classes, so each class comes near
    its fractions. Then groups move so that no class is missing from train and no split is empty,
    where that can be had.

    Args:
        groups: group of each clip (person, film, recording session).
        labels: class of each clip.
        fractions: of the clips, per split; "train" is one of them; they sum to 1.
        name: of the dataset, which seeds the cut and stands in the error.

    Raises:
        ValueError: fewer groups than splits.
    """
    content: dict[str, Counter[int]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        content[group][label] += 1
    if len(content) < len(fractions):
        raise ValueError(
            f"dataset {name!r} is too small for its split: {len(groups)} clips in {len(content)} "
            f"groups cannot fill {len(fractions)} splits ({', '.join(fractions)}); add groups, "
            "ask for fewer splits, or give a `group` that is finer"
        )
    split_of = _deal(content, Counter(labels), fractions, name)
    _cover_classes(content, split_of)
    _fill_empty(content, split_of, fractions)
    return [split_of[group] for group in groups]


def _deal(
    content: Mapping[str, Counter[int]],
    class_sizes: Counter[int],
    fractions: Mapping[str, float],
    name: str,
) -> dict[str, str]:
    """Largest groups first, each to the split with the greatest need of its classes."""
    lacking = {
        split: {label: fraction * size for label, size in class_sizes.items()}
        for split, fraction in fractions.items()
    }

    def order(group: str) -> tuple[int, str]:
        shuffle = hashlib.sha256(f"{name}\0{group}".encode()).hexdigest()
        return (-content[group].total(), shuffle)

    split_of = {}
    for group in sorted(content, key=order):
        counts = content[group]

        def need(split: str, counts: Counter[int] = counts) -> float:
            return sum(
                lacking[split][label] * count / class_sizes[label] ** 2
                for label, count in counts.items()
            )

        chosen = max(fractions, key=need)
        split_of[group] = chosen
        for label, count in counts.items():
            lacking[chosen][label] -= count
    return split_of


def _cover_classes(content: Mapping[str, Counter[int]], split_of: dict[str, str]) -> None:
    """Moves a group into train for each class that only stands elsewhere."""
    covered = {label for group in content if split_of[group] == "train" for label in content[group]}
    for group in sorted(content, key=lambda group: (content[group].total(), group)):
        if not covered.issuperset(content[group]):
            split_of[group] = "train"
            covered.update(content[group])


def _fill_empty(
    content: Mapping[str, Counter[int]], split_of: dict[str, str], fractions: Mapping[str, float]
) -> None:
    """Gives each empty split the smallest group that can be spared.

    Never the last group of a split; one whose classes all stay in train where there is such.
    """
    for split in fractions:
        if split in split_of.values():
            continue
        sizes = Counter(split_of.values())
        train = [group for group in content if split_of[group] == "train"]
        holders = Counter(label for group in train for label in content[group])

        def cost(group: str, holders: Counter[int] = holders) -> tuple[bool, int, str]:
            in_train = split_of[group] == "train"
            uncovers = in_train and any(holders[label] == 1 for label in content[group])
            return uncovers, content[group].total(), group

        moved = min((group for group in content if sizes[split_of[group]] > 1), key=cost)
        split_of[moved] = split
