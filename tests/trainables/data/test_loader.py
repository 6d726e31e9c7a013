from __future__ import annotations

import ctypes
import multiprocessing
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from tests.trainables.data.videos import as_seen, write_video
from trainables.config import TestSettings as Views
from trainables.data import loader
from trainables.data.batch import Batch
from trainables.data.batch_order import batch_order
from trainables.data.catalog import Clip, Dataset
from trainables.data.clips import ClipReader, read_clip
from trainables.data.loader import check_unreadable, eval_batches, training_batches
from trainables.data.mixture import Mixture
from trainables.data.video_files import ClipUnreadable
from trainables.data.views import View
from trainables.training_settings import AugmentSettings, ClipSettings, RandAugmentSettings

SETTINGS = ClipSettings(frames=4, seconds=0.6, resolution=16, normalize="per_clip")
AUGMENT = AugmentSettings(
    crop_scale=(0.3, 1.0),
    crop_ratio=(0.75, 1.33),
    flip=True,
    jitter=0.4,
    rand_augment=None,
    erasing=0.0,
)


def dataset(root: Path, name: str, count: int, seed: int) -> Dataset:
    """`count` training clips of different lengths, and one of the report split."""
    for i in range(count + 1):
        write_video(root / name / f"{i}.mp4", width=32, height=24, count=5 + 3 * i, seed=seed + i)
    splits = ["train"] * count + ["report"]
    clips = [Clip(path=f"{i}.mp4", label=i, group="", split=s) for i, s in enumerate(splits)]
    return Dataset(
        name=name,
        root=root / name,
        humans="none",
        classes=tuple(map(str, range(count + 1))),
        clips=tuple(clips),
        frame_rate=None,
        content_hash="",
    )


@pytest.fixture
def datasets(tmp_path: Path) -> dict[str, Dataset]:
    return {"real": dataset(tmp_path, "real", 3, 0), "virtual": dataset(tmp_path, "virtual", 6, 50)}


def mixture(datasets: dict[str, Dataset], **changes: object) -> Mixture:
    settings: dict = {
        "sizes": {name: len(data.split("train")) for name, data in datasets.items()},
        "shares": {"real": 0.25, "virtual": 0.75},
        "granularity": "clip",
        "batch_size": 4,
        "seed": 1,
        "total": 40,
    }
    return Mixture(**{**settings, **changes})


def batches(datasets: dict[str, Dataset], **changes: object) -> Iterator[Batch]:
    arguments: dict = {
        "start_step": 0,
        "stop_step": 10,
        "rank": 0,
        "world_size": 1,
        "workers": 0,
        "video_reader": "decord",
        "pin_memory": False,
        "max_unreadable": 0.0,
        "pairing": None,
        "resample": {},
        "second_views": {},
        "mixture": mixture(datasets),
        "augmentation": AUGMENT,
        **changes,
    }
    stream, augmentation = arguments.pop("mixture"), arguments.pop("augmentation")
    return training_batches(datasets, stream, SETTINGS, augmentation, **arguments)


def same(one: Batch, other: Batch) -> bool:
    return (one.unreadable, one.step) == (other.unreadable, other.step) and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("video", "label", "source", "clip", "seed")
    )


def test_batches_hold_what_the_mixture_draws(datasets: dict[str, Dataset]) -> None:
    stream = mixture(datasets)
    for step, batch in enumerate(batches(datasets)):
        draws = [stream.draw(4 * step + i) for i in range(4)]
        assert batch.video.shape == (4, 3, 4, 16, 16)
        assert [stream.sources[s] for s in batch.source] == [draw.source for draw in draws]
        assert batch.clip.tolist() == batch.label.tolist() == [draw.clip for draw in draws]
        assert batch.seed.tolist() == [draw.seed for draw in draws]
        assert batch.step == step
    assert step == 9


