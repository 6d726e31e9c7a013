"""Articulated virtual humans: actions as sums of motion primitives, a skeleton, and its drawing.

Body frame: x to the person's left, y up, z forward; lengths in body heights, angles in radians.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Curve = np.ndarray  # float64 [T]: one joint angle (or offset) over the frames
Pose = dict[str, Curve]
SIDES = {"left": 1.0, "right": -1.0}


# -- motion primitives: phase [T] in cycles -> the joint curves they add ------------------------


def _swing(phase: Curve) -> Curve:
    return np.sin(2 * np.pi * phase)


def _pulse(phase: Curve) -> Curve:
    """0 at rest, 1 at the height of the movement, once a cycle."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * phase)


def wave(phase: Curve, side: str) -> Pose:
    return {
        f"{side} arm lift": np.full_like(phase, 1.9),
        f"{side} elbow out": 0.5 + 0.9 * _swing(2 * phase),
    }


def raise_arm(phase: Curve, side: str) -> Pose:
    return {f"{side} arm lift": 2.7 * _pulse(phase)}


def punch(phase: Curve, side: str) -> Pose:
    reach = _pulse(phase)
    return {f"{side} arm swing": 0.3 + 1.3 * reach, f"{side} elbow": 2.0 * (1 - reach)}


def circle(phase: Curve, side: str) -> Pose:
    return {
        f"{side} arm swing": 2 * np.pi * phase,
        f"{side} arm lift": np.full_like(phase, 0.35),
    }


def kick(phase: Curve, side: str) -> Pose:
    reach = _pulse(phase)
    return {f"{side} leg swing": 1.6 * reach, f"{side} knee": 0.8 * np.abs(_swing(phase))}


def spread(phase: Curve, side: str) -> Pose:
    return {f"{side} leg lift": 0.55 * _pulse(phase)}


def step(phase: Curve, side: str) -> Pose:
    shifted = phase + (0.5 if side == "left" else 0.0)
    return {
        f"{side} leg swing": 0.9 * np.maximum(_swing(shifted), -0.4),
        f"{side} knee": 1.4 * np.maximum(_swing(shifted), 0.0),
        f"{side} arm swing": -0.7 * _swing(shifted),
        f"{side} elbow": np.full_like(phase, 0.8),
    }


def squat(phase: Curve, side: str) -> Pose:
    depth = _pulse(phase)
    return {f"{side} leg swing": 1.3 * depth, f"{side} knee": 2.3 * depth}


def bend(phase: Curve, side: str) -> Pose:
    return {"trunk bend": 0.65 * _pulse(phase)}  # both sides together: 1.3


def twist(phase: Curve, side: str) -> Pose:
    return {"turn": 0.5 * _swing(phase)}


def jump(phase: Curve, side: str) -> Pose:
    return {"hop": 0.1 * _pulse(phase)}


Primitive = Callable[[Curve, str], Pose]
# (primitive, side or both, phase offset in cycles)
Part = tuple[Primitive, str, float]

# Pre-training and downstream actions share primitives and no action.
SOURCE_ACTIONS: dict[str, tuple[Part, ...]] = {
    "waving": ((wave, "right", 0.0),),
    "jumping_jacks": ((raise_arm, "both", 0.0), (spread, "both", 0.0), (jump, "both", 0.0)),
    "squatting": ((squat, "both", 0.0),),
    "kicking": ((kick, "right", 0.0),),
    "bowing": ((bend, "both", 0.0),),
    "boxing": ((punch, "right", 0.0), (punch, "left", 0.5), (twist, "both", 0.0)),
    "marching": ((step, "left", 0.0), (step, "right", 0.0)),
    "arm_circling": ((circle, "both", 0.0),),
}
DOWNSTREAM_ACTIONS: dict[str, tuple[Part, ...]] = {
    "hailing": ((wave, "left", 0.0), (twist, "both", 0.0)),
    "lifting": ((squat, "both", 0.0), (raise_arm, "both", 0.0)),
    "kickboxing": ((kick, "left", 0.0), (punch, "right", 0.5)),
    "swimming": ((bend, "both", 0.0), (circle, "left", 0.0), (circle, "right", 0.5)),
    "dancing": ((step, "left", 0.0), (step, "right", 0.0), (raise_arm, "left", 0.0)),
    "skipping": ((jump, "both", 0.0), (punch, "both", 0.0), (spread, "left", 0.0)),
}


