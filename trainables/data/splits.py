"""Cutting a list of clips into splits so that a group never stands on both sides."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from trainables.data.manifests import Row


def group_in(name: str, row: Row, pattern: str | None) -> str:
    """The group of a clip: what `pattern` captures of its path, or what its manifest says.

    Raises:
        ValueError: a pattern that is no regex, captures nothing, or is given beside groups.
    """
    if pattern is None:
        return row.group
    if row.group:
        raise ValueError(f"dataset {name!r}: groups stand in the manifest and in `group`; keep one")
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"dataset {name!r}: group {pattern!r} is no regex: {error}") from None
    named = "group" in regex.groupindex
    if regex.groups != 1 and not named:
        raise ValueError(
            f"dataset {name!r}: group {pattern!r} needs one (capture), or one that is called "
            "(?P<group>...)"
        )
    match = regex.search(row.path)
    group = match["group" if named else 1] if match else None
    if not group:
        raise ValueError(f"dataset {name!r}: group {pattern!r} finds nothing in {row.path}")
    return group


def assign_splits(
    name: str,
    rows: Sequence[Row],
    labels: Sequence[int],
    asked: Mapping[str, float],
) -> list[str]:
    """The split of each row: as listed, cut by group where that is `asked` for.

    Args:
        name: of the dataset, which seeds the cut and stands in errors.
        asked: split -> fraction; `{"selection": f}` cuts the training clips that are listed;
            empty: nothing is cut.

    Raises:
        ValueError: fractions that make no sense beside what the manifests list.
    """
    splits = [row.split or "train" for row in rows]
    if not asked:
        return splits
    fractions = dict(asked)
    shown = f"dataset {name!r}: split {fractions}"
    if any(not 0 < fraction < 1 for fraction in fractions.values()):
        raise ValueError(f"{shown} has a part that is not between 0 and 1; correct or drop it")
    if set(fractions) == {"selection"}:
        if "selection" in splits:
            raise ValueError(f"{shown}, but clips are listed as selection; drop one of the two")
        fractions = {"train": 1 - fractions["selection"], **fractions}
    elif any(row.split for row in rows):
        raise ValueError(
            f"{shown}, but the manifests list splits; only {{selection: ...}} can be cut then"
        )
    elif "train" not in fractions or abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(f"{shown} must name train and sum to 1, or be {{selection: ...}} alone")
    cut = [i for i, split in enumerate(splits) if split == "train"]
    # Without a group a clip stands for itself.
    parts = cut_by_group(
        [rows[i].group or rows[i].path for i in cut], [labels[i] for i in cut], fractions, name
    )
    for i, part in zip(cut, parts, strict=True):
        splits[i] = part
    return splits


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
    content = _content(groups, labels)
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


def folds_by_group(
    groups: Sequence[str], labels: Sequence[int], count: int, name: str
) -> list[int]:
    """The fold, 0 to `count` - 1, of each clip: whole groups, each class spread over the folds.

    Raises:
        ValueError: fewer groups than folds.
    """
    content = _content(groups, labels)
    if len(content) < count:
        raise ValueError(
            f"dataset {name!r}: {len(labels)} clips in {len(content)} groups cannot fill {count} "
            "folds; add groups, give a `group` that is finer, or ask for fewer folds"
        )
    fractions = {str(fold): 1 / count for fold in range(count)}
    fold_of = _deal(content, Counter(labels), fractions, name)
    sizes = Counter(fold_of.values())
    for fold in fractions:
        if not sizes[fold]:  # the smallest group of the fold with the most
            most = max(sizes, key=lambda each: (sizes[each], each))
            there = [group for group in content if fold_of[group] == most]
            fold_of[min(there, key=lambda group: (content[group].total(), group))] = fold
            sizes = Counter(fold_of.values())
    return [int(fold_of[group]) for group in groups]


def _content(groups: Sequence[str], labels: Sequence[int]) -> dict[str, Counter[int]]:
    content: dict[str, Counter[int]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        content[group][label] += 1
    return content


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
