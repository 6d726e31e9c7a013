"""Small BVH files for tests: a person as CMU's skeletons are, who stands and moves an arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

# name, parent, offset in centimetres
SKELETON = (
    ("Hips", None, (0, 0, 0)),
    *(
        (f"{side}{part}", f"{side}{above}" if above != "Hips" else above, offset)
        for side, sign in (("Left", 1), ("Right", -1))
        for part, above, offset in (
            ("UpLeg", "Hips", (9 * sign, 0, 0)),
            ("Leg", "UpLeg", (0, -42, 0)),
            ("Foot", "Leg", (0, -42, 0)),
            ("ToeBase", "Foot", (0, -6, 13)),
        )
    ),
    ("Spine", "Hips", (0, 12, 0)),
    ("Spine1", "Spine", (0, 30, 0)),
    *(
        (f"{side}{part}", f"{side}{above}" if above != "Spine1" else above, offset)
        for side, sign in (("Left", 1), ("Right", -1))
        for part, above, offset in (
            ("Shoulder", "Spine1", (4 * sign, 6, 0)),
            ("Arm", "Shoulder", (14 * sign, 0, 0)),
            ("ForeArm", "Arm", (0, -29, 0)),
            ("Hand", "ForeArm", (0, -25, 0)),
        )
    ),
    ("Neck", "Spine1", (0, 12, 0)),
    ("Head", "Neck", (0, 9, 0)),
)
NAMES = [name for name, _, _ in SKELETON]


def write_bvh(
    path: Path,
    *,
    frames: int = 20,
    frame_time: float = 1 / 30,
    turns: Mapping[str, np.ndarray] | None = None,
    way: np.ndarray | None = None,
    rename: Mapping[str, str] | None = None,
) -> Path:
    """A BVH file. `turns`: joint -> rotation about z in degrees [frames]; `way`: of the hips."""
    new = dict(rename or {})

    def block(name: str, indent: str) -> list[str]:
        _, above, offset = SKELETON[NAMES.index(name)]
        moves = "6 Xposition Yposition Zposition" if above is None else "3"
        lines = [
            f"{indent}{'ROOT' if above is None else 'JOINT'} {new.get(name, name)}",
            f"{indent}{{",
            f"{indent}  OFFSET {offset[0]} {offset[1]} {offset[2]}",
            f"{indent}  CHANNELS {moves} Zrotation Xrotation Yrotation",
        ]
        below = [child for child, parent, _ in SKELETON if parent == name]
        for child in below:
            lines += block(child, indent + "  ")
        if not below:
            end = (0, 18, 0) if name == "Head" else (0, -8, 0) if "Hand" in name else (0, 0, 5)
            lines += [
                f"{indent}  End Site",
                f"{indent}  {{",
                f"{indent}    OFFSET {end[0]} {end[1]} {end[2]}",
                f"{indent}  }}",
            ]
        return [*lines, f"{indent}}}"]

    columns: list[np.ndarray] = []
    if way is None:
        way = np.tile([0.0, 90.0, 0.0], (frames, 1))
    columns += list(way.T)

    def values(name: str) -> None:
        columns.extend(
            [np.asarray((turns or {}).get(name, np.zeros(frames))), *np.zeros((2, frames))]
        )
        for child, parent, _ in SKELETON:
            if parent == name:
                values(child)

    values("Hips")
    rows = [" ".join(f"{value:.4f}" for value in row) for row in np.stack(columns, axis=1)]
    lines = [
        "HIERARCHY",
        *block("Hips", ""),
        "MOTION",
        f"Frames: {frames}",
        f"Frame Time: {frame_time:.6f}",
        *rows,
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_mocap(folder: Path, takes: int = 4) -> Path:
    """`takes` files of each of two classes (a raised left or right arm), and their clips.csv."""
    lines = ["path,label,group"]
    for label, joint, sign in (("left", "LeftArm", 1), ("right", "RightArm", -1)):
        for number in range(takes):
            height = sign * np.linspace(10 * number, 150, 20)
            write_bvh(folder / f"{label}_{number}.bvh", turns={joint: height})
            lines.append(f"{label}_{number}.bvh,{label},actor {number}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder
