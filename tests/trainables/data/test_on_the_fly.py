from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.toy import MIXTURE, toy_data
from tests.trainables.data.test_generators import Net, exported
from tests.trainables.stages.test_contrastive import INVERTER
from tests.trainables.toy_videos import run_chain
from tests.trainables.train_views import contrast
from trainables.data.batch import Batch
from trainables.data.catalog import Dataset, load_catalog
from trainables.data.catalog_entries import written_out
from trainables.data.check_dataset import main as check_dataset
from trainables.data.clips import ClipReader
from trainables.data.files import check_files
from trainables.data.generators.__main__ import main
from trainables.data.generators.exported import loaded
from trainables.data.latents import training_latents
from trainables.data.loader import training_batches
from trainables.data.mixture import Mixture
from trainables.data.views import frames_of
from trainables.stage_store import StageStore
from trainables.training_settings import AugmentSettings, ClipSettings

ENTRY = {"generator": "g.pt2", "clips": 40, "heldout_clips": 8, "seed": 3, "humans": "virtual"}
CLIP = ClipSettings(frames=3, seconds=1.0, resolution=16, normalize="per_clip")
AUGMENT = AugmentSettings(
    crop_scale=(0.6, 1.0),
    crop_ratio=(0.8, 1.25),
    flip=True,
    jitter=0.4,
    rand_augment=None,
    erasing=0.0,
)
READER = ClipReader(frames=3, seconds=1e6, short_side=64, keep_bytes=0)