def act(parts: tuple[Part, ...], phase: Curve, strength: float) -> Pose:
    """The joint curves of an action: its primitives' curves, summed; `strength` scales them all."""
    pose: Pose = defaultdict(lambda: np.zeros_like(phase))
    for primitive, side, offset in parts:
        for one_side in SIDES if side == "both" else (side,):
            for joint, curve in primitive(phase + offset, one_side).items():
                pose[joint] = pose[joint] + strength * curve
    return pose


# -- the body ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """Lengths in body heights; colours RGB, 0 to 255."""

    arm: float
    leg: float
    trunk: float
    shoulders: float
    thickness: float
    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    long_sleeves: bool
    long_trousers: bool


def random_person(rng: np.random.Generator) -> Person:
    tone = rng.uniform(0.25, 1.0)
    return Person(
        arm=rng.uniform(0.17, 0.20),
        leg=rng.uniform(0.23, 0.27),
        trunk=rng.uniform(0.28, 0.33),
        shoulders=rng.uniform(0.10, 0.14),
        thickness=rng.uniform(0.8, 1.25),
        skin=tone * np.array([255.0, 205.0, 170.0]),
        hair=rng.uniform(10, 140) * np.array([1.0, 0.8, 0.6]),
        shirt=_cloth(rng),
        trousers=_cloth(rng),
        shoes=_cloth(rng),
        long_sleeves=bool(rng.random() < 0.5),
        long_trousers=bool(rng.random() < 0.7),
    )


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """A strong colour, bright or dark, so that people stand out from muted scenes."""
    value = rng.uniform(215, 255) if rng.random() < 0.5 else rng.uniform(15, 70)
    return value * (1 - rng.uniform(0.2, 0.9) * rng.permutation([0.0, rng.random(), 1.0]))


def _direction(swing: Curve, lift: Curve, side: float) -> np.ndarray:
    """Unit vectors [T, 3] of a limb: hanging, swung forward by `swing`, then lifted outward."""
    down, forward = -np.cos(swing), np.sin(swing)
    return np.stack([-side * np.sin(lift) * down, np.cos(lift) * down, forward], axis=-1)


def skeleton(pose: Pose, person: Person) -> dict[str, np.ndarray]:
    """Joint name -> position [T, 3]; the lower foot stands on y = 0, but for `hop`."""
    tip = pose["trunk bend"]
    up = np.stack([np.zeros_like(tip), np.cos(tip), np.sin(tip)], axis=-1)
    hips = np.zeros_like(up)
    neck = hips + person.trunk * up
    joints = {"hips": hips, "neck": neck, "head": neck + 0.10 * up}
    forward = np.stack([np.zeros_like(tip), -np.sin(tip), np.cos(tip)], axis=-1)
    joints["face"] = joints["head"] + 0.035 * forward - 0.015 * up
    left = np.array([1.0, 0.0, 0.0])
    for name, side in SIDES.items():
        swing, lift = pose[f"{name} arm swing"], pose[f"{name} arm lift"] + 0.12
        shoulder = neck - 0.03 * up + side * person.shoulders * left
        elbow = shoulder + person.arm * _direction(swing, lift, side)
        fore = _direction(swing + pose[f"{name} elbow"], lift + pose[f"{name} elbow out"], side)
        joints[f"{name} shoulder"], joints[f"{name} elbow"] = shoulder, elbow
        joints[f"{name} hand"] = elbow + 0.95 * person.arm * fore

        swing, lift = pose[f"{name} leg swing"], pose[f"{name} leg lift"] + 0.06
        hip = hips + side * 0.55 * person.shoulders * left
        knee = hip + person.leg * _direction(swing, lift, side)
        foot = knee + person.leg * _direction(swing - pose[f"{name} knee"], lift, side)
        joints[f"{name} hip"], joints[f"{name} knee"], joints[f"{name} foot"] = hip, knee, foot
    ground = np.minimum(joints["left foot"][:, 1], joints["right foot"][:, 1])
    rise = np.zeros_like(hips)
    rise[:, 1] = pose["hop"] - ground
    return {name: joint + rise for name, joint in joints.items()}


