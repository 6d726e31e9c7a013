from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.trainables.data.videos import write_video
from trainables.data.catalog import load_catalog
from trainables.data.clips import read_clip
from trainables.data.files import check_files
from trainables.data.prepare_dataset import main
from trainables.data.reencode import Job, Recipe, prepare_clips, reencode

ROOT = Path(__file__).parents[3]
RECIPE = Recipe(short_side=32, gop=4, crf=18)


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def key_frames(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [n for n, frame in enumerate(container.decode(video=0)) if frame.key_frame]


def write_catalog(folder: Path) -> Path:
    """One dataset: two videos, a folder of frames, a file that is no video."""
    videos = folder / "videos"
    write_video(videos / "a" / "one.avi", count=30, gop=250)
    write_video(videos / "two.mp4", count=20, gop=250, seed=1)
    (videos / "frames").mkdir()
    for index in range(12):
        image = np.full((40, 60, 3), 20 * index, np.uint8)
        cv2.imwrite(str(videos / "frames" / f"{index:03}.png"), image)
    (videos / "broken.mp4").write_bytes(b"no video")
    listed = ("a/one.avi", "two.mp4", "frames", "broken.mp4")
    (folder / "clips.txt").write_text("".join(f"{path};{n % 2}\n" for n, path in enumerate(listed)))
    catalog = folder / "catalog.yaml"
    catalog.write_text(
        "datasets:\n  set: {clips: clips.txt, root: videos, humans: none, frame_rate: 10}\n"
    )
    return catalog


def prepare(catalog: Path, into: Path, *more: str) -> int:
    arguments = [str(catalog), "set", "--into", str(into), "--short-side", "32", "--workers", "1"]
    return main([*arguments, *more])


def test_frames_keep_their_places_and_what_they_show(tmp_path: Path) -> None:
    source = write_video(tmp_path / "long.mp4", count=30, gop=250)
    reencode(source, tmp_path / "short.avi", RECIPE, None)
    before, after = frames_of(source), frames_of(tmp_path / "short.avi")
    assert len(after) == len(before)
    for place, old in enumerate(before):
        small = cv2.resize(old, after[0].shape[1::-1], interpolation=cv2.INTER_AREA)
        apart = [np.abs(small.astype(int) - new.astype(int)).mean() for new in after]
        assert apart[place] == min(apart) < 20


def test_key_frames_are_close_and_the_short_side_is_small(tmp_path: Path) -> None:
    source = write_video(tmp_path / "long.mp4", width=128, height=96, count=30, gop=250)
    assert key_frames(source) == [0]
    reencode(source, tmp_path / "short.mp4", RECIPE, None)
    assert key_frames(tmp_path / "short.mp4") == list(range(0, 30, 4))
    assert frames_of(tmp_path / "short.mp4")[0].shape == (32, 42, 3)
    reencode(source, tmp_path / "as_it_is.mp4", Recipe(short_side=500, gop=4, crf=18), None)
    assert frames_of(tmp_path / "as_it_is.mp4")[0].shape == (96, 128, 3)


def test_the_frame_rate_stays_so_that_a_window_is_as_long_as_before(tmp_path: Path) -> None:
    source = write_video(tmp_path / "long.mp4", count=30, rate=12)
    reencode(source, tmp_path / "short.mp4", Recipe(short_side=48, gop=4, crf=18), None)

    def window(path: Path) -> np.ndarray:
        return read_clip(
            path, frames=4, seconds=1.0, position=0.5, short_side=48, frame_rate=None
        ).astype(int)

    old, new = window(source), window(tmp_path / "short.mp4")
    assert old.shape == new.shape and np.abs(old - new).mean() < 12


def test_a_dataset_is_used_from_its_new_catalog_with_another_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_catalog(tmp_path)
    assert prepare(catalog, tmp_path / "out") == 1  # one cannot be read
    assert "3 clips made, 0 were there, 1 cannot be read" in capsys.readouterr().out
    old = load_catalog(catalog)["set"]
    new = load_catalog(tmp_path / "out" / "catalog.yaml")["set"]
    check_files(new)
    assert [clip.path for clip in new.clips] == [clip.path for clip in old.clips]
    assert [clip.label for clip in new.clips] == [clip.label for clip in old.clips]
    assert new.content_hash != old.content_hash
    assert len(frames_of(new.root / "frames")) == 12
    assert (new.root / "broken.mp4").stat().st_size == 0
    with (tmp_path / "out" / "set.unreadable.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["path"].endswith("broken.mp4") and len(row["reason"]) > 5


def test_what_is_there_is_not_made_again_and_keeps_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, out = write_catalog(tmp_path), tmp_path / "out"
    prepare(catalog, out)
    times = {path: path.stat().st_mtime_ns for path in (out / "set").rglob("*")}
    reasons = (out / "set.unreadable.csv").read_text()
    assert prepare(catalog, out) == 1
    assert "0 clips made, 3 were there, 1 cannot be read" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (out / "set").rglob("*")} == times
    assert (out / "set.unreadable.csv").read_text() == reasons


def test_killed_in_the_middle_it_leaves_no_half_clip_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    names = [f"{n}.mp4" for n in range(12)]
    first = write_video(tmp_path / "videos" / "0.mp4", width=320, height=240, count=100)
    for name in names[1:]:
        os.link(first, tmp_path / "videos" / name)
    (tmp_path / "clips.txt").write_text("".join(f"{name};0\n" for name in names))
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text("datasets:\n  set: {clips: clips.txt, root: videos, humans: none}\n")
    made = tmp_path / "out" / "set"
    command = [sys.executable, "-m", "trainables.data.prepare_dataset", str(catalog), "set"]
    process = subprocess.Popen(
        [*command, "--into", str(tmp_path / "out"), "--workers", "1"],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(list(made.glob("[0-9]*.mp4"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    whole = list(made.glob("[0-9]*.mp4"))
    assert 2 <= len(whole) < 12
    assert all(len(frames_of(path)) == 100 for path in whole)
    assert main([str(catalog), "set", "--into", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert len(list(made.glob("[0-9]*.mp4"))) == 12


def test_a_disk_without_room_ends_the_command_which_goes_on_once_there_is_room(
    tmp_path: Path,
) -> None:
    write_video(tmp_path / "videos" / "a.mp4", width=320, height=240, count=60)
    (tmp_path / "clips.txt").write_text("a.mp4;0\n")
    catalog, out = tmp_path / "catalog.yaml", tmp_path / "out"
    catalog.write_text("datasets:\n  set: {clips: clips.txt, root: videos, humans: none}\n")
    command = [sys.executable, "-m", "trainables.data.prepare_dataset", str(catalog), "set"]
    command += ["--into", str(out), "--short-side", "32", "--workers", "1"]

    def no_room() -> None:  # for more than 4 kB a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(command, cwd=ROOT, preexec_fn=no_room, capture_output=True, text=True)
    assert done.returncode == 2 and "File too large" in done.stdout, done.stdout + done.stderr
    assert list((out / "set").iterdir()) == []
    assert prepare(catalog, out) == 0
    assert len(frames_of(out / "set" / "a.mp4")) == 60


def test_another_recipe_over_clips_that_are_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, out = write_catalog(tmp_path), tmp_path / "out"
    prepare(catalog, out)
    before = (out / "catalog.yaml").read_text()
    assert prepare(catalog, out, "--short-side", "24") == 2
    told = capsys.readouterr().out
    assert "short_side was 32 and is 24. Give another folder" in told
    assert (out / "catalog.yaml").read_text() == before
    (out / "set.json").unlink()  # and one that nobody knows
    assert prepare(catalog, out) == 2
    assert "no set.json that says how they were made" in capsys.readouterr().out


def test_a_clip_of_one_frame_is_unreadable_here_as_in_training(tmp_path: Path) -> None:
    job = Job(write_video(tmp_path / "a.mp4", count=1), tmp_path / "out" / "a.mp4", None)
    (prepared,) = prepare_clips([job], RECIPE)
    assert prepared.state == "unreadable" and "1 frames" in prepared.reason
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]


def test_a_subset_and_the_dataset_s_own_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_catalog(tmp_path)
    with catalog.open("a") as file:
        file.write("  few: {subset_of: set, classes: {first: 1}, clips_per_class: 1}\n")
    assert main([str(catalog), "few", "--into", str(tmp_path / "out")]) == 2
    assert "subset; give 'set'" in capsys.readouterr().out
    (tmp_path / "videos").rename(tmp_path / "set")
    catalog.write_text(catalog.read_text().replace("root: videos", "root: set"))
    assert main([str(catalog), "set", "--into", str(tmp_path)]) == 2
    assert "choose another folder" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--workers", "--gop", "--short-side"])
def test_a_number_that_must_be_positive_is_refused_at_once(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "none.yaml"), "set", "--into", str(tmp_path), option, "0"])
    assert f"argument {option}: 0 is not at least 1" in capsys.readouterr().err
