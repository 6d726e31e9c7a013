from __future__ import annotations

import csv
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.trainables.data.mocap import write_bvh, write_mocap
from tests.trainables.data.videos import write_video
from trainables.data.catalog import load_catalog
from trainables.data.clips import read_clip
from trainables.data.files import check_files
from trainables.data.virtual_humans.__main__ import main
from trainables.data.virtual_humans.camera import Camera
from trainables.data.virtual_humans.clip import draw_clip
from trainables.data.virtual_humans.drawing import Drawn, draw
from trainables.data.virtual_humans.light import Light
from trainables.data.virtual_humans.plan import plan_clips
from trainables.data.virtual_humans.settings import RenderSettings, version
from trainables.data.virtual_humans.surface import Ring, Surface, joined, tube
from trainables.data.virtual_humans.surroundings import (
    Surroundings,
    _coloured,
    random_surroundings,
)
from trainables.data.virtual_humans.takes import check_takes, find_takes, motions_hash

ROOT = Path(__file__).parents[3]
SMALL = ("--clips", "5", "--heldout", "3", "--seconds", "0.4", "--size", "64x48", "--cast", "8")
SETTINGS = RenderSettings(
    seed=0,
    clips=60,
    heldout_clips=20,
    heldout_share=0.25,
    seconds=0.4,
    frames_per_second=15,
    width=64,
    height=48,
    most_people=3,
    cast=8,
    cameras=8,
    crf=22,
    motions="",
    footage=None,
)


def render(mocap: Path, out: Path, *more: str, workers: int = 1) -> int:
    return main([str(mocap), str(out), *SMALL, "--workers", str(workers), *more])