# -- the drawing -------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """A camera and a light: angles in radians, `scale` in pixels a body height."""

    turn: float
    tilt: float
    scale: float
    feet: tuple[float, float]  # where they stand, in pixels
    light: tuple[float, float]  # where it shines from, unit vector in the image


def draw_person(
    frames: np.ndarray, pose: Pose, person: Person, view: View, shift: np.ndarray
) -> None:
    """Draws the person over `frames`, uint8 [T, H, W, 3], moved by `shift`, pixels [T, 2].

    A part of the body is a capsule: a thick line in shade, and a thinner one in the light on the
    side that it shines from. The farther parts are drawn first.
    """
    joints = {name: _project(joint, pose, view) for name, joint in skeleton(pose, person).items()}
    parts = _body_parts(person)
    ends = np.stack([[joints[start], joints[end]] for start, end, _, _ in parts])  # [P, 2, T, 3]
    offset = np.asarray(view.feet) + shift
    radii = np.array([radius for _, _, radius, _ in parts]) * view.scale
    lit = 0.3 * radii[:, None, None, None] * np.asarray(view.light)
    points = ends[..., :2] + offset
    # cv2 takes fixed-point coordinates: 4 binary places.
    dark, bright = (np.round(16 * p).astype(int).tolist() for p in (points, points + lit))
    order = ends[..., 2].sum(axis=1).argsort(axis=0).T.tolist()  # [T][P]
    thick = [max(1, round(2 * radius)) for radius in radii]
    thin = [max(1, round(1.2 * radius)) for radius in radii]
    colours = [colour.tolist() for _, _, _, colour in parts]
    shades = [(0.7 * colour).tolist() for _, _, _, colour in parts]
    for t, frame in enumerate(frames):
        for i in order[t]:
            (a, b), (c, d) = dark[i], bright[i]
            cv2.line(frame, a[t], b[t], shades[i], thick[i], cv2.LINE_AA, 4)
            cv2.line(frame, c[t], d[t], colours[i], thin[i], cv2.LINE_AA, 4)


def _project(joint: np.ndarray, pose: Pose, view: View) -> np.ndarray:
    """[T, 3] in body heights -> x and y in pixels (y down) and depth (larger is nearer)."""
    turn = view.turn + pose["turn"]
    x = np.cos(turn) * joint[:, 0] + np.sin(turn) * joint[:, 2]
    z = np.cos(turn) * joint[:, 2] - np.sin(turn) * joint[:, 0]
    y = np.cos(view.tilt) * joint[:, 1] - np.sin(view.tilt) * z
    return np.stack([x * view.scale, -y * view.scale, z], axis=-1)


def _body_parts(person: Person) -> list[tuple[str, str, float, np.ndarray]]:
    """(joint, joint, radius in body heights, colour) of each part."""
    sleeve = person.shirt if person.long_sleeves else person.skin
    shin = person.trousers if person.long_trousers else person.skin
    parts = [
        ("hips", "neck", 0.075, person.shirt),
        ("left shoulder", "right shoulder", 0.045, person.shirt),
        ("left hip", "right hip", 0.055, person.trousers),
        ("neck", "head", 0.035, person.skin),
        ("head", "head", 0.068, person.hair),
        ("face", "face", 0.052, person.skin),
    ]
    for side in SIDES:
        parts += [
            (f"{side} shoulder", f"{side} elbow", 0.036, person.shirt),
            (f"{side} elbow", f"{side} hand", 0.030, sleeve),
            (f"{side} hand", f"{side} hand", 0.036, person.skin),
            (f"{side} hip", f"{side} knee", 0.050, person.trousers),
            (f"{side} knee", f"{side} foot", 0.040, shin),
            (f"{side} foot", f"{side} foot", 0.045, person.shoes),
        ]
    return [(a, b, radius * person.thickness, colour) for a, b, radius, colour in parts]
