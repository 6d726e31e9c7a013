# ruff: noqa: NPY002 -- timm draws from NumPy's global state
from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from trainables.data.augment import augment
from trainables.data.rand_augment import rand_augment
from trainables.models.timm_models import import_torchvision
from trainables.training_settings import AugmentSettings, RandAugmentSettings

VIDEOMAE = RandAugmentSettings(magnitude=7, layers=4, probability=0.5)


def clip(frames: int = 4, size: int = 32) -> np.ndarray:
    """Smooth frames, each different, on which every operation shows."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    pictures = [
        np.stack([rows * 200 + 5 * t, columns * 200 + 10, (rows + columns) * 100 + 3 * t], axis=2)
        for t in range(frames)
    ]
    return np.stack(pictures).astype(np.uint8)


def changed(settings: RandAugmentSettings, seed: int, frames: np.ndarray) -> np.ndarray:
    return rand_augment(frames, settings, np.random.default_rng(seed))


def test_every_frame_is_what_timm_makes_of_it_with_the_same_draw() -> None:
    import_torchvision()
    from timm.data.auto_augment import rand_augment_transform

    one = VIDEOMAE.model_copy(update={"layers": 1})
    reference = rand_augment_transform(
        "rand-m7-n1-mstd0.5-inc1", {"interpolation": Image.Resampling.BICUBIC}
    )
    frames, different, same = clip(), 0, 0
    before = random.getstate(), np.random.get_state()
    for seed in range(120):
        view = changed(one, seed, frames)
        drawn = int(np.random.default_rng(seed).integers(2**32))
        for frame, ours in zip(frames, view, strict=True):
            random.seed(drawn)
            np.random.seed(drawn)
            theirs = np.asarray(reference(Image.fromarray(frame))).astype(int)
            assert np.abs(ours - theirs).mean() < 3  # along the border of what is moved
            same += np.array_equal(ours, theirs)
        different += not np.array_equal(view, frames)
    random.setstate(before[0])
    np.random.set_state(before[1])
    assert 45 < different < 75
    assert same > 0.65 * 120 * len(frames)  # what is not drawn, or looks pixels up in a table


def test_each_layer_is_done_after_the_one_before() -> None:
    frames, different = clip(), 0
    for seed in range(60):
        different += not np.array_equal(changed(VIDEOMAE, seed, frames), frames)
    assert 45 < different < 60  # 1 - 0.5^4 of the clips meet an operation


def test_still_clips_stay_still() -> None:
    still = clip(1).repeat(5, axis=0)
    for seed in range(40):
        view = changed(VIDEOMAE, seed, still)
        assert view.shape == still.shape
        assert view.dtype == np.uint8
        assert (view == view[:1]).all()


def test_probability_layers_and_magnitude_are_those_asked_for() -> None:
    frames = clip(1)

    def share_changed(**settings: float) -> float:
        asked = RandAugmentSettings(**{**VIDEOMAE.model_dump(), **settings})
        return float(np.mean([(changed(asked, s, frames) != frames).any() for s in range(300)]))

    def strength(magnitude: float) -> float:
        asked = RandAugmentSettings(magnitude=magnitude, layers=1, probability=1.0)
        views = [changed(asked, seed, frames).astype(float) for seed in range(150)]
        return float(np.mean([np.abs(view - frames).mean() for view in views]))

    assert share_changed(probability=0.0) == 0
    assert share_changed(layers=1, probability=1.0) > 0.85
    assert share_changed(layers=1, probability=0.25) == pytest.approx(0.25, abs=0.08)
    assert share_changed(layers=8) > 0.97
    assert strength(2.0) < strength(2.5) < strength(5.0) < strength(9.0)


def test_the_global_random_states_are_neither_asked_nor_moved() -> None:
    frames = clip(2)
    views = []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)
        expected = random.random(), np.random.random()
        random.seed(state)
        np.random.seed(state)
        views.append([changed(VIDEOMAE, seed, frames) for seed in range(10)])
        assert (random.random(), np.random.random()) == expected
    assert np.array_equal(views[0], views[1])
    assert any(not np.array_equal(view, views[0][0]) for view in views[0])


def test_it_comes_after_the_other_augmentation_and_costs_it_no_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    off = AugmentSettings(
        crop_scale=(0.3, 1.0),
        crop_ratio=(0.75, 1.33),
        flip=True,
        jitter=0.4,
        rand_augment=None,
        erasing=0.0,
    )
    on = off.model_copy(update={"rand_augment": VIDEOMAE})
    given = []
    monkeypatch.setattr(
        "trainables.data.augment.rand_augment", lambda view, *_: given.append(view) or view + 1
    )
    for seed in range(5):
        plain = augment(clip(), off, 16, np.random.default_rng(seed))
        assert np.array_equal(augment(clip(), on, 16, np.random.default_rng(seed)), plain + 1)
        assert np.array_equal(given[seed], plain)
