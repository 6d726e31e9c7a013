"""From the labels in a manifest to indices into a dataset's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.settings import nearest


def read_class_list(path: Path) -> list[str]:
    """One class a line. Raises ValueError if it cannot be read."""
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"class list {path}: cannot be read ({reason}); check `classes`") from None


def index_labels(
    labels: Sequence[str], listed: Sequence[str] | None, name: str
) -> tuple[tuple[str, ...], list[int]]:
    """The classes of dataset `name`, and each label's index into them.

    Labels that are all whole numbers are themselves the indices, unless `listed` names classes by
    number. Without a list the classes are the names in order, or the numbers from 0 to the largest.

    Raises:
        ValueError: a label that is not in the list, or a list that is empty or repeats a class.
    """
    numeric = all(label.isdecimal() for label in labels)
    if listed is None and numeric:
        listed = [str(index) for index in range(max(map(int, labels)) + 1)]
    elif listed is None:
        listed = sorted(set(labels))
    index_of = {label: index for index, label in enumerate(listed)}
    if not listed or len(index_of) < len(listed):
        raise ValueError(f"dataset {name!r}: `classes` must name each class once")
    if numeric and index_of.keys().isdisjoint(labels):
        index_of = {str(index): index for index in range(len(listed))}
        labels = [str(int(label)) for label in labels]
    for label in labels:
        if label not in index_of:
            raise ValueError(
                f"dataset {name!r}: label {label!r} is not in its {len(listed)} classes"
                f"{nearest(label, list(index_of))}"
            )
    return tuple(listed), [index_of[label] for label in labels]
