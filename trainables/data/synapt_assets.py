"""The clips of SynAPT's three assets on disk, and what their names say.

The folders are laid out as github.com/mintjohnkim/SynAPT asks: `eldersim/` and `surreact/` hold
clips side by side, `phav/` one folder a class; a clip is a video file or a folder of its frames.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

VIDEOS = (".avi", ".mp4")
FOLDERS = ("eldersim", "surreact", "phav")
# Of a name without ending: which asset, the action's code, and who moves.
NAMES = {
    "eldersim": r"(?P<action>A\d{3})_(?P<person>P\d+)_G\d+_C\d+",
    "surreact ntu": r"S\d+C\d+(?P<person>P\d+)R\d+(?P<action>A\d+)_v\d+_r\d+",
    "surreact uestc": r"(?P<action>a\d+)_d\d+_(?P<person>p\d+)_c\d+_color\.avi_v\d+_r\d+",
    "phav": r"[^-]+-[^-]+-[^-]+-[^-]+-[^-]+-(?P<person>[^-]+)-.+",  # its action: the folder
}


class SynaptClip(NamedTuple):
    path: str  # below the folder of the assets, with forward slashes
    name: str  # without ending and without the lists' PRE_
    asset: str  # a key of NAMES
    action: str  # the asset's own code or class
    group: str  # who moves: a person, or PHAV's character
    is_folder: bool

    @property
    def folder(self) -> str:
        """One of FOLDERS: SURREACT's two parts are one of the three assets."""
        return self.path.split("/")[0]


def bare_name(name: str) -> str:
    """As lists and folders may both write it: no ending, no PRE_."""
    stem, ending = os.path.splitext(name)
    return (stem if ending in VIDEOS else name).removeprefix("PRE_")


def find_clips(assets: Path, tell: Callable[[str], None] = lambda line: None) -> list[SynaptClip]:
    """All clips below `assets`, in the order of their paths; `tell`: what each asset holds.

    Raises:
        ValueError: none of the three folders is there, or a clip in one is named unlike its asset.
    """
    there = [folder for folder in FOLDERS if (assets / folder).is_dir()]
    if not there:
        raise ValueError(
            f"{assets}: holds none of the folders {', '.join(FOLDERS)}; lay the downloads out so"
        )
    clips: list[SynaptClip] = []
    for folder in there:
        before = len(clips)
        if folder == "phav":
            classes = sorted(e.name for e in os.scandir(assets / folder) if e.is_dir())
            for action in classes:
                clips += [
                    _clip(entry, f"phav/{action}", action)
                    for entry in _entries(assets / folder / action)
                ]
        else:
            clips += [_clip(entry, folder, None) for entry in _entries(assets / folder)]
        tell(f"{folder}: {len(clips) - before:,} clips on disk")
    if not clips:
        raise ValueError(f"{assets}: {', '.join(there)} hold no clips")
    return sorted(clips)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if not entry.name.startswith(".") and (entry.is_dir() or entry.name.endswith(VIDEOS)):
            yield entry


def _clip(entry: os.DirEntry[str], below: str, action: str | None) -> SynaptClip:
    name = bare_name(entry.name)
    for asset, pattern in NAMES.items():
        if asset.split()[0] == below.split("/")[0] and (match := re.fullmatch(pattern, name)):
            found = action if action is not None else match["action"]
            group = f"{asset}:{match['person']}"
            return SynaptClip(f"{below}/{entry.name}", name, asset, found, group, entry.is_dir())
    raise ValueError(
        f"{entry.path}: is not named as the clips of {below.split('/')[0]} are; move it away"
    )
