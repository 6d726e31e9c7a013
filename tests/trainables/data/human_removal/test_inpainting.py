from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from tests.trainables.data.human_removal.walker import Walk, panning_walk, still_walk, texture
from trainables.data.human_removal.camera_motion import camera_motion, continued
from trainables.data.human_removal.holes import composed, holes_around
from trainables.data.human_removal.inpainting import Filled, inpaint
from trainables.data.human_removal.quality import flicker, psnr


@cache
def case(kind: str) -> tuple[Walk, np.ndarray, Filled]:
    """A walk, its holes, and those filled."""
    walk = still_walk(noise=3) if kind == "still" else panning_walk()
    holes = holes_around(walk.masks, 4)
    return walk, holes, inpaint(walk.frames, holes)


def frame_by_frame(frames: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """The reference: OpenCV's spatial inpainting of every frame alone."""
    pairs = zip(frames, holes, strict=True)
    return np.stack([cv2.inpaint(f, h.astype(np.uint8), 4, cv2.INPAINT_TELEA) for f, h in pairs])


@pytest.mark.parametrize(("kind", "decibels"), [("still", 40), ("moving", 38)])
def test_the_hole_shows_what_was_behind_the_person(kind: str, decibels: float) -> None:
    walk, holes, filled = case(kind)
    assert filled.still is (kind == "still") and filled.from_time > 0.99
    alone = frame_by_frame(walk.frames, holes)
    got, reference = (psnr(each[holes], walk.truth[holes]) for each in (filled.frames, alone))
    assert got > decibels > reference + 10


@pytest.mark.parametrize("kind", ["still", "moving"])
def test_it_flickers_no_more_than_the_scene_itself(kind: str) -> None:
    walk, holes, filled = case(kind)
    ours = flicker(filled.frames, holes)
    scene, alone = flicker(walk.truth, holes), flicker(frame_by_frame(walk.frames, holes), holes)
    assert ours is not None and scene is not None and alone is not None
    assert ours < scene + 0.1 and ours < alone / 5


@pytest.mark.parametrize("kind", ["still", "moving"])
def test_outside_the_holes_every_bit_is_kept(kind: str) -> None:
    walk, holes, filled = case(kind)
    result = composed(walk.frames, filled.frames, holes, soft_edge=2)
    assert psnr(result[~holes], walk.frames[~holes]) == float("inf")
    assert (result[holes] != walk.frames[holes]).any()


def test_what_no_frame_saw_is_filled_once_and_moves_with_the_camera() -> None:
    wide = texture(96, 260)
    rough = np.random.default_rng(3).normal(0, 6, (10, 96, 160, 3))  # so that frames differ
    frames = np.stack([wide[:, 4 * t : 4 * t + 160] for t in range(10)]) + rough
    frames = frames.clip(0, 255).astype(np.uint8)
    holes = np.zeros(frames.shape[:3], bool)
    for t in range(10):  # on the background, so that nothing of it is ever seen
        holes[t, 30:60, 90 - 4 * t : 120 - 4 * t] = True
    filled = inpaint(np.where(holes[..., None], 0, frames).astype(np.uint8), holes)
    assert filled.from_time < 0.5
    inside = [filled.frames[t, 34:56, 94 - 4 * t : 116 - 4 * t].astype(int) for t in range(10)]
    assert all(np.abs(each - inside[0]).mean() < 0.8 for each in inside)
    assert inside[0].min() > 60  # of the texture's colours, none of the black that was there


def test_before_a_still_camera_the_same_hole_is_filled_the_same_in_all_frames() -> None:
    frames = np.stack([texture(64, 96)] * 6)
    holes = np.zeros(frames.shape[:3], bool)
    holes[:, 20:40, 30:60] = True
    filled = inpaint(frames, holes)
    assert filled.still and filled.from_time == 0
    assert (filled.frames == filled.frames[0]).all()


def test_before_a_still_camera_the_filling_is_as_bright_as_its_frame() -> None:
    walk = still_walk(count=10)
    light = np.linspace(-15, 15, 10)[:, None, None, None]
    frames, truth = (
        (each + light).clip(0, 255).astype(np.uint8) for each in (walk.frames, walk.truth)
    )
    holes = holes_around(walk.masks, 4)
    filled = inpaint(frames, holes)
    assert filled.still and psnr(filled.frames[holes], truth[holes]) > 40


def test_a_camera_is_still_though_a_person_walks_and_moves_though_it_follows_one() -> None:
    for walk, still in ((still_walk(noise=3), True), (panning_walk(), False)):
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in walk.frames]
        assert camera_motion(grey, np.zeros(walk.masks.shape, bool)).still is still


def test_the_cameras_motion_is_found_to_a_third_of_a_pixel() -> None:
    walk, place = panning_walk(), np.array([[[80.0, 48.0], [20.0, 80.0]]])
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in walk.frames]
    motion = camera_motion(grey, walk.masks > 0)
    for t, step in enumerate(motion.onward):
        before, after = (
            np.vstack([_view(s), [0, 0, 1]]) for s in (t, t + 1)
        )  # wide image -> frame
        true = cv2.perspectiveTransform(place, after @ np.linalg.inv(before))
        assert np.abs(cv2.perspectiveTransform(place, step) - true).max() < 0.34


def _view(t: int) -> np.ndarray:
    """As `panning_walk` has it."""
    turn = cv2.getRotationMatrix2D((160, 96), 0.2 * t, 1 + 0.004 * t)
    turn[:, 2] -= (30 + 5.3 * t, 40)
    return np.asarray(turn)


def test_what_is_known_around_a_hole_is_continued_into_it() -> None:
    known = np.ones((40, 50), bool)
    known[10:30, 15:35] = False
    flat = np.where(known, 3.0, -99.0)[..., None]
    assert np.allclose(continued(flat, known), 3.0, atol=1e-4)
    ramp = np.broadcast_to(np.arange(50.0), (40, 50))
    inside = continued(np.where(known, ramp, 0)[..., None], known)[..., 0]
    assert (inside[known] == ramp[known]).all()
    assert np.abs(inside - ramp)[~known].max() < 8
    assert (continued(flat, np.zeros_like(known)) == 0).all()
