"""Motion capture in BVH files: a tree of joints, and their channels frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

POSITIONS = ("Xposition", "Yposition", "Zposition")
ROTATIONS = ("Xrotation", "Yrotation", "Zrotation")


@dataclass(frozen=True)
class Joint:
    name: str  # an end site is called after its joint
    parent: int  # -1 for the root; a parent stands before its children
    offset: tuple[float, float, float]  # from the parent, in the file's unit
    channels: tuple[str, ...]  # in the file's order; () for an end site


@dataclass(frozen=True)
class Recording:
    path: Path
    joints: tuple[Joint, ...]
    values: np.ndarray  # float64 [T, C]: all channels of all joints in order; degrees and units
    frame_seconds: float


def read_bvh(path: Path) -> Recording:
    """The recording in a BVH file.

    Raises:
        ValueError: no BVH, a joint without rotation channels, no frames, values that are missing or
            not finite; each naming the file, the place and what to do.
    """
    try:
        words = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"{path}: cannot be read ({reason}); give BVH files") from None
    reader = _Words(path, words)
    reader.expect("HIERARCHY")
    reader.expect("ROOT")
    joints: list[Joint] = []
    _read_joint(reader, -1, joints)
    if reader.peek() == "ROOT":
        raise ValueError(f"{path}: has two ROOTs; one skeleton a file, so split it")
    reader.expect("MOTION")
    reader.expect("Frames:")
    frames = reader.whole("the number of frames")
    reader.expect("Frame")
    reader.expect("Time:")
    frame_seconds = reader.number("the frame time")
    if frames < 2:
        raise ValueError(
            f"{path}: Frames: {frames}; a motion has at least 2, so leave the file out"
        )
    if not 0 < frame_seconds < 1:
        raise ValueError(
            f"{path}: Frame Time: {frame_seconds}; it must be seconds above 0, below 1"
        )
    channels = sum(len(joint.channels) for joint in joints)
    return Recording(path, tuple(joints), _values(reader, frames, channels), frame_seconds)


def forward_kinematics(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Where all joints are and how they are turned.

    A joint's position channels stand in place of its offset, its rotations are applied in the order
    in which they are listed (the first is outermost), and p = p_parent + R_parent offset.

    Returns:
        positions [T, J, 3] in the file's unit, and rotations [T, J, 3, 3] from the joint's frame to
        the file's.
    """
    count = len(recording.values)
    positions = np.empty((count, len(recording.joints), 3))
    turned = np.empty((count, len(recording.joints), 3, 3))
    at = 0
    for index, joint in enumerate(recording.joints):
        offset = np.tile(np.array(joint.offset), (count, 1))
        own = np.broadcast_to(np.eye(3), (count, 3, 3))
        for channel in joint.channels:
            value = recording.values[:, at]
            at += 1
            if channel in POSITIONS:
                offset[:, POSITIONS.index(channel)] = value
            else:
                own = own @ axis_rotation(ROTATIONS.index(channel), np.radians(value))
        if joint.parent < 0:
            positions[:, index], turned[:, index] = offset, own
        else:
            above = turned[:, joint.parent]
            positions[:, index] = positions[:, joint.parent] + np.einsum(
                "tij,tj->ti", above, offset
            )
            turned[:, index] = above @ own
    return positions, turned


def axis_rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] about x (0), y (1) or z (2) by `angle` [...], in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*np.shape(angle), 3, 3))
    one, two = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., axis, axis] = 1
    matrix[..., one, one], matrix[..., two, two] = cos, cos
    matrix[..., one, two], matrix[..., two, one] = -sin, sin
    return matrix


class _Words:
    """The file's words in turn, with errors that say where they were wanted."""

    def __init__(self, path: Path, words: list[str]) -> None:
        self.path, self.words, self.at = path, words, 0

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else "the end of the file"

    def take(self) -> str:
        word = self.peek()
        self.at += 1
        return word

    def expect(self, wanted: str) -> None:
        found = self.take()
        if found != wanted:
            raise ValueError(
                f"{self.path}: {found!r} stands where {wanted!r} should (word {self.at}); "
                "it is no whole BVH file, so export it anew"
            )

    def number(self, what: str) -> float:
        word = self.take()
        try:
            return float(word)
        except ValueError:
            raise ValueError(f"{self.path}: {what} is {word!r}, which is no number") from None

    def whole(self, what: str) -> int:
        number = self.number(what)
        if not number.is_integer():  # nor are inf and nan
            raise ValueError(f"{self.path}: {what} is {number}, which is no whole number")
        return int(number)


def _read_joint(reader: _Words, parent: int, joints: list[Joint]) -> None:
    """One joint from its name to its closing brace, and those below it."""
    name = reader.take()
    while reader.peek() not in ("{", "the end of the file"):  # names with spaces: Bip01 L Thigh
        name += " " + reader.take()
    reader.expect("{")
    reader.expect("OFFSET")
    offset = (reader.number(f"{name}'s offset"), reader.number(name), reader.number(name))
    channels: tuple[str, ...] = ()
    if reader.peek() == "CHANNELS":
        reader.take()
        channels = tuple(reader.take() for _ in range(reader.whole(f"{name}'s channel count")))
    turns = [channel for channel in channels if channel in ROTATIONS]
    unknown = [channel for channel in channels if channel not in (*POSITIONS, *ROTATIONS)]
    if unknown or sorted(turns) != list(ROTATIONS) or len(set(channels)) < len(channels):
        raise ValueError(
            f"{reader.path}: joint {name!r} has the channels {list(channels)}; it needs each of "
            f"{', '.join(ROTATIONS)} once, and may have positions; export it with rotations"
        )
    index = len(joints)
    joints.append(Joint(name, parent, offset, channels))
    while reader.peek() != "}":
        kind = reader.take()
        if kind == "JOINT":
            _read_joint(reader, index, joints)
        elif kind == "End":
            reader.expect("Site")
            reader.expect("{")
            reader.expect("OFFSET")
            end = (reader.number(f"{name}'s end"), reader.number(name), reader.number(name))
            joints.append(Joint(f"{name} end", index, end, ()))
            reader.expect("}")
        else:
            raise ValueError(
                f"{reader.path}: {kind!r} stands where JOINT, End Site or '}}' should, below "
                f"{name!r}; it is no whole BVH file, so export it anew"
            )
    reader.take()


def _values(reader: _Words, frames: int, channels: int) -> np.ndarray:
    words = reader.words[reader.at :]
    if len(words) != frames * channels:
        raise ValueError(
            f"{reader.path}: {len(words)} values for {frames} frames of {channels} channels, which "
            f"are {frames * channels}; the file is cut off or has lost a channel: export it anew"
        )
    try:
        values = np.array(words, dtype=np.float64).reshape(frames, channels)
    except ValueError as error:
        raise ValueError(f"{reader.path}: a value of its motion is no number: {error}") from None
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"{reader.path}: frame {int(wrong.argmax())} (from 0) holds a value that is not finite "
            f"({int(wrong.sum())} such frames); repair the recording or leave the file out"
        )
    return values
