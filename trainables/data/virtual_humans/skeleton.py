"""Which joint of a recording plays which part, and its motion in a frame that all share.

Any skeleton will do whose joint names tell left from right. The rest is read off the tree: on
each side the two longest limbs are an arm and a leg, the leg hangs nearer to the root, and thigh
and shin (or upper arm and forearm) are the two longest bones in a row of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from trainables.data.virtual_humans.bvh import Recording, forward_kinematics

SIDES = ("left", "right")
LIMB = {
    "arm": ("shoulder", "elbow", "wrist", "fingers"),
    "leg": ("hip", "knee", "ankle", "toes"),
}
SPINE_POINTS = 4  # from between the hips to between the shoulders, at equal parts of the way


@dataclass(frozen=True)
class Motion:
    """y up, the floor at 0; at the start the person stands over the origin and faces +z."""

    points: dict[str, np.ndarray]  # part -> float64 [T, 3], in units of the recording's leg
    head_turn: np.ndarray  # [T, 3, 3]: the head against the chest, the mean of the motion taken off
    frame_seconds: float


def find_roles(recording: Recording) -> dict[str, int]:
    """The joint of each part: `left hip`, ..., `pelvis`, `chest`, `head`.

    `fingers` and `toes` are left out where the skeleton ends before them.

    Raises:
        ValueError: no two arms and two legs can be told apart, or there is no head.
    """
    joints = recording.joints
    children: list[list[int]] = [[] for _ in joints]
    for index, joint in enumerate(joints):
        if joint.parent >= 0:
            children[joint.parent].append(index)
    lengths = _bone_lengths(recording)
    roles: dict[str, int] = {}
    attached: dict[str, set[int]] = {"arm": set(), "leg": set()}
    for side in SIDES:
        limbs = []
        for index, joint in enumerate(joints):
            parent_side = _side(joints[joint.parent].name) if joint.parent >= 0 else None
            if _side(joint.name) == side and parent_side != side:
                chain = _longest(index, children, lengths)
                if len(chain) >= 3:
                    limbs.append((sum(lengths[i] for i in chain[1:]), chain))
        if len(limbs) < 2:
            raise _unknown(recording, f"{len(limbs)} limbs are named {side}; an arm and a leg are")
        longest = [chain for _, chain in sorted(limbs, reverse=True)[:2]]
        leg, arm = sorted(longest, key=lambda chain: _depth(recording, chain[0]))
        for limb, chain in (("leg", leg), ("arm", arm)):
            attached[limb].add(joints[chain[0]].parent)
            start = max(
                range(len(chain) - 2), key=lambda i: sum(lengths[j] for j in chain[i + 1 : i + 3])
            )
            named = [*chain[start : start + 3]]
            named += [i for i in chain[start + 3 :] if lengths[i] > 0.02 * lengths[named[1]]][:1]
            for part, index in zip(LIMB[limb], named, strict=False):
                roles[f"{side} {part}"] = index
    if len(attached["leg"]) != 1 or len(attached["arm"]) != 1 or attached["leg"] == attached["arm"]:
        raise _unknown(recording, "arms and legs do not hang on one joint each, at two places")
    (roles["pelvis"],), (roles["chest"],) = attached["leg"], attached["arm"]
    above = [i for i in children[roles["chest"]] if _side(joints[i].name) is None]
    if roles["pelvis"] not in _ancestors(recording, roles["chest"]) or not above:
        raise _unknown(recording, "no spine leads from the legs to the arms and on to a head")
    neck = max(
        (_longest(i, children, lengths) for i in above), key=lambda c: sum(lengths[i] for i in c)
    )
    own = [i for i in neck if joints[i].channels]
    heads = [i for i in own if "head" in joints[i].name.lower()]
    roles["head"] = heads[0] if heads else own[-1]
    return roles


def read_motion(recording: Recording) -> Motion:
    """The recording as a motion that any body can make.

    Raises:
        ValueError: as `find_roles` does, or legs of no length.
    """
    roles = find_roles(recording)
    positions, turned = forward_kinematics(recording)
    axes = _upright(positions, roles)
    positions, turned = positions @ axes.T, axes @ turned
    points = {part: positions[:, index] for part, index in roles.items()}
    spine = [*reversed(_ancestors(recording, roles["chest"])), roles["chest"]]
    points |= _spine(positions[:, spine[spine.index(roles["pelvis"]) :]], points)
    leg = sum(
        np.linalg.norm(points[f"{side} {a}"] - points[f"{side} {b}"], axis=-1).mean() / 2
        for side in SIDES
        for a, b in (("hip", "knee"), ("knee", "ankle"))
    )
    if not leg > 0:
        raise _unknown(recording, "its legs have no length")
    chest = frame_of(
        points["left shoulder"] - points["right shoulder"],
        points[f"spine {SPINE_POINTS - 1}"] - points["spine 0"],
    )
    against = chest.transpose(0, 2, 1) @ turned[:, roles["head"]]
    left, _, right = np.linalg.svd(against.mean(axis=0))
    head_turn = against @ (left @ right).T
    points = {
        part: value / leg for part, value in points.items() if part not in ("pelvis", "chest")
    }
    floor = min(np.min(value[:, 1]) for value in points.values())
    shift = np.array([points["spine 0"][0, 0], floor, points["spine 0"][0, 2]])
    back = _yaw(-heading(points)[0])
    points = {part: (value - shift) @ back.T for part, value in points.items()}
    return Motion(points, head_turn, recording.frame_seconds)


def frame_of(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] of columns left, up, forward; `up` is made square to `left`."""
    x = _unit(left)
    z = _unit(np.cross(x, up))
    return np.stack([x, np.cross(z, x), z], axis=-1)


