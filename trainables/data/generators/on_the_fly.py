"""A dataset whose clips an exported program draws while they are trained on: there are no files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from trainables.data.manifests import Humans
from trainables.settings import Settings

if TYPE_CHECKING:
    from trainables.data.generators.exported import ExportedProgram

MOST_CLIPS = 1_000_000


class GeneratedSettings(Settings):
    """An entry `{generator: flow.pt2, clips: 100000, heldout_clips: 0, seed: 0}` of a catalog.

    The file is code that runs with your rights. A clip is G(z), its view of any scale is
    G(z + scale w), with z and w from the seed and the clip's number.
    """

    generator: str
    # As many different ones as there may be. More than a run draws: no clip is drawn twice.
    clips: Annotated[int, Field(ge=1, le=MOST_CLIPS)]
    heldout_clips: Annotated[int, Field(ge=0, le=MOST_CLIPS)]
    seed: Annotated[int, Field(ge=0)]
    # What a program of `train` says itself:
    humans: Humans | None = None
    classes: list[str] | None = None
    frames_per_second: int | None = None
    licence: str | None = None


def program_of(name: str, entry: GeneratedSettings, path: Path) -> tuple[ExportedProgram, Humans]:
    """And whom its clips show.

    Raises:
        ValueError: the file is no exported program; the entry does not say what is to be known of
            it, or something else than the program does.
    """
    from trainables.data.generators import exported  # needs torch, as planning does not

    program = exported.program_at(
        path,
        f"datasets.{name}",
        seed=entry.seed,
        clips=entry.clips,
        heldout_clips=entry.heldout_clips,
        classes=entry.classes or (),
        frames_per_second=entry.frames_per_second,
        crf=0,  # nothing is encoded
    )
    humans = program.humans(entry.humans)
    if humans is None:
        raise ValueError(
            f"dataset {name!r}: {path} does not say what it has learnt from; give its catalog "
            "entry `humans`: virtual, removed, none or real"
        )
    return program, humans
