"""A motion played in time, longer than it was recorded if need be, by a body of another build."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainables.data.virtual_humans.body import ANKLE, BALL, Body
from trainables.data.virtual_humans.skeleton import SIDES, SPINE_POINTS, Motion, frame_of, heading

BLEND_SECONDS = 0.3  # in which the end of a short motion turns into its beginning


def play(motion: Motion, start_seconds: float, speed: float, times: np.ndarray) -> Motion:
    """The motion at `times` (seconds, equally spaced), begun at `start_seconds`, so much faster.

    One that ends before is made again from where it ended. Between frames it is interpolated.
    """
    at = (start_seconds + speed * times) / motion.frame_seconds
    while _length(motion) < at[-1] + 1:
        motion = _again(motion)
    before = np.minimum(at.astype(int), _length(motion) - 2)
    part = (at - before)[:, None]
    points = {
        name: (1 - part) * value[before] + part * value[before + 1]
        for name, value in motion.points.items()
    }
    return Motion(points, motion.head_turn[np.round(at).astype(int)], float(times[1] - times[0]))


def _length(motion: Motion) -> int:
    return len(motion.head_turn)


def _again(motion: Motion) -> Motion:
    """The motion, and once more itself, begun where and facing as it ended; blended over."""
    blend = int(min(BLEND_SECONDS / motion.frame_seconds, _length(motion) // 3))
    seam = _length(motion) - 1 - blend
    angle = heading(motion.points)[seam] - heading(motion.points)[0]
    root = motion.points["spine 0"]
    weight = np.linspace(0, 1, blend + 1)[:, None]
    points = {}
    for name, value in motion.points.items():
        moved = turned(value - root[0] * (1, 0, 1), angle) + root[seam] * (1, 0, 1)
        mixed = (1 - weight) * value[seam:] + weight * moved[: blend + 1]
        points[name] = np.concatenate([value[:seam], mixed, moved[blend + 1 :]])
    turns = np.concatenate([motion.head_turn[:seam], motion.head_turn])
    return replace(motion, points=points, head_turn=turns)


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """[..., 3] turned about y by `angle` radians (from +z towards +x)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def on_body(motion: Motion, body: Body) -> dict[str, np.ndarray]:
    """Part -> [T, 3] in metres, and `head frame` [T, 3, 3].

    Every bone points as in the motion and has the body's length. Steps are as long as the legs ask;
    the lower foot is as high over the floor as it was, so what stood stands.
    """
    source, bones = motion.points, body.bones
    scale = bones["thigh"] + bones["shin"]

    def along(start: str, end: str, length: float) -> np.ndarray:
        return np.asarray(length * _unit(source[end] - source[start]))

    points = {"spine 0": scale * source["spine 0"]}
    for number in range(1, SPINE_POINTS):
        below, here = f"spine {number - 1}", f"spine {number}"
        points[here] = points[below] + along(below, here, bones["spine"] / (SPINE_POINTS - 1))
    chest = f"spine {SPINE_POINTS - 1}"
    points["head"] = points[chest] + along(chest, "head", bones["neck"])
    for side in SIDES:
        arm = [f"{side} {part}" for part in ("shoulder", "elbow", "wrist", "fingers")]
        leg = [f"{side} {part}" for part in ("hip", "knee", "ankle", "toes")]
        points[arm[0]] = points[chest] + along(chest, arm[0], bones["shoulder"])
        points[leg[0]] = points["spine 0"] + along("spine 0", leg[0], bones["hip"])
        for limb, names in ((arm, ("upper arm", "forearm")), (leg, ("thigh", "shin"))):
            for start, end, name in zip(limb, limb[1:], names, strict=False):
                points[end] = points[start] + along(start, end, bones[name])
        palm = (arm[2], arm[3]) if arm[3] in source else (arm[1], arm[2])
        points[arm[3]] = points[arm[2]] + along(*palm, bones["hand"])
        points[leg[3]] = points[leg[2]] + _foot(source, side, body)
    lift = scale * _lowest(source, None) - _lowest(points, body)
    rise = np.stack([np.zeros_like(lift), lift, np.zeros_like(lift)], axis=-1)
    points = {name: value + rise for name, value in points.items()}
    trunk = frame_of(
        points["left shoulder"] - points["right shoulder"], points[chest] - points["spine 0"]
    )
    points["head frame"] = trunk @ motion.head_turn
    return points


def _foot(source: dict[str, np.ndarray], side: str, body: Body) -> np.ndarray:
    """[T, 3]: from the ankle to the ball. It slopes as the body's foot does where it stands flat.

    How a recording's foot slopes there depends on where its joints were put, so the slope of the
    moments with the ankle lowest is taken off. Without toes the foot is flat, as the hips face.
    """
    down = (ANKLE - BALL) * body.height
    ahead = np.sqrt(body.bones["foot"] ** 2 - down**2)
    ankle = source[f"{side} ankle"]
    if f"{side} toes" not in source:
        angle = heading(source)
        level = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], axis=-1)
        return np.asarray(ahead * level - (0, down, 0))
    bone = _unit(source[f"{side} toes"] - ankle)
    shin = ankle - source[f"{side} knee"]
    above = _unit(bone * (bone * shin).sum(-1, keepdims=True) - shin)  # square to the foot, upward
    standing = ankle[:, 1] <= ankle[:, 1].min() + 0.02  # of a leg's length
    slope = float(np.median(np.arcsin(np.clip(-bone[standing, 1], -1, 1))))
    sole = np.cos(slope) * bone + np.sin(slope) * above
    over = np.cos(slope) * above - np.sin(slope) * bone
    return np.asarray(ahead * sole - down * over)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _lowest(points: dict[str, np.ndarray], body: Body | None) -> np.ndarray:
    """[T]: how high the lower foot is; of a recording, over the lowest that it ever is."""
    heights = []
    for part, own in (("ankle", ANKLE), ("toes", BALL)):
        both = [points[f"{side} {part}"][:, 1] for side in SIDES if f"{side} {part}" in points]
        if both:
            low = np.min(both, axis=0)
            heights.append(low - (low.min() if body is None else own * body.height))
    return np.asarray(np.min(heights, axis=0))
