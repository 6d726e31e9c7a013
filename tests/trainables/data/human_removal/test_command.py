from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainables.data.human_removal.walker import (
    SETTINGS,
    Walk,
    panning_walk,
    still_walk,
    texture,
    write_frames,
    write_lossless,
)
from trainables.data.catalog import load_catalog
from trainables.data.claims import locked
from trainables.data.clips import read_clip
from trainables.data.files import check_files
from trainables.data.human_removal.__main__ import main
from trainables.data.human_removal.clip_files import copy_clip, find_clips, read_whole, sha256_of
from trainables.data.human_removal.one_clip import Job, Outcome, read_outcome, remove_people
from trainables.data.human_removal.report import sentences, totals

ROOT = Path(__file__).parents[4]
FRAMES = 5  # of the tests' clips: the detector takes a tenth of a second for each


def short_walk() -> Walk:
    return still_walk(count=FRAMES, width=100)


def job(folder: Path, path: str, masks: Path | None = None) -> Job:
    return Job(path, folder / path, folder / "out", masks, None)


def done(one: Job, **changes: object) -> Outcome:
    (outcome,) = remove_people([one], replace(SETTINGS, **changes))
    return outcome


def made(folder: Path) -> dict[str, bytes]:
    """Everything under a folder, file by file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_source(folder: Path, clips: int = 3) -> list[str]:
    """Videos of a person in scenes, each with masks beside it. Returns the command's arguments."""
    for n in range(clips):
        walk = panning_walk(count=FRAMES, width=100) if n % 2 else short_walk()
        write_lossless(folder / "in" / "walk" / f"{n}.mp4", walk.frames)
        write_frames(folder / "masks" / "walk" / str(n), walk.masks)
    return [str(folder / "in"), str(folder / "out"), "--masks", str(folder / "masks" / "{path}")]


def test_the_clip_is_as_it_was_but_for_the_person_and_its_mask_is_kept(tmp_path: Path) -> None:
    walk = short_walk()
    write_lossless(tmp_path / "a" / "walk.mp4", walk.frames)
    masks = write_frames(tmp_path / "masks", walk.masks)
    outcome = done(job(tmp_path, "a/walk.mp4", masks))
    assert outcome.state == "removed" and outcome.psnr_outside is None and outcome.still
    assert outcome.hits_in_holes[0] >= 1 and outcome.hits_in_holes[1] == 0
    frames, rate = read_whole(tmp_path / "out" / "clips" / "a" / "walk.mp4")
    files = sorted((tmp_path / "out" / "masks" / "a" / "walk.mp4").glob("*.png"))
    kept = np.stack([np.asarray(Image.open(file)) for file in files])
    holes = kept > 0
    assert set(np.unique(kept)) == {0, 255}, "a soft rim belongs to the hole"
    assert rate == 10 and len(files) == FRAMES and holes[walk.masks > 0].all()
    assert (frames[~holes] == walk.frames[~holes]).all()
    assert np.abs(frames.astype(int) - walk.truth)[holes].mean() < 3
    read = read_clip(
        tmp_path / "out" / "clips" / "a" / "walk.mp4",
        frames=4, seconds=1.0, position=0.5, short_side=96, frame_rate=None,
    )  # fmt: skip
    assert read.shape == (4, 96, 100, 3)  # training's reader takes it


@pytest.mark.slow
def test_what_encoding_costs_outside_the_holes_is_measured(tmp_path: Path) -> None:
    walk = short_walk()
    write_lossless(tmp_path / "walk.mp4", walk.frames)
    masks = write_frames(tmp_path / "masks", walk.masks)
    outcome = done(job(tmp_path, "walk.mp4", masks), crf=16)
    assert outcome.psnr_outside is not None and 28 < outcome.psnr_outside < 60


def test_without_people_a_clip_keeps_its_bytes(tmp_path: Path) -> None:
    frames = np.stack([texture(96, 100)] * 2)
    video = write_lossless(tmp_path / "empty.avi", frames)
    write_frames(tmp_path / "folder", frames)
    for path in ("empty.avi", "folder"):
        outcome = done(job(tmp_path, path), masks_from="detector")
        assert outcome.state == "no_people" and outcome.hits == (0, 0)
        masks = [np.asarray(Image.open(f)) for f in (tmp_path / "out" / "masks" / path).iterdir()]
        assert len(masks) == 2 and not np.any(masks)
    assert (tmp_path / "out" / "clips" / "empty.avi").read_bytes() == video.read_bytes()
    assert made(tmp_path / "out" / "clips" / "folder") == made(tmp_path / "folder")


