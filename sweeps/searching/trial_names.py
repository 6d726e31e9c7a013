"""What a trial is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.records import TrialRecord


def trial_name(record: TrialRecord) -> str:
    """The given name, or what was suggested in a few words: '0.1 synthetic + 0.9 scenes'."""
    return record.name or settings_in_words(record.values)


def settings_in_words(values: Mapping[str, Any]) -> str:
    """Dotted paths and values: '0.1 synthetic + 0.9 scenes, align.epochs 2'."""
    mixed = [in_words(value) for value in values.values() if isinstance(value, Mapping)]
    others = [
        f"{'.'.join(path.split('.')[-2:])} {f'{value:g}' if isinstance(value, float) else value}"
        for path, value in values.items()
        if not isinstance(value, Mapping)
    ]
    return ", ".join([*mixed, *others])


def in_words(shares: Mapping[str, Any]) -> str:
    """A mix: '0.1 synthetic + 0.9 scenes'."""
    return " + ".join(f"{float(share):g} {source}" for source, share in shares.items() if share)
