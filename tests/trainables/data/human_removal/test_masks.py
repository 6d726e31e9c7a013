from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.trainables.data.human_removal.walker import (
    Walk,
    draw_person,
    panning_walk,
    still_walk,
    texture,
    write_frames,
)
from trainables.data.human_removal.holes import composed, holes_around, opacity, through_hats_size
from trainables.data.human_removal.mask_files import read_masks
from trainables.data.human_removal.person_detector import Box, hog_detector
from trainables.data.human_removal.person_masks import masks_by_detector
from trainables.data.human_removal.tracks import LEAST_FOUND, tracks_of, without_gaps
from trainables.data.video_files import ClipUnreadable
from trainables.data.whole_files import encode_mp4


def box(left: float, top: float = 10, score: float = 1.0) -> Box:
    return Box(left, top, 20, 40, score)


def recall_and_precision(masks: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    both = ((masks > 0) & (truth > 0)).sum()
    return both / (truth > 0).sum(), both / max((masks > 0).sum(), 1)


def boxes_of(walk: Walk, times: range) -> list[list[Box]]:
    """As a detector would find the person, in some frames only."""
    found: list[list[Box]] = [[] for _ in walk.frames]
    for t in times:
        y, x = np.nonzero(walk.masks[t])
        height = 1.3 * (y.max() - y.min())
        middle = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
        found[t] = [
            Box(middle[0] - height / 4, middle[1] - height / 2, height / 2, height, score=1.0)
        ]
    return found


def test_a_mask_is_thresholded_and_dilated_as_in_hat() -> None:
    masks = np.zeros((1, 21, 21), np.uint8)
    masks[0, 10, 10], masks[0, 2, 2] = 128, 127
    holes = holes_around(masks, 4)[0]
    y, x = np.mgrid[:21, :21]
    assert (holes == (abs(y - 10) + abs(x - 10) <= 4)).all()  # a cross, 4 times: a diamond


def test_a_holes_rim_is_soft_inside_and_sharp_outside() -> None:
    hole = np.zeros((30, 40), bool)
    hole[5:25, 0:30] = True
    alpha = opacity(hole, soft_edge=2)
    assert (alpha[~hole] == 0).all() and (alpha[hole] > 0).all()
    assert alpha[15, 29] < alpha[15, 28] < alpha[15, 27] == 1
    assert (alpha[8:22, 0] == 1).all()  # the frame's edge is no rim
    frames = np.full((1, 30, 40, 3), 100, np.uint8)
    result = composed(frames, np.full_like(frames, 200), hole[None], soft_edge=2)
    assert result[0, 15, 27, 0] == 200 and 100 < result[0, 15, 29, 0] < 200


def test_hats_size_takes_detail_and_keeps_the_shape() -> None:
    frames = texture(300, 500)[None]
    small = through_hats_size(frames)
    assert small.shape == frames.shape and 0 < np.abs(small.astype(int) - frames).mean() < 10


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda masks: masks[:-1], "4 masks for 5 frames"),
        (lambda masks: masks[:, :, :-2], "10x8, the frames are 12x8"),
        (lambda masks: masks[:0], "no masks"),
    ],
    ids=["length", "size", "none"],
)
def test_masks_that_do_not_fit_are_refused(tmp_path: Path, broken, told: str) -> None:
    write_frames(tmp_path / "masks", broken(np.zeros((5, 8, 12), np.uint8)))
    with pytest.raises(ClipUnreadable, match=told):
        read_masks(tmp_path / "masks", (5, 8, 12, 3))


def test_a_video_is_masks_too_and_held_against_the_frames(tmp_path: Path) -> None:
    masks = np.zeros((5, 32, 64), np.uint8)
    masks[:, 8:20, 16:40] = 255
    file = tmp_path / "walk.mp4"
    file.write_bytes(encode_mp4((cv2.merge([mask] * 3) for mask in masks), 10, crf=10))
    read = read_masks(file, (5, 32, 64, 3))
    assert ((read >= 128) == (masks > 0)).mean() > 0.99
    with pytest.raises(ClipUnreadable, match="5 masks for 6 frames"):
        read_masks(file, (6, 32, 64, 3))
    with pytest.raises(ClipUnreadable, match="frame 0 is 64x32, the frames are 32x32"):
        read_masks(file, (5, 32, 32, 3))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ClipUnreadable, match=r"walk\.mp4"):
        read_masks(file, (5, 32, 64, 3))