def test_a_folder_inside_a_folder_of_frames_is_no_part_of_the_clip(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.mkdir()
    (clip / "00000.png").write_bytes(b"a frame")
    before = sha256_of(clip)
    (clip / "thumbnails").mkdir()
    assert sha256_of(clip) == before
    copy_clip(clip, tmp_path / "copy")
    assert [file.name for file in (tmp_path / "copy").iterdir()] == ["00000.png"]


def test_hats_blur_can_be_put_on_clips_without_people(tmp_path: Path) -> None:
    frames = np.stack([texture(300, 320)] * 2)
    write_frames(tmp_path / "folder", frames)
    assert done(job(tmp_path, "folder"), masks_from="detector", hat_resampling=True).state
    blurred, _ = read_whole(tmp_path / "out" / "clips" / "folder")
    assert blurred.shape == frames.shape and (blurred != frames).mean() > 0.3


@pytest.mark.slow
def test_who_is_found_in_the_result_is_removed_in_a_second_attempt_or_the_clip_dropped(
    tmp_path: Path,
) -> None:
    walk = still_walk(count=8)
    write_lossless(tmp_path / "walk.mp4", walk.frames)
    nothing = write_frames(tmp_path / "masks", np.zeros_like(walk.masks))
    dropped = done(job(tmp_path, "walk.mp4", nothing), redo=0, max_leak=0.0)
    assert dropped.state == "dropped" and dropped.leak_rate > 0.3
    assert not (tmp_path / "out" / "clips").exists()
    again = done(job(tmp_path, "walk.mp4", nothing)._replace(into=tmp_path / "two"), max_leak=0.0)
    assert again.state == "removed" and again.attempts == 2 and again.leak_rate == 0


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([texture(48, 64)], "1 frames; 2 are needed"),
        ([texture(48, 64), texture(48, 60)], "change size: 1 is 60x48, 0 is 64x48"),
    ],
    ids=["one frame", "changing size"],
)
def test_clips_that_cannot_be_used_are_refused_with_a_reason(
    tmp_path: Path, images: list[np.ndarray], told: str
) -> None:
    for index, image in enumerate(images):
        write_frames(tmp_path / "clip", np.stack([image] * (index + 1)))
    for file, image in enumerate(images):
        write_frames(tmp_path / "clip" / "x", image[None])
        (tmp_path / "clip" / "x" / "000.png").rename(tmp_path / "clip" / f"{file:03}.png")
    (tmp_path / "clip" / "x").rmdir()
    outcome = done(job(tmp_path, "clip"))
    assert outcome.state == "refused" and told in outcome.reason
    assert read_outcome(tmp_path / "out", "clip") == outcome


def test_a_video_of_one_frame_is_refused_as_a_folder_of_one_is(tmp_path: Path) -> None:
    write_lossless(tmp_path / "clip.mp4", texture(48, 64)[None])
    outcome = done(job(tmp_path, "clip.mp4"))
    assert outcome.state == "refused" and "has 1 frames; 2 are needed" in outcome.reason
    assert not (tmp_path / "out" / "clips").exists()


def test_a_video_whose_frames_change_size_is_refused(tmp_path: Path) -> None:
    parts = []
    for width in (64, 96):
        video = write_lossless(tmp_path / f"{width}.h264", np.stack([texture(48, width)] * 4))
        parts.append(video.read_bytes())
        video.unlink()
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    outcome = done(job(tmp_path, "both.h264"))
    assert outcome.state == "refused" and "change size: 4 is 96x48" in outcome.reason


def test_people_in_every_pixel_leave_nothing_to_fill_from(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", np.stack([texture(48, 64)] * 3))
    masks = write_frames(tmp_path / "masks", np.full((3, 48, 64), 255, np.uint8))
    outcome = done(job(tmp_path, "clip", masks))
    assert outcome.state == "refused" and "cover 100 % of its pixels" in outcome.reason


def test_the_command_makes_a_dataset_that_a_sweep_can_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_source(tmp_path, clips=1)
    (tmp_path / "in" / "walk" / "broken.mp4").write_bytes(b"no video")
    assert main([*arguments, "--workers", "1", "--crf", "0", "--name", "empty_streets"]) == 1
    told = capsys.readouterr().out
    assert "1 removed" in told and "1 refused" in told and "broken.mp4" in told
    dataset = load_catalog(tmp_path / "out" / "catalog.yaml")["empty_streets"]
    check_files(dataset)
    assert dataset.humans == "removed" and dataset.classes == ("walk",)
    assert dataset.leak_rate is not None and 0 <= dataset.leak_rate < 0.2
    assert [clip.path for clip in dataset.clips] == ["walk/0.mp4"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "sheets/walk/0.mp4.jpg" in report and "Not kept" in report and "broken.mp4" in report
    assert (tmp_path / "out" / "sheets" / "walk" / "0.mp4.jpg").exists()
    # The same command again makes nothing anew; other settings need another folder.
    before = made(tmp_path / "out")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "clips").rglob("*")}
    main([*arguments, "--workers", "1", "--crf", "0", "--name", "empty_streets"])
    assert made(tmp_path / "out") == before
    assert all(file.stat().st_mtime_ns == written for file, written in times.items())
    assert main([*arguments, "--crf", "16"]) == 2
    assert "crf 0, now 16" in capsys.readouterr().out


