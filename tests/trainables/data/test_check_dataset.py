from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.trainables.data.videos import write_video
from trainables.data.check_dataset import main
from trainables.data.clip_checks import Job, check_clips, check_in_processes

ROOT = Path(__file__).parents[3]


def frame_folder(path: Path, count: int) -> None:
    path.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(path / f"{index:03}.png"), np.full((20, 30, 3), index, np.uint8))


def write_dataset(folder: Path, paths: list[str], **entry: object) -> Path:
    """A catalog of one dataset, `set`, that lists `paths`."""
    (folder / "clips.csv").write_text("".join(f"{path};0\n" for path in paths))
    fields = {"clips": "clips.csv", "root": "videos", "humans": "none", **entry}
    lines = "".join(f"    {key}: {value}\n" for key, value in fields.items())
    catalog = folder / "catalog.yaml"
    catalog.write_text(f"datasets:\n  set:\n{lines}")
    return catalog


def damaged(folder: Path) -> Path:
    """Two sound clips and six that are not, in every way there is."""
    videos = folder / "videos"
    write_video(videos / "sound.mp4", count=20)
    frame_folder(videos / "frames", 20)
    write_video(videos / "short.mp4", count=7)
    (videos / "empty.mp4").write_bytes(b"")
    whole = write_video(videos / "cut.mp4", count=40, index_first=True).read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    frame_folder(videos / "bad_end", 40)
    (videos / "bad_end" / "039.png").write_bytes(b"")
    frame_folder(videos / "one_frame", 1)
    there = [path.name for path in videos.iterdir()]
    return write_dataset(folder, [*there, "gone.mp4"], frame_rate=10)


def options(**changes: object) -> list[str]:
    asked = {"frames": 16, "seconds": 2, "workers": 1, **changes}
    return [word for key, value in asked.items() for word in (f"--{key}", str(value))]


def test_each_kind_of_problem_is_found_counted_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    report = tmp_path / "bad.csv"
    assert main([str(damaged(tmp_path)), "set", "--report", str(report), *options(workers=2)]) == 1
    with report.open() as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert {name: row["problem"] for name, row in rows.items()} == {
        "short.mp4": "short",
        "empty.mp4": "unreadable",
        "cut.mp4": "unreadable",
        "bad_end": "unreadable",
        "one_frame": "unreadable",
        "gone.mp4": "missing",
    }
    assert rows["short.mp4"]["reason"] == "7 frames in 2 s, 16 are asked"
    assert all(len(row["reason"]) > 5 for row in rows.values())
    assert Path(rows["gone.mp4"]["path"]) == tmp_path / "videos" / "gone.mp4"
    shown = capsys.readouterr().out
    assert "set: 8 clips checked, 6 with a problem" in shown
    for problem, count in (("unreadable", 4), ("short", 1), ("missing", 1)):
        assert any(problem in line and f" {count} " in line for line in shown.splitlines())
    assert "gone.mp4: does not exist" in shown


def test_a_sound_dataset_ends_with_0_and_an_empty_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "videos" / "a.mp4", count=20)
    report = tmp_path / "bad.csv"
    catalog = write_dataset(tmp_path, ["a.mp4"])
    assert main([str(catalog), "set", "--report", str(report), *options()]) == 0
    assert report.read_text().split() == ["path,problem,reason"]
    assert "set: 1 clips checked, all can be read" in capsys.readouterr().out


def test_short_is_measured_by_the_window_that_is_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=20, rate=10)  # 2 s

    def problem(frames: int, seconds: float) -> str:
        (found,) = check_clips([Job(path, None)], frames, seconds)
        return found.problem

    assert problem(20, 2.0) == problem(20, 9.0) == problem(10, 1.0) == ""
    assert problem(21, 9.0) == problem(11, 1.0) == "short"


def test_a_frame_folder_without_a_rate_is_told_and_not_read(tmp_path: Path) -> None:
    frame_folder(tmp_path / "frames", 20)
    (found,) = check_clips([Job(tmp_path / "frames", None)], 16, 2.0)
    assert found.problem == "unreadable" and "gives no frame_rate" in found.reason


def test_what_the_catalog_has_wrong_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_dataset(tmp_path, ["a.mp4"])
    assert main([str(catalog), "sett", *options()]) == 2
    assert "'sett' is not in it; did you mean 'set'?" in capsys.readouterr().out


class Deadly:
    """Stands for the path of a clip whose decoding kills the process."""

    def exists(self) -> bool:
        os._exit(1)


def test_a_clip_that_kills_its_process_is_told_and_all_others_are_checked(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", count=20)
    jobs = [Job(good, None)] * 30
    jobs.insert(4, Job(Deadly(), None))  # type: ignore[arg-type]
    found = [found for chunk in check_in_processes(jobs, 16, 2.0, workers=1) for found in chunk]
    assert len(found) == 31
    (wrong,) = [item for item in found if item.problem]
    assert isinstance(wrong.path, Deadly)
    assert (wrong.problem, wrong.reason) == ("unreadable", "the process that decoded it died")


def test_ctrl_c_shows_and_writes_what_was_found_until_then(tmp_path: Path) -> None:
    names = ["gone.mp4", *(f"{i}.mp4" for i in range(3000))]
    write_video(tmp_path / "videos" / "0.mp4", count=60)
    for name in names[2:]:
        os.link(tmp_path / "videos" / "0.mp4", tmp_path / "videos" / name)
    catalog, report = write_dataset(tmp_path, names), tmp_path / "bad.csv"
    command = [sys.executable, "-m", "trainables.data.check_dataset", str(catalog), "set"]
    process = subprocess.Popen(
        [*command, "--report", str(report), *options()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has it ignored, and it would be here too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    began = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130, shown
    assert began.startswith("set: ") and began.endswith("of 3,001 clips, 1 with a problem\n")
    assert "of 3,001 clips checked" in shown and "Stopped" in shown
    assert "Traceback" not in shown
    assert "gone.mp4,missing" in report.read_text()


def test_help_tells_the_problems_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for words in ("missing", "unreadable", "short", "exit status: 0", "--report FILE", "examples:"):
        assert words in shown


def test_a_report_that_cannot_be_written_is_told_before_any_clip_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_dataset(tmp_path, ["gone.mp4"])
    report = tmp_path / "nowhere" / "report.csv"
    assert main([str(catalog), "set", *options(report=report)]) == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "cannot be written (No such file or directory)" in printed and "clips" not in printed
