"""The renderers as generators: their latent is people, clothes, camera, light, surroundings.

Positives are exact: views of a sample show the same motions at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from trainables.data.demo_world.draw import LOOKS, draw_view
from trainables.data.demo_world.plan import classes, plan_dataset
from trainables.data.demo_world.settings import RENDERER_VERSION, WorldSettings
from trainables.data.generators.generator import Sample
from trainables.data.virtual_humans import settings as virtual_humans
from trainables.data.virtual_humans.clip import draw_clip
from trainables.data.virtual_humans.plan import plan_clips
from trainables.data.virtual_humans.settings import RenderSettings
from trainables.data.virtual_humans.takes import Take


@dataclass(frozen=True)
class VirtualHumans:
    """data.virtual_humans, without footage."""

    settings: RenderSettings
    takes: tuple[Take, ...]

    @property
    def frames_per_second(self) -> int:
        return self.settings.frames_per_second

    @property
    def crf(self) -> int:
        return self.settings.crf

    @cached_property
    def _plans(self) -> dict[int, Any]:
        return {plan.index: plan for plan in plan_clips(self.settings, self.takes, 0)}

    def samples(self) -> Sequence[Sample]:
        return [
            Sample(plan.index, plan.split, plan.label, plan.takes[0].group)
            for plan in self._plans.values()
        ]

    def draw(self, sample: Sample, scale: float) -> np.ndarray:
        cv2.setNumThreads(1)  # there is a process for each core
        plan = self._plans[sample.number]
        drawn = draw_clip(plan, self.settings, [], masks=False, scale=scale)
        return np.stack([each.frame for each in drawn])

    def latents(self) -> None:
        return None

    def described(self) -> dict[str, Any]:
        return {
            "generator": "virtual humans",
            "renderer": virtual_humans.RENDERER_VERSION,
            **self.settings.told(),
        }


@dataclass(frozen=True)
class DemoPeople:
    """The people of a demo world's synthetic source."""

    world: WorldSettings

    @property
    def frames_per_second(self) -> int:
        return self.world.frames_per_second

    @property
    def crf(self) -> int:
        return LOOKS["synthetic"].crf

    @cached_property
    def _plans(self) -> list[Any]:
        return plan_dataset("synthetic", self.world)

    def samples(self) -> Sequence[Sample]:
        names = classes("synthetic")
        return [
            Sample(plan.index, plan.split, names[plan.label], f"generated-{plan.group:04d}")
            for plan in self._plans
        ]

    def draw(self, sample: Sample, scale: float) -> np.ndarray:
        cv2.setNumThreads(1)
        return draw_view(self._plans[sample.number], self.world, scale)

    def latents(self) -> None:
        return None

    def described(self) -> dict[str, Any]:
        return {
            "generator": "demo people",
            "renderer": RENDERER_VERSION,
            **self.world.model_dump(mode="json"),
        }