def test_a_second_command_on_the_same_folder_is_refused_while_the_first_is_at_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_source(tmp_path, clips=1)
    with locked(tmp_path / "out" / ".lock", tmp_path / "out"):
        assert main([*arguments, "--workers", "1"]) == 2
    assert "another process is at work in it" in capsys.readouterr().out
    assert not (tmp_path / "out" / "settings.json").exists()


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        (("walk/0.mp4", "walk/1.mp4", "walk/./0.mp4"), "walk/0.mp4 is listed twice"),
        (("walk", "walk/1.mp4"), "walk/1.mp4 lies in walk, which is a clip itself"),
        ((), "walk/0.mp4 lies in walk, which is a clip itself, a folder of frames; move one"),
    ],
    ids=["twice", "one in another", "one found in another"],
)
def test_clips_that_would_replace_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: tuple[str, ...], told: str
) -> None:
    arguments = [*write_source(tmp_path, clips=2), "--frame-rate", "10", "--workers", "1"]
    write_frames(tmp_path / "in" / "walk", np.stack([texture(48, 64)] * 2))
    if listed:
        manifest = tmp_path / "clips.csv"
        manifest.write_text("\n".join(["path,label", *(f"{path},walk" for path in listed)]))
        arguments += ["--clips", str(manifest)]
    assert main(arguments) == 2
    assert told in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()


def test_where_the_clips_come_from_and_their_licence_are_those_of_the_last_run_that_said_so(
    tmp_path: Path,
) -> None:
    arguments = [*write_source(tmp_path, clips=1), "--workers", "1"]
    assert main([*arguments, "--licence", "CC BY 4.0"]) == 0
    (tmp_path / "in").rename(tmp_path / "moved")
    arguments[0] = str(tmp_path / "moved")
    assert main(arguments) == 0
    known = json.loads((tmp_path / "out" / "settings.json").read_text())["provenance"]
    assert known["source"] == arguments[0]
    assert load_catalog(tmp_path / "out" / "catalog.yaml")["out"].licence == "CC BY 4.0"
    assert main([*arguments, "--licence", "CC0"]) == 0
    assert load_catalog(tmp_path / "out" / "catalog.yaml")["out"].licence == "CC0"


def test_the_report_counts_the_clips_that_were_done_again() -> None:
    once = Outcome(path="a.mp4", state="removed", frames=8, attempts=1)
    twice = [replace(once, path=path, attempts=2) for path in "bc"]
    total = totals([once, replace(twice[0], state="dropped"), twice[1]])
    assert any(line.startswith("2 clips done again") for line in sentences(total))
    assert not any("again, with" in line for line in sentences(totals([once])))


def test_a_clip_that_was_deleted_since_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*write_source(tmp_path, clips=2), "--workers", "1"]
    assert main(arguments) == 0
    before = made(tmp_path / "out")
    (tmp_path / "out" / "clips" / "walk" / "0.mp4").unlink()
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 of 2 clips were there" in capsys.readouterr().out
    assert made(tmp_path / "out") == before


@pytest.mark.parametrize("pattern", ["masks/all", "masks/{clip}", "masks/{", "masks/{}"])
def test_a_pattern_that_does_not_name_each_clips_masks_is_refused(
    pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    write_source(tmp_path, clips=1)
    assert main([source, out, "--masks", pattern]) == 2
    assert "--masks" in capsys.readouterr().out


def test_other_masks_are_another_dataset_and_what_was_refused_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*write_source(tmp_path, clips=2), "--workers", "1"]
    (lost,) = sorted((tmp_path / "masks" / "walk" / "1").iterdir())[:1]
    content = lost.read_bytes()
    lost.unlink()
    catalog = tmp_path / "out" / "catalog.yaml"
    assert main(arguments) == 1 and "1 refused" in capsys.readouterr().out
    lost.write_bytes(content)
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "1 of 2 clips were there" in told and "2 removed" in told
    first = catalog.read_text()
    masks = tmp_path / "masks" / "walk" / "0"
    drawn = np.stack([np.asarray(Image.open(file)) for file in sorted(masks.iterdir())])
    write_frames(masks, np.roll(drawn, 3, axis=1))
    assert main(arguments) == 0
    assert "1 of 2 clips were there" in capsys.readouterr().out
    assert catalog.read_text() != first


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    arguments = write_source(tmp_path)
    assert main([*arguments, "--workers", "1"]) == 0
    arguments[1] = str(tmp_path / "other")
    assert main([*arguments, "--workers", "3", "--name", "out"]) == 0
    one, three = made(tmp_path / "out"), made(tmp_path / "other")
    assert len(one) > 3 * FRAMES and one == three


