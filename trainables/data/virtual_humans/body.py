"""Bodies of varied build: bone lengths and girths, all as parts of the body's height.

Means after Drillis and Contini's segment lengths (1966); girths by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BONES = {
    "spine": 0.285,  # from between the hips to between the shoulders
    "shoulder": 0.108,  # from the middle to a shoulder joint
    "hip": 0.052,
    "neck": 0.085,  # from between the shoulders to where the skull sits
    "upper arm": 0.172,
    "forearm": 0.150,
    "hand": 0.100,
    "thigh": 0.245,
    "shin": 0.246,
    "foot": 0.094,  # from the ankle to the ball
}
ANKLE = 0.039  # its height over the sole
BALL = 0.012


@dataclass(frozen=True)
class Body:
    height: float  # metres
    bones: dict[str, float]  # metres
    girth: float  # 1 is the mean; limbs and trunk alike
    belly: float  # depth of the waist over the mean's
    shoulders: float  # width of the chest over the mean's
    hips: float  # width of the pelvis over the mean's
    head: float  # size over the mean's


def random_body(rng: np.random.Generator) -> Body:
    """From child to tall adult, slight to stout, shoulders wide or hips wide."""
    child = rng.random() < 0.12
    height = rng.uniform(1.15, 1.45) if child else rng.normal(1.71, 0.09)
    shape = rng.uniform(-1, 1)  # shoulders against hips
    weight = rng.normal(0, 1)
    wide = {"shoulder": 1 + 0.08 * shape, "hip": 1 - 0.06 * shape}
    bones = {
        name: height * part * wide.get(name, 1.0) * rng.uniform(0.95, 1.05)
        for name, part in BONES.items()
    }
    if child:
        bones |= {name: 0.94 * bones[name] for name in ("thigh", "shin", "upper arm", "forearm")}
    return Body(
        height=height,
        bones=bones,
        girth=float(np.clip(1 + 0.13 * weight, 0.8, 1.4)),
        belly=float(np.clip(1 + 0.18 * max(weight, 0) + rng.uniform(-0.05, 0.1), 0.9, 1.6)),
        shoulders=wide["shoulder"] * rng.uniform(0.97, 1.03),
        hips=wide["hip"] * rng.uniform(0.97, 1.03),
        head=1.2 if child else rng.uniform(0.96, 1.06),
    )
