"""The six downstream datasets of PPMA: what each is, where its lists come from, how it is cut.

The published train list is cut 80/20 into train and selection; the published val list is the
report split. A catalog entry names the dataset and its root, all else stands here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.data.manifests import Row, path_inside
from trainables.settings import Settings

Name = Literal["ucf101", "hmdb51", "mini_ssv2", "diving48", "ikea_fa", "uav_human"]

LISTS = {"train": "train.csv", "report": "val.csv"}  # split -> file in the root
SELECTION = 0.2  # of the train list, by group
FRAME_RATE = 25.0  # of frame folders, in all six datasets, as PPMA reads them
LOOKED_AT = 20  # clips that are looked for, to see how the dataset lies on disk
VIDEO_SUFFIX = re.compile(r"\.(avi|mp4|webm|mkv)$", re.IGNORECASE)


class SuiteSettings(Settings):
    """An entry `{suite: ucf101, root: $DATA/ucf101}`."""

    suite: Name
    root: str
    version: str | None = None
    licence: str | None = None
    masks: str | None = None


@dataclass(frozen=True, kw_only=True)
class Described:
    """A dataset of the suite.

    A clip's stem is its path in PPMA's list without the leading folder (`listed_under`) and the
    suffix; `layouts` say where under the root it may lie, the usual place first.
    """

    classes: int
    occurring: int  # classes that have clips in the published lists
    group: str | None  # captures the group from a path; None: each clip is its own
    lists: str  # folder of PPMA's repository
    listed_under: str
    layouts: tuple[str, ...]
    example: str  # stem
    source: str


# Groups by PPMA's code/omnivision/utils/create_val_split.py, with two repairs: a film of HMDB51 is
# its whole title (PPMA: three words of it, at times with the action, so that a film with several
# actions stood on both sides), and a video id of Diving48 may hold underscores. UCF101 counts its
# groups gNN anew in each class. Mini-SSv2 names no group: each clip is its own.
SUITE: dict[str, Described] = {
    "ucf101": Described(
        classes=101,
        occurring=101,
        group=r"(?:^|/)(v_[^/]+_g\d+)_c\d+[^/]*$",
        lists="data/splits/ucf101",
        listed_under="",
        layouts=("{stem}.avi", "{stem}"),
        example="ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01",
        source="https://www.crcv.ucf.edu/data/UCF101.php",
    ),
    "hmdb51": Described(
        classes=51,
        occurring=51,
        # <action>/<title>[_<part>]_<action>_<body>_<camera>_np<people>_<view>_<quality>_<n>
        group=(
            r"(?:^|/)(?P<action>[^/]+)/(?P<group>[^/]+?)(?:_\d+)?"
            r"(?:_(?P=action))?_[a-z]_(?:cm|nm)_np\d"
        ),
        lists="data/splits/hmdb51",
        listed_under="",
        layouts=("{stem}.avi", "{stem}"),
        example="talk/The_Matrix_1_talk_h_nm_np1_le_goo_2",
        source="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
    ),
    "mini_ssv2": Described(
        classes=87,
        occurring=87,
        group=None,
        lists="data/splits/mini_ssv2",
        listed_under="something2something-v2/videos/",
        layouts=("videos/{stem}.webm", "{stem}.webm"),
        example="169362",
        source="https://developer.qualcomm.com/software/ai-datasets/something-something",
    ),
    "diving48": Described(
        classes=48,
        occurring=47,
        group=r"(?:^|/)([^/]+)_\d+(?:\.\w+)?$",  # the video's id
        lists="data/splits/diving48",
        listed_under="diving48/videos/",
        layouts=("videos/{stem}.mp4", "frames/{stem}"),
        example="8qRmKunCjtY_00016",
        source="http://www.svcl.ucsd.edu/projects/resound/dataset.html",
    ),
    "ikea_fa": Described(
        classes=12,
        occurring=12,
        group=r"(?:^|/)(GOPR\d+)_[^/]*$",  # the recording
        lists="data/splits/ikea_furniture",
        listed_under="ikea_furniture/videos/",
        layouts=("frames/{stem}", "videos/{stem}.MP4"),
        example="spin_in/GOPR0086_00117_00294_05",
        source="https://tengdahan.github.io/ikea.html",
    ),
    "uav_human": Described(
        classes=155,
        occurring=155,
        group=r"(?:^|/)(P\d{3}S\d{2}[^/]{17})[^/]*$",  # 24 characters: person, setting, clothes
        lists="data/splits/uav",
        listed_under="uav_human/videos/",
        layouts=("frames/{stem}", "videos/{stem}.avi"),
        example="P063S05G10B20H00UC072000LC021000A101R0_09101311",
        source="https://github.com/sutdcv/UAV-Human",
    ),
}


def suite_lists(name: str, suite: str, root: Path) -> dict[str, Path]:
    """Split -> list of a dataset, in its root. Raises ValueError, with what to put where."""
    lists = {split: root / file for split, file in LISTS.items()}
    if not root.is_dir():
        raise ValueError(
            f"dataset {name!r}: root {root} is not a folder\n{what_goes_where(suite, root)}"
        )
    missing = [path.name for path in lists.values() if not path.is_file()]
    if missing:
        raise ValueError(
            f"dataset {name!r}: {' and '.join(missing)} not in {root}\n"
            f"{what_goes_where(suite, root)}"
        )
    return lists


def what_goes_where(suite: str, root: Path) -> str:
    """What a root must hold, for an error message."""
    known = SUITE[suite]
    places = " or ".join(_place(layout, known.example) for layout in known.layouts)
    return (
        f"{suite} needs under {root}:\n"
        f"  train.csv, val.csv  one clip a line, `path;label`, no header, labels 0 to "
        f"{known.classes - 1}:\n"
        f"                      PPMA's own, from {known.lists}/ of github.com/howardzh01/PPMA\n"
        f"  clips               for example {places}, from {known.source}"
    )


def _place(layout: str, stem: str) -> str:
    place = layout.format(stem=stem)
    return place if VIDEO_SUFFIX.search(place) else f"{place}/ (a folder of frames)"


def rows_on_disk(name: str, suite: str, rows: list[Row], root: Path) -> list[Row]:
    """`rows` with their paths as the clips lie under `root`.

    The first layout in which any of the first clips exists is taken for all: PPMA's lists name
    videos by one suffix or none, and some of its datasets are read as frame folders.
    """
    known = SUITE[suite]
    listed = [path_inside(name, row.path, root) for row in rows]
    stems = [VIDEO_SUFFIX.sub("", path.removeprefix(known.listed_under)) for path in listed]
    for layout in known.layouts:
        paths = [layout.format(stem=stem) for stem in stems]
        if _any_exists(paths, root):
            break
    else:  # lists of the user's own may name the clips just as they lie
        usual = [known.layouts[0].format(stem=stem) for stem in stems]
        paths = listed if _any_exists(listed, root) else usual
    return [row._replace(path=path) for row, path in zip(rows, paths, strict=True)]


def _any_exists(paths: Iterable[str], root: Path) -> bool:
    return any((root / path).exists() for path, _ in zip(paths, range(LOOKED_AT), strict=False))


def check_labels(name: str, suite: str, rows: list[Row]) -> list[str]:
    """What the user should know of the classes that have clips; all published ones stay outputs.

    Raises:
        ValueError: labels that are no index of a published class.
    """
    known = SUITE[suite]
    found = {row.label for row in rows}
    strange = sorted(label for label in found if not label.isdecimal())
    extra = sorted(int(label) for label in found - set(strange) if int(label) >= known.classes)
    if strange or extra:
        shown = _some(strange or [str(index) for index in extra])
        raise ValueError(
            f"dataset {name!r}: labels {shown} are not among the {known.classes} classes of "
            f"{suite}, which are numbered 0 to {known.classes - 1}; correct train.csv and val.csv"
        )
    missing = [str(index) for index in sorted(set(range(known.classes)) - set(map(int, found)))]
    if not missing:
        return []
    return [
        f"dataset {name!r}: {known.classes - len(missing)} of the {known.classes} classes of "
        f"{suite} have clips ({known.occurring} in the published lists); without: {_some(missing)}"
    ]


def _some(items: list[str]) -> str:
    return ", ".join(items[:20]) + (f" and {len(items) - 20} more" if len(items) > 20 else "")
