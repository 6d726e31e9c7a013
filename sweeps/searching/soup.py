"""A greedy soup of a finished sweep: of which trials, and the settings that make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables import pretraining_descriptions as stages
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.settings import Settings, parse, with_overrides
from trainables.stage import Stage
from trainables.trial import start_of_alignment

OTHER_CLIPS = "match_repetition would draw other clips beside the soup's other sources"


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    number: int
    trial: TrialConfig
    score: float | None  # null: it failed or was pruned


@dataclass(frozen=True, kw_only=True)
class Soup:
    """`values` (dotted path -> value), laid over the settings of trial `base`, are the soup's.

    Where fewer than two trials are left there is no soup: `values` is empty.
    """

    base: int | None  # null: no trial is complete and aligned
    members: list[int]  # best first; endpoint wi of the soup is the alignment of members[i]
    values: dict[str, Any]
    refused: list[tuple[int, str]]  # trial, why

    def in_words(self) -> str:
        """Of what it is made, and what was refused and why."""
        refused = "".join(f"; trial {number} {why}" for number, why in self.refused)
        if not self.values:
            return f"greedy soup: fewer than two trials can be in it{refused}"
        members = ", ".join(map(str, self.members))
        return f"greedy soup: of the weights of trials {members}{refused}"


def soup_of(trials: Sequence[FinishedTrial], data: Mapping[str, Dataset]) -> Soup:
    """The alignments that share the best trial's start, each once, as endpoints of a soup.

    The best trial is the complete one with the highest score of those that were aligned; the
    earlier of two equals. Its start is what alignment started from: stage 1's weights, or random
    or public ones; it follows from seed, model and clip too. Soups across starts are refused,
    as weights that share none lie in different basins (Wortsman et al. 2022).
    """
    complete = [t for t in trials if t.score is not None]
    ranked = sorted(complete, key=lambda t: (-(t.score or 0.0), t.number))
    best = next((t for t in ranked if t.trial.align.epochs), None)
    refused = [(t.number, "did not complete") for t in trials if t.score is None]
    members: dict[str, FinishedTrial] = {}  # identity of the alignment -> the best trial with it
    for one in ranked:
        reason = _reason_against(one.trial, best.trial, data) if best else "was not aligned"
        identity = _alignment(one.trial, data).identity
        if reason is None and identity in members:
            reason = f"has the alignment of trial {members[identity].number}"
        if reason is None:
            members[identity] = one
        else:
            refused.append((one.number, reason))
    while best and (other := _trained_otherwise(best.trial, list(members.values()), data)):
        for identity in other:
            refused.append((members.pop(identity).number, OTHER_CLIPS))
    return Soup(
        base=best.number if best else None,
        members=[one.number for one in members.values()],
        values=_values(best.trial, list(members.values())) if best and len(members) > 1 else {},
        refused=sorted(refused),
    )


def _values(best: TrialConfig, members: Sequence[FinishedTrial]) -> dict[str, Any]:
    endpoints = [differences(one.trial.align, best.align) for one in members]
    return {"average.method": "greedy_soup", "average.endpoints": endpoints}


def _trained_otherwise(
    best: TrialConfig, members: Sequence[FinishedTrial], data: Mapping[str, Dataset]
) -> list[str]:
    """The alignments that would be other ones as endpoints of the soup's trial.

    `match_repetition` draws on the sources that any endpoint of the trial names.
    """
    whole = with_overrides(best.model_dump(mode="json"), _values(best, members))
    soup = parse(TrialConfig, whole, "the soup")
    start = start_of_alignment(soup, data)
    found = [
        stages.align(soup, soup.endpoint(index), data, start).identity
        for index in range(len(members))
    ]
    was = [_alignment(one.trial, data).identity for one in members]
    return [identity for identity, now in zip(was, found, strict=True) if identity != now]


def _reason_against(
    trial: TrialConfig, best: TrialConfig, data: Mapping[str, Dataset]
) -> str | None:
    """Why `trial` cannot be in a soup with `best`, in words."""
    if not trial.align.epochs:
        return "was not aligned"
    if trial.average.method != "none":
        return "already an average"
    if (trial.model, trial.clip) != (best.model, best.clip):
        return "another model or clip"
    starts = [start_of_alignment(each, data).identity for each in (trial, best)]
    if starts[0] != starts[1]:
        return "another MAE ancestor"
    return None


def _alignment(trial: TrialConfig, data: Mapping[str, Dataset]) -> Stage:
    return stages.align(trial, trial.align, data, start_of_alignment(trial, data))


def differences(settings: Settings, base: Settings) -> dict[str, Any]:
    """Dotted path -> JSON value where `settings` differ from `base`; mappings come whole."""
    found: dict[str, Any] = {}
    described = settings.model_dump(mode="json")
    for name in type(settings).model_fields:
        here, there = getattr(settings, name), getattr(base, name)
        if here == there:
            continue
        if isinstance(here, Settings) and isinstance(there, Settings):
            found |= {f"{name}.{path}": value for path, value in differences(here, there).items()}
        else:
            found[name] = described[name]
    return found
