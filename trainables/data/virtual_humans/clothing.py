"""What people wear and how they look: clothes, hair, skin, and the colours of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Hair = Literal["bald", "short", "full", "long", "bun", "cap"]
Legs = Literal["trousers", "wide trousers", "shorts", "skirt"]
Pattern = Literal["plain", "stripes", "sides", "checks"]
SKINS = np.array(  # RGB, from light to dark
    [[247, 219, 199], [238, 196, 165], [217, 168, 130], [187, 131, 94], [139, 92, 62], [88, 57, 41]]
)
HAIRS = np.array(
    [[25, 21, 20], [52, 36, 27], [92, 62, 40], [150, 108, 66], [205, 172, 110], [168, 165, 160]]
)


@dataclass(frozen=True)
class Outfit:
    """Colours are RGB, 0 to 255; sleeves and legs end at a part of the limb (1: elbow or knee)."""

    skin: np.ndarray
    hair: np.ndarray
    hair_style: Hair
    top: np.ndarray
    trim: np.ndarray  # the top's second colour
    pattern: Pattern
    sleeve_end: float  # -1: none, 2: the wrist
    loose: float  # how far the top stands off, in body heights
    jacket: bool
    bottom: np.ndarray
    legs: Legs
    leg_end: float  # 2: the ankle
    shoes: np.ndarray
    gloves: bool


def random_outfit(rng: np.random.Generator) -> Outfit:
    legs: Legs = rng.choice(
        ["trousers", "wide trousers", "shorts", "skirt"], p=[0.5, 0.15, 0.2, 0.15]
    )
    jacket = bool(rng.random() < 0.25)
    sleeve = 1.92 if jacket else rng.choice([-1.0, 0.5, 0.95, 1.92], p=[0.08, 0.42, 0.08, 0.42])
    end = {"shorts": rng.uniform(0.6, 1.0), "skirt": rng.uniform(0.7, 1.5)}.get(legs, 1.93)
    tone = SKINS[rng.integers(len(SKINS))] * rng.uniform(0.94, 1.04)
    bottom = _cloth(rng)
    if legs in ("trousers", "wide trousers") and rng.random() < 0.5:
        bottom = np.array([[58, 76, 110], [40, 42, 48], [120, 105, 82]][rng.integers(3)], float)
    return Outfit(
        skin=np.clip(tone, 0, 255),
        hair=HAIRS[rng.integers(len(HAIRS))] * rng.uniform(0.85, 1.15),
        hair_style=rng.choice(
            ["bald", "short", "full", "long", "bun", "cap"], p=[0.07, 0.33, 0.15, 0.23, 0.1, 0.12]
        ),
        top=_cloth(rng),
        trim=_cloth(rng),
        pattern="plain"
        if jacket
        else rng.choice(["plain", "stripes", "sides", "checks"], p=[0.6, 0.16, 0.12, 0.12]),
        sleeve_end=float(sleeve),
        loose=float(rng.uniform(0.009, 0.014) if jacket else rng.uniform(0.003, 0.009)),
        jacket=jacket,
        bottom=bottom,
        legs=legs,
        leg_end=float(end),
        shoes=_cloth(rng) if rng.random() < 0.5 else np.full(3, rng.choice([28.0, 60.0, 225.0])),
        gloves=bool(rng.random() < 0.04),
    )


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """A colour as clothes have: any hue, mostly not too strong, from dark to nearly white."""
    hue, strength = rng.uniform(0, 180), 255 * rng.beta(1.6, 2.2)
    bright = rng.uniform(45, 240)
    hsv = np.array([[[hue, strength, bright]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], dtype=float)
