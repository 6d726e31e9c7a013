"""One clip as pixels: people on the ground, through a camera, under a light."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from trainables.data.clips import fitted, read_clip
from trainables.data.latent_draws import LatentDraws
from trainables.data.virtual_humans.body import Body, random_body
from trainables.data.virtual_humans.camera import film, random_rig
from trainables.data.virtual_humans.clothing import Outfit, random_outfit
from trainables.data.virtual_humans.drawing import Drawn, draw
from trainables.data.virtual_humans.figure import Person, Points, figure
from trainables.data.virtual_humans.light import random_light
from trainables.data.virtual_humans.plan import ClipPlan, random_kind
from trainables.data.virtual_humans.retarget import on_body, play, turned
from trainables.data.virtual_humans.settings import RenderSettings
from trainables.data.virtual_humans.skeleton import Motion
from trainables.data.virtual_humans.surface import joined
from trainables.data.virtual_humans.surroundings import random_surroundings
from trainables.data.virtual_humans.takes import Take, motion_of

PERSON, RIG, CLIP, TIME, KIND, VIEW, PLACE = 1, 2, 3, 4, 5, 6, 7  # what a random stream is of

CLOSE = 75  # pixels a metre: those who are farther are drawn of fewer faces


class Footage(NamedTuple):
    """A clip without people, to stand behind rendered ones."""

    path: Path
    frame_rate: float | None


def draw_clip(
    plan: ClipPlan,
    settings: RenderSettings,
    footage: Sequence[Footage],
    masks: bool,
    scale: float | None = None,
) -> Iterator[Drawn]:
    """Frames, and masks if asked: a pure function of the plan, the settings and the files.

    `scale`: of the step w in the latent space of a generator's view. It moves people, clothes,
    camera, light and surroundings; motions and their time stay. None: all is drawn directly.

    Raises:
        ClipUnreadable: footage that cannot be read.
    """

    def stream(*words: int) -> np.random.Generator:
        own = [settings.seed, *words]
        if scale is None:
            return np.random.default_rng(own)
        return LatentDraws(own, [*own, VIEW, plan.index], scale)

    rng, timing, kind = stream(CLIP, plan.index), None, plan.kind
    if scale is not None:
        timing = np.random.default_rng([settings.seed, TIME, plan.index])
        kind = random_kind(stream(KIND, plan.index)) if plan.footage is None else kind
    rig = random_rig(stream(RIG, plan.rig))
    size = (settings.width, settings.height)
    cast: list[tuple[Points, Body, Outfit, np.random.Generator]] = []
    seen: list[np.ndarray] = []
    spacing, turn = rng.uniform(0.95, 1.4), rng.normal(0, 0.3)
    for place, (take, person) in enumerate(zip(plan.takes, plan.cast, strict=True)):
        own = stream(PERSON, person)
        body, outfit = random_body(own), random_outfit(own)
        points = on_body(_played(take, settings, timing or rng), body)
        aside = spacing * (place - (len(plan.cast) - 1) / 2)
        spot = np.array([aside, 0, rng.uniform(-0.7, 0.7) * (len(plan.cast) > 1)])
        angle = turn + rng.normal(0, 0.25)
        frames = turned(points.pop("head frame").transpose(0, 2, 1), angle).transpose(0, 2, 1)
        points = {part: turned(value, angle) + spot for part, value in points.items()}
        cast.append(({**points, "head frame": frames}, body, outfit, own))
        crown = points["head"] + 0.12 * body.height * frames[:, :, 1]
        seen += [*points.values(), crown]
    people = np.stack(seen, axis=1)
    camera = film(rig, people, size, rng)
    around = random_surroundings(kind, rng if plan.place is None else stream(PLACE, *plan.place))
    if plan.footage is not None:
        around = replace(around, footage=_behind(footage[plan.footage], settings, rng.random()))
    grain = _grain(rng, size)
    middle = people.mean(axis=(0, 1))
    tall = camera.focal / np.linalg.norm(middle - camera.places, axis=-1).min()  # pixels a metre
    detail = 1.0 if tall > CLOSE else 0.6
    surfaces = [figure(Person(who, body, outfit, detail), own) for who, body, outfit, own in cast]
    drawn = draw(joined(surfaces), around, camera, random_light(rng), middle, masks)
    for number, (frame, mask) in enumerate(drawn):
        moved = np.roll(grain, (37 * number, 61 * number), axis=(0, 1))
        yield Drawn(cv2.add(frame, moved, dtype=cv2.CV_8U), mask)


def _played(take: Take, settings: RenderSettings, rng: np.random.Generator) -> Motion:
    """The motion at the clip's frames, begun somewhere, a little slower or faster."""
    motion = motion_of(take.path)
    times = np.arange(settings.frames) / settings.frames_per_second
    speed = rng.uniform(0.85, 1.15)
    spare = len(motion.head_turn) * motion.frame_seconds - speed * (times[-1] + 0.1)
    return play(motion, max(0.0, spare) * rng.random(), speed, times)


def _behind(footage: Footage, settings: RenderSettings, position: float) -> np.ndarray:
    """uint8 [T, H, W, 3]: a window of the footage, cut to the clip's shape about its middle."""
    frames = read_clip(
        footage.path,
        frames=settings.frames,
        seconds=settings.seconds,
        position=position,
        short_side=max(settings.width, settings.height),
        frame_rate=footage.frame_rate,
        video_reader="pyav",
    )
    return fitted(frames, settings.width, settings.height)


def _grain(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """int16 [H, W, 3]: a sensor's noise, shifted from frame to frame."""
    width, height = size
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(0, 5)
    return np.round(np.repeat(noise, 3, axis=2)).astype(np.int16)