def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Path and position of every read from here on."""
    seen: list[tuple[str, float]] = []
    read = ClipReader.read

    def counted(self: ClipReader, path: Path, position: float, rate: float | None) -> np.ndarray:
        seen.append((str(path), position))
        return read(self, path, position, rate)

    monkeypatch.setattr(ClipReader, "read", counted)
    return seen


def test_views_of_a_clip_cost_one_decode_and_share_its_window(
    datasets: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = mixture(datasets, batch_size=8, views_per_clip=4, total=80)
    seen = reads(monkeypatch)
    cropped = list(batches(datasets, mixture=stream))
    assert len(seen) == len({position for _, position in seen}) == 20
    for batch in cropped:
        for start in (0, 4):
            assert len(batch.clip[start : start + 4].unique()) == 1
            assert len({video.numpy().tobytes() for video in batch.video[start : start + 4]}) == 4
    seen.clear()
    for rank in (0, 1):  # whole clips: no process decodes what another does
        list(batches(datasets, mixture=stream, rank=rank, world_size=2))
    assert len(seen) == 20
    plain = AUGMENT.model_copy(
        update={"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": False, "jitter": 0.0}
    )
    for batch in batches(datasets, mixture=stream, augmentation=plain):
        for start in (0, 4):
            assert (batch.video[start : start + 4] == batch.video[start]).all()


def test_views_do_not_depend_on_the_loader_processes_or_the_ranks(
    datasets: dict[str, Dataset],
) -> None:
    stream = mixture(datasets, batch_size=8, views_per_clip=4, total=80)
    here = list(batches(datasets, mixture=stream, stop_step=2))
    there = batches(datasets, mixture=stream, stop_step=2, workers=1)
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    thirds = [
        batches(datasets, mixture=stream, stop_step=2, rank=r, world_size=3) for r in range(3)
    ]
    for whole, *parts in zip(here, *thirds, strict=True):  # cut inside of a clip's views
        assert torch.equal(whole.video, torch.cat([part.video for part in parts]))


def test_pairs_to_mix_come_next_to_each_other_from_any_number_of_ranks(
    datasets: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = mixture(datasets, batch_size=16, views_per_clip=2, total=160)
    by_seed = {
        seed: video
        for b in batches(datasets, mixture=stream)
        for seed, video in zip(b.seed.tolist(), b.video, strict=True)
    }
    seen = reads(monkeypatch)
    whole = list(batches(datasets, mixture=stream, pairing="within_source"))
    assert len(seen) == 80  # partners stand between the views of a clip, yet it is decoded once
    for step, batch in enumerate(whole):
        order = batch_order(stream, step, "within_source")
        assert batch.seed.tolist() == [stream.draw(index).seed for index in order]
        assert torch.equal(batch.source[::2], batch.source[1::2])
        assert torch.equal(torch.stack([by_seed[s] for s in batch.seed.tolist()]), batch.video)
    for ranks in (2, 3):
        parts = [
            batches(datasets, mixture=stream, pairing="within_source", rank=rank, world_size=ranks)
            for rank in range(ranks)
        ]
        for one, *shards in zip(whole, *parts, strict=True):
            assert all(len(part) % 2 == 0 for part in shards)
            assert torch.equal(one.seed, torch.cat([part.seed for part in shards]))
            assert torch.equal(one.video, torch.cat([part.video for part in shards]))


def test_all_views_of_an_unreadable_clip_are_replaced_by_the_same_clip(
    datasets: dict[str, Dataset],
) -> None:
    stream = mixture(datasets, batch_size=8, views_per_clip=4, total=80)
    (datasets["real"].root / "1.mp4").write_bytes(b"")
    replaced = 0
    for batch in batches(datasets, mixture=stream, max_unreadable=0.34):
        assert all(len(batch.clip[start : start + 4].unique()) == 1 for start in (0, 4))
        assert not ((batch.source == 0) & (batch.clip == 1)).any()
        replaced += len(batch.unreadable)
    assert replaced % 4 == 0
    assert replaced > 0


def test_only_training_clips_are_drawn(datasets: dict[str, Dataset]) -> None:
    for data in datasets.values():
        (data.root / data.split("report")[0].path).unlink()
    assert len(list(batches(datasets))) == 10


def test_starting_at_a_step_gives_the_batches_of_running_through(
    datasets: dict[str, Dataset],
) -> None:
    through = list(batches(datasets))
    resumed = list(batches(datasets, start_step=6))
    assert all(map(same, through[6:], resumed))
    assert len(resumed) == 4


@pytest.mark.parametrize(("ranks", "sizes"), [(2, [2, 2]), (3, [1, 1, 2])])
def test_ranks_share_the_global_batches_of_one(
    ranks: int, sizes: list[int], datasets: dict[str, Dataset]
) -> None:
    parts = [batches(datasets, rank=rank, world_size=ranks) for rank in range(ranks)]
    for whole, *shards in zip(batches(datasets), *parts, strict=True):
        assert [len(shard) for shard in shards] == sizes
        for name in ("video", "seed", "clip"):
            shared = torch.cat([getattr(shard, name) for shard in shards])
            assert torch.equal(getattr(whole, name), shared)


def test_loader_processes_give_the_batches_of_none(datasets: dict[str, Dataset]) -> None:
    here = batches(datasets, stop_step=3)
    there = batches(datasets, stop_step=3, workers=2)
    assert all(same(one, other) for one, other in zip(here, there, strict=True))


def faults_of_five_arrays() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    _arrays = [np.ones(3 * 2**20, np.uint8) for _ in range(5)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


class Faults(torch.utils.data.Dataset[View]):
    """Of its only view, `seed` says how many pages of fresh memory arrays take a second time."""

    def __getitems__(self, indices: list[int]) -> list[View]:
        faults = [faults_of_five_arrays() for _ in range(2)]
        nothing = np.zeros((1, 1, 1, 3), np.uint8)
        return [View(nothing, np.zeros((2, 3), np.float32), 0, 0, 0, faults[1], [])]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no say")
def test_loader_processes_use_memory_that_was_freed_again() -> None:
    (batch,) = loader._load(Faults(), [[0]], 1, False)
    assert batch.seed.item() < 100  # of 3840


def test_a_c_library_that_does_not_let_one_choose_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace())
    loader.set_up_process(0)


def test_strong_augmentation_is_each_view_s_own_wherever_it_is_loaded(
    datasets: dict[str, Dataset],
) -> None:
    layers = RandAugmentSettings(magnitude=7, layers=4, probability=0.5)
    strong = AUGMENT.model_copy(update={"rand_augment": layers, "erasing": 0.5})
    stream = mixture(datasets, views_per_clip=4)
    arguments: dict = {"mixture": stream, "augmentation": strong, "stop_step": 2}
    here = list(batches(datasets, **arguments))
    there = batches(datasets, **arguments, workers=1)
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    mild = batches(datasets, mixture=stream, stop_step=2)
    assert any(
        not torch.equal(one.video, other.video) for one, other in zip(here, mild, strict=True)
    )
    arguments["augmentation"] = AUGMENT.model_copy(update={"erasing": 1.0})
    erased, plain = batches(datasets, **arguments), batches(datasets, mixture=stream, stop_step=2)
    for one, other in zip(erased, plain, strict=True):
        boxes = (one.video != other.video)[:, 0]
        assert (boxes == boxes[:, :1]).all()
        assert len({box.numpy().tobytes() for box in boxes}) == len(boxes)
        assert (boxes.flatten(1).any(1) & ~boxes.flatten(1).all(1)).all()


def test_only_the_sources_named_are_resampled(datasets: dict[str, Dataset]) -> None:
    blurred = batches(datasets, resample={"real": (8, 6)})
    changed = {0: 0, 1: 0}
    for one, other in zip(blurred, batches(datasets), strict=True):
        for source, a, b in zip(one.source.tolist(), one.video, other.video, strict=True):
            changed[source] += not torch.equal(a, b)
    assert changed == {0: 10, 1: 0}


def test_reading_leaves_the_global_random_state_alone(datasets: dict[str, Dataset]) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(batches(datasets, stop_step=2))
    assert torch.equal(before, torch.get_rng_state())


def test_an_unreadable_clip_is_replaced_from_its_source_and_listed(
    datasets: dict[str, Dataset],
) -> None:
    whole = list(batches(datasets))
    (datasets["real"].root / "1.mp4").write_bytes(b"")
    mended = list(batches(datasets, max_unreadable=0.34))
    assert [batch.source.tolist() for batch in mended] == [b.source.tolist() for b in whole]
    for before, after in zip(whole, mended, strict=True):
        was_bad = (before.source == 0) & (before.clip == 1)
        assert after.unreadable == [("real", "1.mp4")] * int(was_bad.sum())
        assert not ((after.source == 0) & (after.clip == 1)).any()
        assert torch.equal(after.clip, after.label)
        assert torch.equal(before.video[~was_bad], after.video[~was_bad])
    assert sum(len(batch.unreadable) for batch in mended) > 1


def test_past_the_limit_the_stage_stops_and_lists_the_paths(datasets: dict[str, Dataset]) -> None:
    for name in ("1.mp4", "2.mp4"):
        (datasets["real"].root / name).write_bytes(b"not video")
    message = (
        r"'real': 2 of 3 clips cannot be read, .* max_unreadable 0.5 allows: 1.mp4, 2.mp4; mend"
    )
    with pytest.raises(ValueError, match=message):
        list(batches(datasets, max_unreadable=0.5))
    assert len(list(batches(datasets, max_unreadable=0.67))) == 10
    with pytest.raises(ValueError, match="cannot be read"):
        list(batches(datasets, max_unreadable=0.5, workers=1))


def test_a_source_of_which_nothing_can_be_read_stops_even_without_a_limit(
    datasets: dict[str, Dataset],
) -> None:
    for name in ("0.mp4", "1.mp4", "2.mp4"):
        (datasets["real"].root / name).unlink()
    with pytest.raises(ValueError, match="'real': not one of its clips can be read"):
        list(batches(datasets, max_unreadable=1.0))
    with pytest.raises(ValueError, match="1 of 3 clips cannot be read"):  # and looks no further
        list(batches(datasets, max_unreadable=0.0))


def test_the_limit_counts_paths_and_not_times_and_029_of_100_allows_29() -> None:
    found = [("real", f"{i}.mp4") for i in range(29)]
    check_unreadable(found * 3, {"real": 100}, 0.29)
    with pytest.raises(ValueError, match=r"30 of 100 .*, \.\.\.;"):
        check_unreadable([*found, ("real", "x.mp4")], {"real": 100}, 0.29)


def evaluated(
    data: Dataset, clips: int = 1, crops: Literal[1, 3] = 1, **changes: object
) -> Iterator[Batch]:
    arguments: dict = {
        "batch_size": 4,
        "workers": 0,
        "video_reader": "pyav",
        "pin_memory": False,
        "max_unreadable": 0.0,
        **changes,
    }
    views = Views(clips=clips, crops=crops)
    return eval_batches(data, data.clips, SETTINGS, views, **arguments)


def test_evaluation_sees_every_clip_once_in_order(datasets: dict[str, Dataset]) -> None:
    data = datasets["virtual"]
    seen = list(evaluated(data))
    assert [len(batch) for batch in seen] == [4, 3]
    assert torch.cat([batch.clip for batch in seen]).tolist() == list(range(7))
    assert torch.cat([batch.label for batch in seen]).tolist() == [c.label for c in data.clips]


def test_evaluation_leaves_out_and_lists_what_cannot_be_read(datasets: dict[str, Dataset]) -> None:
    data = datasets["virtual"]
    bad = ["0.mp4", "1.mp4", "4.mp4", "6.mp4"]  # of batches of 2: all, none, half, all
    for name in bad:
        (data.root / name).write_bytes(b"")

    def run(max_unreadable: float) -> list[Batch]:
        return list(evaluated(data, batch_size=2, max_unreadable=max_unreadable))

    seen = run(0.6)
    assert [batch.clip.tolist() for batch in seen] == [[2, 3], [5]]
    assert [len(batch.video) for batch in seen] == [2, 1]
    assert [path for batch in seen for _, path in batch.unreadable] == bad
    with pytest.raises(ValueError, match="'virtual': 3 of 7 clips cannot be read"):
        run(0.4)
    for clip in data.clips:
        (data.root / clip.path).write_bytes(b"")
    with pytest.raises(ValueError, match="'virtual': not one of its clips can be read"):
        run(1.0)


def test_evaluation_views_are_windows_from_start_to_end_each_with_its_crops(
    datasets: dict[str, Dataset],
) -> None:
    data = datasets["virtual"]
    seen = list(evaluated(data, clips=3, crops=3))
    assert [len(batch) for batch in seen] == [4 * 9, 3 * 9]
    assert torch.cat([batch.clip for batch in seen]).tolist() == [
        i for i in range(7) for _ in range(9)
    ]
    assert torch.cat([batch.label for batch in seen]).tolist() == [
        i for i in range(7) for _ in range(9)
    ]
    for batch in seen:
        for index, views in zip(batch.clip[::9], batch.video.split(9), strict=True):
            path = data.root / data.clips[int(index)].path
            for window, position in enumerate((0, 0.5, 1)):
                frames = read_clip(
                    path, frames=4, seconds=0.6, position=position, short_side=16, frame_rate=None
                )
                assert frames.shape == (4, 16, 21, 3)
                for crop, left in enumerate((0, 2, 5)):
                    expected = as_seen(frames[:, :, left : left + 16], "per_clip")
                    assert torch.equal(views[3 * window + crop], expected)


def test_one_view_is_the_middle_and_two_windows_are_the_ends(datasets: dict[str, Dataset]) -> None:
    data = datasets["virtual"]
    nine = torch.cat([batch.video for batch in evaluated(data, clips=3, crops=3)]).unflatten(
        0, (7, 9)
    )
    one = torch.cat([batch.video for batch in evaluated(data)])
    assert torch.equal(one, nine[:, 4])
    two = torch.cat([batch.video for batch in evaluated(data, clips=2)]).unflatten(0, (7, 2))
    assert torch.equal(two, nine[:, [1, 7]])


def test_evaluation_views_are_the_same_from_loader_processes(datasets: dict[str, Dataset]) -> None:
    here = evaluated(datasets["real"], clips=2, crops=3)
    there = evaluated(datasets["real"], clips=2, crops=3, workers=2)
    assert all(same(one, other) for one, other in zip(here, there, strict=True))


def test_evaluation_starts_no_more_processes_than_it_has_batches(
    datasets: dict[str, Dataset],
) -> None:
    seen = evaluated(datasets["virtual"], workers=3)
    next(seen)
    assert len(multiprocessing.active_children()) == 2  # for 7 clips, 4 a batch
    assert len(list(seen)) == 1


def test_a_clip_that_cannot_be_read_is_left_out_with_all_its_views(
    datasets: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets["virtual"]
    (data.root / "2.mp4").write_bytes(b"")
    read = ClipReader.read

    def fails_late(self: ClipReader, path: Path, position: float, rate: float | None) -> np.ndarray:
        if path.name == "5.mp4" and position == 1:
            raise ClipUnreadable(path, "its end is missing")
        return read(self, path, position, rate)

    monkeypatch.setattr(ClipReader, "read", fails_late)
    seen = list(evaluated(data, clips=2, crops=3, max_unreadable=0.3))
    assert [batch.clip[::6].tolist() for batch in seen] == [[0, 1, 3], [4, 6]]
    assert all(len(batch.video) == len(batch) for batch in seen)
    assert [batch.unreadable for batch in seen] == [[("virtual", "2.mp4")], [("virtual", "5.mp4")]]


def test_a_batch_splits_into_parts_and_counts_its_unreadable_clips_once(
    datasets: dict[str, Dataset],
) -> None:
    (datasets["real"].root / "1.mp4").write_bytes(b"")
    for batch in batches(datasets, max_unreadable=0.5):
        parts = batch.split(3)
        assert [len(part) for part in parts] == [3, 1]
        assert torch.equal(torch.cat([part.video for part in parts]), batch.video)
        assert {part.step for part in parts} == {batch.step}
        assert [pair for part in parts for pair in part.unreadable] == batch.unreadable
