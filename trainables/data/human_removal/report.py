"""What was made, for people and for sweeps: report.html, clips.csv, catalog.yaml."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainables.data.human_removal.one_clip import Outcome
from trainables.data.human_removal.settings import RemovalSettings
from trainables.data.manifests import Row
from trainables.data.whole_files import add_to_catalog, write_whole

WORST = 12  # clips that the report shows
KEPT = ("removed", "no_people")
MEANING = {
    "removed": "people were removed",
    "no_people": "nobody was found: the clip is as it was",
    "dropped": "somebody is still found after all attempts: the clip is left out",
    "refused": "the clip or its masks cannot be used",
}
STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:1500px}td,th{padding:2px 9px;text-align:left}"
)


@dataclass(frozen=True, kw_only=True)
class Totals:
    clips: Mapping[str, int]  # of each state
    again: int  # of all, done more than once
    frames: int  # of the clips that are kept, as the rest
    leak_rate: float  # share of frames with somebody found for sure
    hits: tuple[int, int]  # before and after
    hits_in_holes: tuple[int, int]
    flicker: tuple[float | None, float | None]  # mean over clips with holes in neighbouring frames


def totals(outcomes: Sequence[Outcome]) -> Totals:
    kept = [each for each in outcomes if each.state in KEPT]
    frames = sum(each.frames for each in kept)

    def both(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
        before, after = zip(*pairs, strict=True) if kept else ((), ())
        return sum(before), sum(after)

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return Totals(
        clips=dict(Counter(each.state for each in outcomes)),
        again=sum(each.attempts > 1 for each in outcomes),
        frames=frames,
        leak_rate=sum(each.leak_rate * each.frames for each in kept) / max(frames, 1),
        hits=both(each.hits for each in kept),
        hits_in_holes=both(each.hits_in_holes for each in kept),
        flicker=(
            mean([each.flicker[0] for each in kept]),
            mean([each.flicker[1] for each in kept]),
        ),
    )


def write_manifest(into: Path, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
    """clips.csv: the rows of the clips that are kept, with the columns that have values."""
    kept = {each.path for each in outcomes if each.state in KEPT}
    columns = [name for name in Row._fields if all(getattr(row, name) for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(row, c) for c in columns] for row in rows if row.path in kept)
    write_whole(into / "clips.csv", text.getvalue().encode())


def write_catalog(
    into: Path,
    name: str,
    settings: RemovalSettings,
    outcomes: Sequence[Outcome],
    frame_rate: float | None,
    licence: str | None,
) -> None:
    """catalog.yaml with one dataset. Its version holds settings, content of sources and masks."""
    content = json.dumps(
        [[each.path, each.state, each.source_sha256, each.masks_sha256] for each in outcomes]
    )
    entry: dict[str, Any] = {"clips": "clips.csv", "root": "clips", "humans": "removed"}
    if frame_rate is not None:
        entry["frame_rate"] = frame_rate
    entry["version"] = f"{settings}, sources {hashlib.sha256(content.encode()).hexdigest()[:16]}"
    entry["leak_rate"] = round(totals(outcomes).leak_rate, 5)
    if licence:
        entry["licence"] = licence
    add_to_catalog(into / "catalog.yaml", name, entry, kept=("licence",))


def write_report(into: Path, settings: RemovalSettings, outcomes: Sequence[Outcome]) -> None:
    """report.html: the totals, the worst clips as pictures, and all that is not kept."""
    total = totals(outcomes)
    lines = [
        f"<!doctype html><meta charset=utf-8><title>Human removal</title><style>{STYLE}</style>",
        f"<h1>Human removal</h1><p>{escape(str(settings))}</p><table>",
        *(
            f"<tr><td>{total.clips[state]:,}<td>{state}<td>{meaning}"
            for state, meaning in MEANING.items()
            if total.clips.get(state)
        ),
        "</table><p>" + "<br>".join(escape(line) for line in sentences(total)),
        "<h2>The worst</h2><p>By the share of frames in which somebody is found again and again. "
        "Above: before, holes in yellow. Below: after. Red: what the detector finds.",
    ]
    made = [each for each in outcomes if each.state != "refused"]
    for each in sorted(made, key=lambda one: (-one.leak_rate, -one.hits_in_holes[1], one.path))[
        :WORST
    ]:
        lines.append(
            f"<h3>{escape(each.path)}</h3><p>{each.state}, leak {each.leak_rate:.3f}, "
            f"attempt {each.attempts}, {each.hits[0]} hits before and {each.hits[1]} after"
            f'<br><img src="sheets/{quote(each.path)}.jpg" alt="before and after">'
        )
    if lost := [each for each in outcomes if each.state not in KEPT]:
        rows = (f"<tr><td>{escape(x.path)}<td>{x.state}<td>{escape(x.reason)}" for x in lost)
        lines += ["<h2>Not kept</h2><table>", *rows, "</table>"]
    write_whole(into / "report.html", ("\n".join(lines) + "\n").encode())


def sentences(total: Totals) -> list[str]:
    """The totals, in words; all but those of clips done again are of the kept ones."""
    lines = [
        f"leak rate {total.leak_rate:.4f}: share of {total.frames:,} frames in which the detector "
        "finds somebody again and again",
        f"boxes found: {total.hits[0]:,} before, {total.hits[1]:,} after; on the holes "
        f"{total.hits_in_holes[0]:,} before, {total.hits_in_holes[1]:,} after",
    ]
    if total.again:
        lines.append(
            f"{total.again:,} clips done again, with wider holes, for somebody was still found"
        )
    before, after = total.flicker
    if before is not None and after is not None:
        lines.append(f"flicker in the holes: {before:.2f} grey values before, {after:.2f} after")
    return lines