@pytest.mark.slow
def test_killed_it_leaves_no_half_clip_and_goes_on_to_the_same_result(tmp_path: Path) -> None:
    arguments = write_source(tmp_path, clips=4)
    undisturbed = [arguments[0], str(tmp_path / "undisturbed"), *arguments[2:], "--name", "out"]
    assert main([*undisturbed, "--workers", "2"]) == 0
    command = [sys.executable, "-m", "trainables.data.human_removal", *arguments, "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    give_up = time.monotonic() + 300
    while not list((tmp_path / "out").glob("records/*/*.json")):
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # the workers too
    process.wait()
    there = list((tmp_path / "out" / "clips").glob("walk/*.mp4"))
    for path in there:
        assert len(read_whole(path)[0]) == FRAMES
    left = (".settings.json.1.tmp", ".catalog.yaml.1.tmp", "clips/walk/.3.mp4.1.tmp")
    for name in left:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"half a file")
    (tmp_path / "out" / "masks" / "walk" / ".gone.mp4.tmp").mkdir()
    (tmp_path / "out" / "masks" / "walk" / ".gone.mp4.tmp" / "00000.png").touch()
    assert main([*arguments, "--workers", "2"]) == 0
    assert made(tmp_path / "out") == made(tmp_path / "undisturbed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that can be filled: a tmpfs, which only root may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_it_with_an_error_and_loses_nothing(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_source(tmp_path, clips=2)
    arguments[1] = str(small_disk / "out")
    (small_disk / "filler").write_bytes(b"\0" * 400_000)
    assert main([*arguments, "--workers", "1", "--crf", "0"]) == 2
    assert "No space left" in capsys.readouterr().out
    assert not list(small_disk.rglob("*.tmp"))
    for record in small_disk.rglob("records/**/*.json"):
        assert json.loads(record.read_text())["state"] == "removed"
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert main([*arguments, "--workers", "1", "--crf", "0"]) == 0


@pytest.mark.slow
def test_labels_and_groups_come_from_the_manifest_and_masks_are_no_clips(tmp_path: Path) -> None:
    walk = short_walk()
    for name in ("one", "two"):
        write_frames(tmp_path / "in" / name / "frames", walk.frames)
        write_frames(tmp_path / "in" / name / "masks", walk.masks)
    manifest = tmp_path / "clips.csv"
    manifest.write_text("path,label,group\none/frames,jump,g1\ntwo/frames,run,g2\n")
    pattern = str(tmp_path / "in" / "{parent}" / "masks")
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--masks", pattern]
    assert main(arguments) == 2  # no frame rate
    assert main([*arguments, "--clips", str(manifest), "--frame-rate", "10", "--workers", "1"]) == 0
    with (tmp_path / "out" / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["jump", "run"]
    assert [row["group"] for row in rows] == ["g1", "g2"]
    dataset = load_catalog(tmp_path / "out" / "catalog.yaml")["out"]
    check_files(dataset)
    assert (
        dataset.frame_rate == 10 and "dilation 4" in (tmp_path / "out" / "catalog.yaml").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere", "out"], "nowhere is not a folder"),
        (["in", "in/out"], "lies in"),
        (["in", "out"], "has no videos and no folders of frames"),
        (["in", "out", "--weights", "w.pth"], "cannot be read as weights"),
    ],
    ids=["no folder", "into itself", "empty", "weights"],
)
def test_what_cannot_work_is_an_error_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    if "--weights" in arguments:
        write_lossless(tmp_path / "in" / "a.mp4", np.stack([texture(48, 64)] * 3))
        (tmp_path / "w.pth").write_bytes(b"no weights")
    assert main(arguments) == 2
    assert told in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", ["--crf=52", "--max-leak=1.5", "--dilation=-1", "--frame-rate=0", "--redo=x"]
)
def test_numbers_out_of_range_are_usage_errors(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        main(["in", "out", option])
    assert option.split("=")[0] in capsys.readouterr().err


def test_folders_of_frames_and_videos_are_found(tmp_path: Path) -> None:
    for path in ("b/1.mp4", "a.webm", "c/frames/0.jpg", "c/frames/1.JPG", "d/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert find_clips(tmp_path) == ["a.webm", "b/1.mp4", "c/frames"]