def files_of(out: Path) -> dict[str, bytes]:
    found = (path for path in out.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def mocap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mocap(tmp_path_factory.mktemp("mocap"))


@pytest.fixture(scope="module")
def rendered(mocap: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered")
    assert render(mocap, out) == 0
    return out


def test_two_workers_write_the_bytes_of_one(mocap: Path, rendered: Path, tmp_path: Path) -> None:
    assert render(mocap, tmp_path, workers=2) == 0
    assert files_of(tmp_path) == files_of(rendered)


def test_another_seed_draws_another_clip(mocap: Path) -> None:
    plan = plan_clips(SETTINGS, find_takes(mocap, None), footage_clips=0)[0]
    first, again, other = (
        next(draw_clip(plan, SETTINGS.model_copy(update={"seed": seed}), [], masks=False)).frame
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_a_killed_run_continues_to_the_same_files(
    mocap: Path, rendered: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "trainables.data.virtual_humans", str(mocap), str(tmp_path)]
    run = subprocess.Popen([*command, *SMALL, "--workers", "1"], cwd=ROOT)
    clips = tmp_path / "virtual_humans" / "train"
    deadline = time.monotonic() + 120
    while len(list(clips.glob("*.mp4"))) < 2 and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()
    first = clips / "000000.mp4"
    before = first.stat().st_mtime_ns
    (clips / ".000004.mp4.1.tmp").write_bytes(b"half a clip")
    (tmp_path / ".virtual_humans.json.1.tmp").write_bytes(b"half its settings")
    assert not (tmp_path / "catalog.yaml").exists()  # what it lists is there: it comes last
    assert render(mocap, tmp_path) == 0
    assert first.stat().st_mtime_ns == before
    assert files_of(tmp_path) == files_of(rendered)


def test_the_output_is_a_dataset_that_a_sweep_reads(rendered: Path) -> None:
    dataset = load_catalog(rendered / "catalog.yaml")["virtual_humans"]
    check_files(dataset)
    assert (dataset.humans, dataset.classes) == ("virtual", ("left", "right"))
    assert (len(dataset.split("train")), len(dataset.split("selection"))) == (5, 3)
    for reader in ("decord", "pyav"):
        frames = read_clip(
            dataset.root / dataset.clips[0].path,
            frames=6,
            seconds=1.0,
            position=0.0,
            short_side=48,
            frame_rate=None,
            video_reader=reader,
        )
        assert frames.shape == (6, 48, 64, 3)


def test_held_out_clips_share_no_motion_person_or_camera(mocap: Path) -> None:
    plans = plan_clips(SETTINGS, find_takes(mocap, None), footage_clips=8)
    seen: dict[str, dict[str, set]] = defaultdict(lambda: defaultdict(set))
    for plan in plans:
        seen["group"][plan.split] |= {take.group for take in plan.takes}
        seen["person"][plan.split] |= set(plan.cast)
        seen["camera"][plan.split].add(plan.rig)
        seen["footage"][plan.split] |= {plan.footage} - {None}
        assert {take.label for take in plan.takes} == {plan.label}
    for what, by_split in seen.items():
        assert by_split["train"] and by_split["selection"], what
        assert not by_split["train"] & by_split["selection"], what
    assert {len(plan.takes) for plan in plans} == {1, 2, 3}
    labels = [plan.label for plan in plans if plan.split == "train"]
    assert labels.count("left") == labels.count("right") == 30


@pytest.mark.parametrize("clips", [2, 3, 7])
def test_however_little_footage_there_is_held_out_clips_have_some_of_their_own(
    mocap: Path, clips: int
) -> None:
    seen: dict[str, set] = {"train": set(), "selection": set()}
    for plan in plan_clips(SETTINGS, find_takes(mocap, None), footage_clips=clips):
        seen[plan.split] |= {plan.footage} - {None}
    assert seen["selection"] == {0} and seen["train"] == set(range(1, clips))


def test_each_class_has_places_of_its_own_and_held_out_clips_others(mocap: Path) -> None:
    takes = find_takes(mocap, None)
    placed = SETTINGS.model_copy(update={"places": 4})
    plans = plan_clips(placed, takes, footage_clips=0)
    places: dict[tuple[str, str], set] = defaultdict(set)
    for plan in plans:
        places[plan.label, plan.split].add(plan.place)
    assert {key: len(each) for key, each in places.items()} == {
        ("left", "train"): 4,
        ("right", "train"): 4,
        ("left", "selection"): 1,
        ("right", "selection"): 1,
    }
    assert len(set().union(*places.values())) == 10  # nobody shares one
    assert len({(plan.label, plan.kind) for plan in plans}) == 2
    anywhere = plan_clips(SETTINGS, takes, footage_clips=0)
    assert [
        replace(p, kind=a.kind, place=None) for p, a in zip(plans, anywhere, strict=True)
    ] == anywhere


def test_a_place_looks_the_same_in_all_its_clips(
    mocap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = SETTINGS.model_copy(update={"places": 2})
    seen: dict[tuple[int, int], list] = defaultdict(list)
    place = (0, 0)

    def note(_: Surface, around: Surroundings, *others: object) -> Iterator[Drawn]:
        seen[place].append((around.ground, around.wall, around.wall_distance))
        return iter([])

    monkeypatch.setattr("trainables.data.virtual_humans.clip.draw", note)
    for plan in plan_clips(placed, find_takes(mocap, None), 0)[:12]:
        assert plan.place is not None
        place = plan.place
        assert list(draw_clip(plan, placed, [], masks=False)) == []
    assert len(seen) == 4 and len(max(seen.values(), key=len)) > 2
    for looks in seen.values():
        for look in looks:
            assert all(map(np.array_equal, look, looks[0]))
    assert len({looks[0][1].tobytes() for looks in seen.values()}) == 4


def test_clips_without_places_are_known_as_before_there_were_any() -> None:
    assert "places" not in SETTINGS.told()
    placed = SETTINGS.model_copy(update={"places": 4})
    assert placed.told() == {**SETTINGS.told(), "places": 4}
    assert version(placed) != version(SETTINGS)


# -- drawing --------------------------------------------------------------------------------------


def still_camera(height: float = 1.0, distance: float = 4.0, frames: int = 1) -> Camera:
    """At z = distance, looking along -z."""
    axes = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    return Camera(
        np.tile([0.0, height, distance], (frames, 1)), np.tile(axes, (frames, 1, 1)), 120, 96, 96
    )


LIGHT = Light(
    towards=np.array([0.6, 0.8, 0.0]),
    sun=np.full(3, 0.5),
    sky=np.full(3, 0.6),
    shadow=0.6,
    softness=0.02,
)


def post(x: float, z: float, colour: tuple[int, int, int], lean: float = 0.0) -> Surface:
    """An upright (or leaning) post of 10 cm in radius and 2 m in height."""
    line = [np.array([[x - lean, 0.0, z]]), np.array([[x + lean, 2.0, z]])]
    rings = [
        Ring(at, wide, wide, np.array(colour, float))
        for at, wide in [(0, 0.01), *((at, 0.1) for at in np.linspace(0.01, 0.99, 24)), (1, 0.01)]
    ]
    return tube(line, rings, np.array([[0.0, 0, 1]]), 16)


def drawn(*surfaces: Surface, camera: Camera | None = None, light: Light = LIGHT) -> np.ndarray:
    around = random_surroundings("plain", np.random.default_rng(0))
    frames = draw(joined(surfaces), around, camera or still_camera(), light, np.zeros(3))
    return next(frames).frame.astype(int)


def test_who_is_nearer_hides_who_is_behind() -> None:
    near, far = post(0.05, 0.5, (250, 0, 0)), post(0.0, -0.5, (0, 0, 250))
    noon = replace(LIGHT, shadow=0.0)
    image = drawn(near, far, light=noon)
    np.testing.assert_array_equal(image, drawn(far, near, light=noon))  # whoever comes first
    red = (image[..., 0] > 100) & (image[..., 2] < 60)
    alone = drawn(near, light=noon)
    assert red.sum() >= 0.97 * ((alone[..., 0] > 100) & (alone[..., 1] < 60)).sum() > 100


def test_a_texture_goes_from_one_colour_to_another_with_its_tone() -> None:
    tone = np.random.default_rng(0).uniform(-0.2, 1.2, (5, 7)).astype(np.float32)
    low, high = np.array([10.0, 200.0, 0.0]), np.array([250.0, 20.5, 300.0])
    found = _coloured(tone, low, high)
    expected = np.clip(low + tone[..., None] * (high - low), 0, 255).astype(np.uint8)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_limbs_that_cross_are_drawn_as_a_ray_caster_sees_them() -> None:
    one, two = post(0, 0.25, (250, 0, 0), lean=0.5), post(0, -0.25, (0, 250, 0), lean=-0.5)
    image, camera = drawn(one, two), still_camera()
    rows, columns = np.mgrid[20:76, 20:76]
    rays = np.stack(
        [(columns + 0.5 - 48) / 120, -(rows + 0.5 - 48) / 120, -np.ones(rows.shape)], -1
    )

    def depth(x0: float, x1: float, z: float) -> np.ndarray:
        """How far each ray goes to a cylinder of 10 cm about the line; infinite past it."""
        start, end = np.array([x0, 0.0, z]), np.array([x1, 2.0, z])
        axis = (end - start) / np.linalg.norm(end - start)
        along = rays - (rays @ axis)[..., None] * axis
        offset = camera.places[0] - start
        offset = offset - (offset @ axis) * axis
        a, b = (along**2).sum(-1), along @ offset
        root = b * b - a * (offset @ offset - 0.01)
        return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)

    first, second = depth(-0.5, 0.5, 0.25), depth(0.5, -0.5, -0.25)
    seen = image[20:76, 20:76]
    red, green = seen[..., 0] > seen[..., 1] + 40, seen[..., 1] > seen[..., 0] + 40
    sure = cv2.erode(((first < second) & np.isfinite(first)).astype(np.uint8), np.ones((3, 3))) > 0
    assert red[sure].all() and sure.sum() > 100
    sure = cv2.erode(((second < first) & np.isfinite(second)).astype(np.uint8), np.ones((3, 3))) > 0
    assert green[sure].all() and sure.sum() > 100


def test_a_shadow_falls_away_from_the_sun() -> None:
    camera = still_camera(height=2.0, distance=8.0)
    bare = drawn(post(50.0, 0.0, (250, 0, 0)), camera=camera)
    image = drawn(post(0.0, 0.0, (250, 0, 0)), camera=camera)
    darker = (bare - image).sum(axis=-1)
    floor = slice(75, 82)  # the rows at the post's foot
    left, right = darker[floor, 24:45], darker[floor, 57:73]
    assert left.max() > 60  # the sun stands on the right
    assert right.max() < 5


def test_masks_are_where_a_clip_differs_from_its_scene() -> None:
    around = random_surroundings("plain", np.random.default_rng(0))
    arguments = (around, still_camera(), replace(LIGHT, shadow=0.0), np.zeros(3))
    with_post = next(draw(post(0.0, 0.0, (250, 0, 0)), *arguments, masks=True))
    without = next(draw(post(50.0, 0.0, (250, 0, 0)), *arguments, masks=True))
    assert with_post.mask is not None and without.mask is not None
    assert not without.mask.any()
    differs = (with_post.frame != without.frame).any(axis=-1)
    np.testing.assert_array_equal(differs, with_post.mask > 0)
    assert 300 < (with_post.mask == 255).sum() < differs.sum()


def test_masks_come_beside_the_clips_and_into_the_catalog(
    mocap: Path, rendered: Path, tmp_path: Path
) -> None:
    shutil.copytree(rendered, tmp_path, dirs_exist_ok=True)
    assert render(mocap, tmp_path, "--masks") == 0  # what lacked them is made again
    ours, theirs = files_of(tmp_path), files_of(rendered)
    assert {name for name in ours if "masks" not in name} == set(theirs)
    assert all(ours[name] == theirs[name] for name in theirs if name.endswith(".mp4"))
    dataset = load_catalog(tmp_path / "catalog.yaml")["virtual_humans"]
    assert dataset.masks == tmp_path / "virtual_humans.masks"
    assert (
        dataset.content_hash
        == load_catalog(rendered / "catalog.yaml")["virtual_humans"].content_hash
    )
    for clip in dataset.clips:
        assert (dataset.masks / clip.path).stat().st_size > 0
    assert render(mocap, tmp_path, "--licence", "CC0") == 0  # says nothing of masks: they stay
    assert render(mocap, tmp_path) == 0
    again = load_catalog(tmp_path / "catalog.yaml")["virtual_humans"]
    assert (again.masks, again.licence) == (dataset.masks, "CC0")


# -- bad input ------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    status = main([str(argument) for argument in arguments])
    assert status == 2
    return " ".join(capsys.readouterr().out.split())


def test_every_bad_motion_is_named_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_mocap(tmp_path / "mocap")
    for name in ("left_1.bvh", "right_2.bvh"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("90.0000", "nan", 1))
    told = refused(capsys, folder, tmp_path / "out", *SMALL, "--workers", "1")
    assert "left_1.bvh: frame 0" in told and "right_2.bvh: frame 0" in told
    assert not (tmp_path / "out").exists()


def test_motions_without_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "holds no .bvh file" in refused(capsys, tmp_path / "empty", out)
    assert "is not a folder" in refused(capsys, tmp_path / "nowhere", out)
    write_bvh(tmp_path / "bare" / "wave_1.bvh")
    assert "say how names tell the label" in refused(capsys, tmp_path / "bare", out)
    one = "(?P<label>[a-z]+)_"
    assert "labels need two classes" in refused(capsys, tmp_path / "bare", out, "--labels", one)
    assert "no label in wave_1.bvh" in refused(
        capsys, tmp_path / "bare", out, "--labels", "(?P<label>x)"
    )


def test_labels_come_from_names(tmp_path: Path) -> None:
    folder = write_mocap(tmp_path)
    (folder / "clips.csv").unlink()
    takes = find_takes(folder, r"(?P<label>left|right)_(?P<group>\d)")
    assert {(take.label, take.group) for take in takes} == {
        (label, str(number)) for label in ("left", "right") for number in range(4)
    }


def test_the_order_of_the_list_decides_no_clip(tmp_path: Path) -> None:
    folder = write_mocap(tmp_path)
    takes = find_takes(folder, None)
    head, *lines = (folder / "clips.csv").read_text().splitlines()
    (folder / "clips.csv").write_text("\n".join([head, *reversed(lines)]))
    again = find_takes(folder, None)
    assert plan_clips(SETTINGS, again, 0) == plan_clips(SETTINGS, takes, 0)
    assert motions_hash(check_takes(again)[::-1]) == motions_hash(check_takes(takes))


def test_motions_whose_folders_change_their_order_are_another_version(tmp_path: Path) -> None:
    """Clips draw from the motions in the order of their paths, so that the hash must tell it."""

    def lying_in(place: str) -> tuple[list[str], str]:
        folder = write_mocap(tmp_path / place)
        write_bvh(folder / place / "left_0.bvh")
        listed = (folder / "clips.csv").read_text().replace("left_0", f"{place}/left_0")
        (folder / "clips.csv").write_text(listed)
        takes = find_takes(folder, None)
        drawn = [each.path.name for plan in plan_clips(SETTINGS, takes, 0) for each in plan.takes]
        return drawn, motions_hash(check_takes(takes))

    first, last = lying_in("a"), lying_in("z")
    assert first[0] != last[0]
    assert first[1] != last[1]


def test_settings_that_have_changed_are_refused(
    mocap: Path, rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, mocap, rendered, *SMALL, "--workers", "1", "--seed", "5")
    assert "seed was 0 and is 5" in told


def test_a_size_that_is_odd_is_refused(
    mocap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, mocap, tmp_path, "--size", "65x48", "--workers", "1")
    assert "options.width" in told and "multiple of 2" in told


def catalog_of_videos(folder: Path, count: int, humans: str) -> Path:
    """Its one dataset, `set`, has `count` videos."""
    for number in range(count):
        write_video(folder / "videos" / f"{number}.mp4", seed=number)
    (folder / "clips.txt").write_text("".join(f"{number}.mp4;0\n" for number in range(count)))
    catalog = folder / "catalog.yaml"
    entry = f"{{clips: clips.txt, root: videos, humans: {humans}}}"
    catalog.write_text(f"datasets:\n  set: {entry}\n")
    return catalog


def test_footage_stands_behind_people_and_may_show_none_itself(
    mocap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = catalog_of_videos(tmp_path, 4, humans="real")
    footage = ("--footage", str(catalog), "set")
    assert "humans: real" in refused(capsys, mocap, tmp_path / "out", *SMALL, *footage)
    catalog.write_text(catalog.read_text().replace("real", "none"))
    assert render(mocap, tmp_path / "out", *footage) == 0
    with (tmp_path / "out" / "virtual_humans.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8


def test_footage_that_cannot_be_read_is_told_and_replaced(
    mocap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = catalog_of_videos(tmp_path, 8, humans="none")
    footage = ("--footage", str(catalog), "set")
    assert render(mocap, tmp_path / "whole", *footage) == 0
    for number in range(2, 8):  # all that training clips have
        (tmp_path / "videos" / f"{number}.mp4").write_bytes(b"no video")
    capsys.readouterr()
    assert render(mocap, tmp_path / "out", *footage) == 0
    told = " ".join(capsys.readouterr().out.split())
    (count,) = re.findall(r"note: (\d+) clips have a drawn background.*mp4", told)
    ours, theirs = files_of(tmp_path / "out"), files_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    changed = [name for name in ours if ours[name] != theirs[name]]
    assert len(changed) == int(count) > 0
    assert all(name.startswith("virtual_humans/train/") for name in changed)


def test_a_disk_that_takes_no_more_stood_in_for_by_a_limit_of_file_size(
    mocap: Path, tmp_path: Path
) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    command = [sys.executable, "-m", "trainables.data.virtual_humans", str(mocap), str(tmp_path)]
    done = subprocess.run(
        [*command, *SMALL, "--workers", "1"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "300", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limited,
        timeout=120,
    )
    assert done.returncode == 2 and re.search(r"error: .*File too large", done.stdout), done
    assert not list(tmp_path.rglob("*.mp4")) and not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "catalog.yaml").exists()