def test_a_mask_file_that_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    write_frames(tmp_path, np.zeros((2, 8, 12), np.uint8))
    (tmp_path / "001.png").write_bytes(b"no image")
    with pytest.raises(ClipUnreadable, match="001.png is no image"):
        read_masks(tmp_path, (2, 8, 12, 3))


def test_numbered_objects_and_zeros_and_ones_are_masks_too(tmp_path: Path) -> None:
    numbered = np.zeros((8, 12), np.uint8)
    numbered[2:4], numbered[5:7] = 1, 2
    image = Image.fromarray(numbered, mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])  # DAVIS's own colours are dark
    (tmp_path / "palette").mkdir()
    image.save(tmp_path / "palette" / "0.png")
    write_frames(tmp_path / "ones", (numbered > 0).astype(np.uint8)[None])
    for name in ("palette", "ones"):
        assert (read_masks(tmp_path / name, (1, 8, 12)) == 255 * (numbered > 0)).all()


def test_a_person_is_found_again_and_again_and_chance_is_not() -> None:
    walk = [[box(10 + 2 * t)] if t not in (3, 4) else [] for t in range(10)]
    walk[5].append(box(150))  # once
    (track,) = tracks_of(walk)
    assert sorted(track) == [0, 1, 2, 5, 6, 7, 8, 9]
    whole = without_gaps(track, 10)
    assert sorted(whole) == list(range(10)) and whole[3].left == pytest.approx(16)
    assert tracks_of([[box(10)]] * (LEAST_FOUND - 1)) == []


def test_two_who_walk_side_by_side_are_two() -> None:
    pair = [[box(10 + 3 * t), box(60 + 3 * t)][:: 1 if t % 2 else -1] for t in range(6)]
    one, other = sorted(tracks_of(pair), key=lambda track: track[0].left)
    assert [one[t].left for t in range(6)] == [10 + 3 * t for t in range(6)]
    assert [other[t].left for t in range(6)] == [60 + 3 * t for t in range(6)]


def test_the_detector_finds_a_drawn_person_and_none_in_its_scene() -> None:
    walk = still_walk(count=4)
    detect = hog_detector()
    assert sum(len(detect(frame).boxes) for frame in walk.frames) >= 2
    assert detect(walk.truth[0]).boxes == []
    best = max((b for frame in walk.frames for b in detect(frame).boxes), key=lambda b: b.score)
    assert 60 < best.height < 110


@pytest.mark.parametrize("walk", [still_walk(noise=3), panning_walk()], ids=["still", "moving"])
def test_who_is_found_in_some_frames_is_masked_in_all(walk: Walk) -> None:
    masks = masks_by_detector(walk.frames, boxes_of(walk, range(1, 14, 3)), False)
    recall, precision = recall_and_precision(masks, walk.masks)
    assert recall > 0.97 and precision > 0.6


def test_who_rests_is_masked_where_found_and_stays_masked() -> None:
    frame = texture(96, 160)
    person = draw_person(frame, 80, 88, 72, 0.5)
    frames, truth = np.stack([frame] * 20), np.stack([person] * 20)
    walk = Walk(frames, frames, truth)
    masks = masks_by_detector(frames, boxes_of(walk, range(3, 7)), False)
    recall, _ = recall_and_precision(masks, truth)
    assert recall > 0.9


def test_nobody_is_masked_where_nobody_is_found_unless_all_that_moves_is() -> None:
    walk = still_walk(noise=3)
    nobody: list[list[Box]] = [[] for _ in walk.frames]
    assert not masks_by_detector(walk.frames, nobody, False).any()
    recall, precision = recall_and_precision(
        masks_by_detector(walk.frames, nobody, True), walk.masks
    )
    assert recall > 0.97 and precision > 0.6


def test_the_same_masks_every_time() -> None:
    cv2.setRNGSeed(7)
    walk = panning_walk(count=8)
    found = boxes_of(walk, range(8))
    once = masks_by_detector(walk.frames, found, False)
    cv2.setRNGSeed(8)
    assert (once == masks_by_detector(walk.frames, found, False)).all()
