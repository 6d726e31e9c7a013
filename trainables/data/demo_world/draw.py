"""One clip of a world as pixels: person over scene, through a camera, under a light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.data.demo_world import humans, scenes
from trainables.data.demo_world.plan import HUMANS, ClipPlan
from trainables.data.demo_world.settings import WorldSettings
from trainables.data.latent_draws import LatentDraws


@dataclass(frozen=True)
class Look:
    """How a dataset was filmed; half-widths of uniform ranges unless said otherwise."""

    turn: tuple[float, float]  # camera around the person, radians; 0 faces it
    tilt: float  # camera above or below, radians
    shake: float  # pixels a frame, standard deviation
    noise: float  # grey levels, standard deviation
    contrast: float  # of the scene's texture, 0 to 1
    crf: int  # x264's quality: larger is coarser


RENDERED = Look(turn=(0.3, 1.1), tilt=0.15, shake=0.3, noise=4.0, contrast=1.0, crf=20)
FILMED_EMPTY = Look(turn=(0.0, 0.0), tilt=0.0, shake=0.3, noise=5.0, contrast=1.0, crf=23)
FILMED = Look(turn=(0.4, 1.0), tilt=0.15, shake=0.3, noise=5.0, contrast=0.4, crf=26)
LOOKS = {"synthetic": RENDERED, "scenes": FILMED_EMPTY, "low_bias": FILMED, "high_bias": FILMED}


def draw_clip(plan: ClipPlan, settings: WorldSettings) -> np.ndarray:
    """uint8 [T, H, W, 3], a pure function of its arguments."""
    return draw_clip_and_mask(plan, settings)[0]


def draw_view(plan: ClipPlan, settings: WorldSettings, scale: float) -> np.ndarray:
    """Likewise, by a step w of `scale` in the latent space: another person, camera, backdrop and
    light; the action and its time stay."""
    key = [settings.seed, list(HUMANS).index(plan.dataset)]
    moved = [
        LatentDraws(own, [*own, 4, plan.index], scale)
        for own in ([*key, 1, plan.group], [*key, 2, plan.index])
    ]
    timing = np.random.default_rng([*key, 3, plan.index])
    return _drawn(plan, settings, moved[0], moved[1], timing)[0]


def draw_clip_and_mask(plan: ClipPlan, settings: WorldSettings) -> tuple[np.ndarray, np.ndarray]:
    """The clip, and bool [T, H, W]: where its person is."""
    key = [settings.seed, list(HUMANS).index(plan.dataset)]
    group_rng = np.random.default_rng([*key, 1, plan.group])
    rng = np.random.default_rng([*key, 2, plan.index])
    return _drawn(plan, settings, group_rng, rng, rng)


def _drawn(
    plan: ClipPlan,
    settings: WorldSettings,
    group_rng: np.random.Generator,
    rng: np.random.Generator,
    timing: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    look = LOOKS[plan.dataset]
    size = (settings.height, settings.width)
    shift = np.cumsum(rng.normal(0, look.shake, (settings.frames, 2)), axis=0)

    if plan.scene is None:
        frames = scenes.draw_backdrop(settings.frames, size, rng)
    else:
        families = (
            scenes.SOURCE_FAMILIES if plan.dataset == "scenes" else scenes.DOWNSTREAM_FAMILIES
        )
        palette = scenes.random_palette(rng, look.contrast)
        frames = scenes.draw_scene(families[plan.scene], palette, shift, size, rng)
    empty = frames.copy()
    if plan.dataset != "scenes":
        _add_person(frames, plan, look, shift, group_rng, rng, timing)
    mask = (frames != empty).any(axis=-1)
    lit = frames * rng.uniform(0.75, 1.15, 3).astype(np.float32)
    lit += look.noise * rng.standard_normal(frames.shape, dtype=np.float32)
    return np.clip(lit, 0, 255).astype(np.uint8), mask


def _add_person(
    frames: np.ndarray,
    plan: ClipPlan,
    look: Look,
    shift: np.ndarray,
    group_rng: np.random.Generator,
    rng: np.random.Generator,
    timing: np.random.Generator,
) -> None:
    count, height, width, _ = frames.shape
    person = humans.random_person(group_rng)
    actions = humans.SOURCE_ACTIONS if plan.dataset == "synthetic" else humans.DOWNSTREAM_ACTIONS
    phase = timing.random() + timing.uniform(0.8, 1.4) * np.arange(count) / count
    pose = humans.act(list(actions.values())[plan.label], phase, timing.uniform(0.85, 1.15))
    scale = height * rng.uniform(0.75, 0.9)
    light = rng.uniform(0, 2 * np.pi)
    view = humans.View(
        turn=rng.uniform(*look.turn),
        tilt=rng.uniform(-look.tilt, look.tilt),
        scale=scale,
        feet=(
            width / 2 + rng.uniform(-0.06, 0.06) * height,
            height / 2 + scale / 2 + rng.uniform(-0.03, 0.05) * height,
        ),
        light=(np.cos(light), np.sin(light)),
    )
    humans.draw_person(frames, pose, person, view, shift)