def heading(points: dict[str, np.ndarray]) -> np.ndarray:
    """[T]: where the hips face, radians about y from +z."""
    left = points["left hip"] - points["right hip"]
    return np.arctan2(-left[:, 2], left[:, 0])


def _yaw(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _spine(chain: np.ndarray, points: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`spine 0` to `spine 3`: the joints `chain` [T, S, 3], sampled at equal parts of the way."""
    ends = [(points[f"left {part}"] + points[f"right {part}"]) / 2 for part in ("hip", "shoulder")]
    line = np.stack([ends[0], *chain.transpose(1, 0, 2)[1:-1], ends[1]])  # [S, T, 3]
    steps = np.linalg.norm(np.diff(line, axis=0), axis=-1).mean(axis=1)
    way = np.concatenate([[0], np.cumsum(np.maximum(steps, 1e-9))])
    found = {}
    for number in range(SPINE_POINTS):
        at = way[-1] * number / (SPINE_POINTS - 1)
        after = int(np.clip(np.searchsorted(way, at), 1, len(way) - 1))
        part = (at - way[after - 1]) / (way[after] - way[after - 1])
        found[f"spine {number}"] = (1 - part) * line[after - 1] + part * line[after]
    return found


def _upright(positions: np.ndarray, roles: dict[str, int]) -> np.ndarray:
    """[3, 3]: turns a recording whose z points up (some programs' exports) to y up."""
    feet = (positions[:, roles["left ankle"]] + positions[:, roles["right ankle"]]) / 2
    rise = (positions[:, roles["head"]] - feet).mean(axis=0)
    if abs(rise[2]) > 2 * abs(rise[1]):
        return np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) * np.sign(rise[2])
    return np.eye(3)


def _bone_lengths(recording: Recording) -> np.ndarray:
    """[J]: mean distance to the parent, in the file's unit; 0 for the root."""
    positions, _ = forward_kinematics(recording)
    parents = [max(joint.parent, 0) for joint in recording.joints]
    return np.asarray(np.linalg.norm(positions - positions[:, parents], axis=-1).mean(axis=0))


def _longest(start: int, children: list[list[int]], lengths: np.ndarray) -> list[int]:
    """The longest way from `start` down to an end."""
    below = [_longest(child, children, lengths) for child in children[start]]
    return [start, *max(below, key=lambda chain: sum(lengths[i] for i in chain), default=[])]


def _ancestors(recording: Recording, index: int) -> list[int]:
    """The joints above, the nearest first."""
    found = []
    while (index := recording.joints[index].parent) >= 0:
        found.append(index)
    return found


def _depth(recording: Recording, index: int) -> int:
    return len(_ancestors(recording, index))


def _side(name: str) -> str | None:
    """Which side a joint's name says: LeftArm, L_Hip, thigh.L, Bip01 L Thigh, lShldr, LHipJoint."""
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    for side in SIDES:
        if side in name.lower() or side[0] in words:
            return side
    return None


def _unknown(recording: Recording, reason: str) -> ValueError:
    names = ", ".join(joint.name for joint in recording.joints if joint.channels)
    return ValueError(
        f"{recording.path}: this skeleton is not understood: {reason}. Its joints: {names}. Name "
        "both arms and legs with Left and Right (or L and R) and let the spine join them"
    )