def catalog(folder: Path, **entries: dict[str, Any]) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump({"datasets": entries}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    exported(folder / "g.pt2", with_class=True)
    return folder


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Dataset:
    entry = {**ENTRY, "classes": ["dark", "bright"]}
    return load_catalog(catalog(folder, drawn=entry))["drawn"]


def batches(dataset: Dataset, start: int = 0, stop: int = 6, workers: int = 0) -> Iterator[Batch]:
    mixture = Mixture(
        sizes={"drawn": 40},
        shares={"drawn": 1},
        granularity="clip",
        batch_size=4,
        seed=0,
        total=80,
        views_per_clip=2,
    )
    return training_batches(
        {"drawn": dataset},
        mixture,
        CLIP,
        AUGMENT,
        start_step=start,
        stop_step=stop,
        rank=0,
        world_size=1,
        workers=workers,
        video_reader="decord",
        max_unreadable=0.1,
        pairing="same_clip",
        resample={},
        second_views={"drawn": 0.5},
        pin_memory=False,
    )


def test_clips_are_those_that_the_command_would_write(folder: Path, drawn: Dataset) -> None:
    options = ["--clips", "40", "--heldout", "8", "--seed", "3", "--classes", "dark", "bright"]
    command = ["program", str(folder / "g.pt2"), str(folder / "out"), "--crf", "1", *options]
    assert main([*command, "--scales", "2", "--workers", "1"]) == 0
    files = load_catalog(folder / "out/catalog.yaml")["generated"]
    assert len(drawn.clips) == 48 and len(drawn.split("selection")) == 8
    for number in (0, 7, 47):
        mine, its = drawn.clips[number], files.clips[number]
        assert (mine.path, mine.split, mine.group) == (its.path, its.split, its.group)
        assert drawn.classes[mine.label] == files.classes[its.label]
        for scale in (0.0, 2.0):
            pair = [
                frames_of(drawn, mine, scale, READER, 0),
                frames_of(files, its, scale, READER, 0),
            ]
            grey = [frames.astype(float).mean(axis=-1) for frames in pair]
            assert np.abs(grey[0] - grey[1]).mean() < 6  # chroma is halved
    assert np.array_equal(training_latents(drawn), training_latents(files))


def test_a_run_that_goes_on_draws_what_an_uninterrupted_one_does(drawn: Dataset) -> None:
    whole = list(batches(drawn))
    torch.manual_seed(7)  # nothing that was drawn before matters
    for batch, again in zip(whole[2:], batches(drawn, start=2), strict=True):
        assert torch.equal(batch.frames, again.frames) and torch.equal(batch.clip, again.clip)
    first = whole[0]
    assert first.clip[0::2].tolist() == first.clip[1::2].tolist()
    assert not torch.equal(first.frames[0], first.frames[1])


def test_drawing_leaves_the_number_of_threads_as_it_was(drawn: Dataset) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # drawing is done by one
    try:
        next(iter(batches(drawn)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_workers_draw_what_the_process_itself_draws(drawn: Dataset) -> None:
    for batch, alone in zip(batches(drawn, workers=2), batches(drawn), strict=True):
        assert torch.equal(batch.frames, alone.frames) and torch.equal(batch.label, alone.label)


def test_a_contrastive_stage_and_an_inverter_train_from_it(
    drawn: Dataset, store: StageStore
) -> None:
    data, mixture = {**toy_data(), "drawn": drawn}, {**MIXTURE, "shares": {"drawn": 1}}
    stage = contrast(data, mixture=mixture, view_scale=0.7)  # any scale will do
    record = run_chain(stage, store, data)
    assert record.trained_on["drawn"]["humans"] == "virtual"
    other = contrast(data, mixture=mixture, view_scale=0.8)
    assert other.identity != stage.identity
    inverter = contrast(data, **{**INVERTER, "mixture": mixture}, epochs=1)
    run_chain(inverter, store, data)
    assert store.progress(inverter.identity)[-1]["latent_error"] > 0


def test_what_decides_the_clips_is_in_the_identity_and_where_they_are_is_not(
    tmp_path: Path, drawn: Dataset
) -> None:
    exported(tmp_path / "h.pt2", with_class=True)
    whole = {**ENTRY, "classes": ["dark", "bright"]}

    def content(**changes: Any) -> str:
        path = catalog(tmp_path, other={**whole, "generator": "h.pt2", **changes})
        return load_catalog(path)["other"].content_hash

    (tmp_path / "h.pt2").write_bytes((drawn.root / "g.pt2").read_bytes())
    assert content() == drawn.content_hash
    changed = [{"seed": 4}, {"clips": 41}, {"humans": "real"}, {"classes": ["bright", "dark"]}]
    exported(tmp_path / "k.pt2", lambda made: made / 2, with_class=True)
    others = {content(**each) for each in (*changed, {"generator": "k.pt2"})}
    assert len(others | {drawn.content_hash}) == 6


def test_a_subset_draws_the_clips_of_its_classes(folder: Path, drawn: Dataset) -> None:
    entries = {
        "whole": {**ENTRY, "classes": ["dark", "bright"]},
        "part": {"subset_of": "whole", "classes": {"last": 1}, "clips_per_class": 5},
    }
    part = load_catalog(catalog(folder, **entries), ["part"])["part"]
    assert part.classes == ("bright",) and len(part.split("train")) == 5
    clip = part.split("train")[0]
    same = next(each for each in drawn.clips if each.path == clip.path)
    pair = [frames_of(of, each, 0.0, READER, 0) for of, each in ((part, clip), (drawn, same))]
    assert np.array_equal(*pair)


def test_a_program_that_fails_on_some_latent_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    exported(tmp_path / "g.pt2")
    plain = load_catalog(catalog(tmp_path, drawn=ENTRY))["drawn"]
    net = Net(lambda made: made, (3, 16, 18, 3))  # the same program
    means = [float(net(torch.from_numpy(z[None])).detach().mean()) for z in training_latents(plain)]
    darkest = int(np.argmin(means))
    assert darkest > 1

    def nan_where_darkest(made: torch.Tensor) -> torch.Tensor:
        return torch.where(made.mean() < means[darkest] + 1e-5, float("nan"), made)

    exported(tmp_path / "g.pt2", nan_where_darkest)
    dataset = load_catalog(catalog(tmp_path, drawn=ENTRY))["drawn"]
    check_files(dataset)  # which draws the first two
    with pytest.raises(ValueError, match=r"g\.pt2: sample \d+ holds NaN"):
        list(batches(dataset, stop=20))  # all 40 clips


def test_a_program_that_gives_no_clips_is_found_before_anything_trains(tmp_path: Path) -> None:
    exported(tmp_path / "g.pt2", lambda made: 2 * made - 1)
    dataset = load_catalog(catalog(tmp_path, drawn=ENTRY))["drawn"]
    with pytest.raises(ValueError, match="floats must be from 0 to 1"):
        check_files(dataset)


def test_a_program_that_is_replaced_under_a_run_is_refused(tmp_path: Path) -> None:
    exported(tmp_path / "g.pt2")
    dataset = load_catalog(catalog(tmp_path, drawn=ENTRY))["drawn"]
    exported(tmp_path / "g.pt2", lambda made: made / 2)
    loaded.cache_clear()  # as in another process
    with pytest.raises(ValueError, match="has changed since it was first looked at"):
        check_files(dataset)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"humans": None}, "does not say what it has learnt from; give its catalog entry"),
        ({"classes": ["dark"]}, "a latent and a class|a latent alone"),
        ({"clips": 0}, "datasets.drawn.clips: input should be greater"),
        ({"clip": 5}, "datasets.drawn.clip: unknown key; did you mean 'clips'"),
        ({"generator": "none.pt2"}, "No such file or directory; give a file that torch.export"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    exported(tmp_path / "g.pt2")
    with pytest.raises(ValueError, match=says):
        load_catalog(catalog(tmp_path, drawn={**ENTRY, **changes}))


def test_what_needs_files_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = catalog(folder, drawn={**ENTRY, "classes": ["dark", "bright"]})
    assert check_dataset([str(path), "drawn"]) == 2
    assert "its clips are no files" in " ".join(capsys.readouterr().out.split())
    assert main(["train", str(path), "drawn", str(folder / "again.pt2")]) == 2
    assert "its clips are no files" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="has no files to prepare"):
        written_out(path, "drawn")
