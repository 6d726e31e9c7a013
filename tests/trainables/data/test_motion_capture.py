from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.mocap import NAMES, write_bvh
from trainables.data.virtual_humans.body import ANKLE, BALL, random_body
from trainables.data.virtual_humans.bvh import forward_kinematics, read_bvh
from trainables.data.virtual_humans.retarget import on_body, play
from trainables.data.virtual_humans.skeleton import find_roles, heading, read_motion

MOCAP = Path(__file__).parents[4] / "shared" / "data" / "mocap"
CHAIN = """HIERARCHY
ROOT base
{{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT middle
  {{
    OFFSET 2 0 0
    CHANNELS {channels}
    End Site
    {{
      OFFSET 1 0 0
    }}
  }}
}}
MOTION
Frames: 2
Frame Time: 0.04
{first}
{second}
"""


def write_chain(path: Path, *rows: str, channels: str = "3 Zrotation Xrotation Yrotation") -> Path:
    path.write_text(CHAIN.format(channels=channels, first=rows[0], second=rows[1]))
    return path


def rotation(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def test_forward_kinematics_of_a_planar_arm_is_its_closed_form(tmp_path: Path) -> None:
    a, b = np.radians([30, 45])
    path = write_chain(tmp_path / "arm.bvh", "0 0 0 30 0 0 45 0 0", "5 6 7 0 0 0 0 0 0")
    positions, _ = forward_kinematics(read_bvh(path))
    elbow = 2 * np.array([np.cos(a), np.sin(a), 0])
    hand = elbow + np.array([np.cos(a + b), np.sin(a + b), 0])
    np.testing.assert_allclose(positions[0], [[0, 0, 0], elbow, hand], atol=1e-12)
    np.testing.assert_allclose(positions[1], [[5, 6, 7], [7, 6, 7], [8, 6, 7]], atol=1e-12)


def test_rotations_apply_in_the_order_of_their_channels(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "arm.bvh", "0 0 0 20 30 40 50 60 70", "0 0 0 0 0 0 0 0 0")
    positions, turned = forward_kinematics(read_bvh(path))
    root = rotation("z", 20) @ rotation("x", 30) @ rotation("y", 40)
    joint = root @ rotation("z", 50) @ rotation("x", 60) @ rotation("y", 70)
    np.testing.assert_allclose(turned[0, 1], joint, atol=1e-12)
    np.testing.assert_allclose(positions[0, 2], root @ [2, 0, 0] + joint @ [1, 0, 0], atol=1e-12)


def test_a_joints_positions_stand_in_place_of_its_offset(tmp_path: Path) -> None:
    channels = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
    row = "0 0 0 0 0 0 0 9 0 0 0 0"
    path = write_chain(tmp_path / "arm.bvh", row, row, channels=channels)
    positions, _ = forward_kinematics(read_bvh(path))
    np.testing.assert_allclose(positions[0, 1], [0, 9, 0], atol=1e-12)


BANDAI = {
    "UpLeg": "UpperLeg_{}", "Leg": "LowerLeg_{}", "Foot": "Foot_{}", "ToeBase": "Toes_{}",
    "Shoulder": "Shoulder_{}", "Arm": "UpperArm_{}", "ForeArm": "LowerArm_{}", "Hand": "Hand_{}",
}  # fmt: skip
SMPL = {
    "UpLeg": "{}_Hip", "Leg": "{}_Knee", "Foot": "{}_Ankle", "ToeBase": "{}_Foot",
    "Shoulder": "{}_Collar", "Arm": "{}_Shoulder", "ForeArm": "{}_Elbow", "Hand": "{}_Wrist",
}  # fmt: skip
BIPED = {
    "UpLeg": "Bip01 {} Thigh", "Leg": "Bip01 {} Calf", "Foot": "Bip01 {} Foot",
    "ToeBase": "Bip01 {} Toe0", "Shoulder": "Bip01 {} Clavicle", "Arm": "Bip01 {} UpperArm",
    "ForeArm": "Bip01 {} Forearm", "Hand": "Bip01 {} Hand",
}  # fmt: skip


def renamed(parts: dict[str, str]) -> dict[str, str]:
    return {
        f"{side}{part}": name.format(side[0])
        for part, name in parts.items()
        for side in ("Left", "Right")
    }


@pytest.mark.parametrize("parts", [{}, BANDAI, SMPL, BIPED], ids=["cmu", "bandai", "smpl", "biped"])
def test_the_same_joints_are_found_whatever_they_are_called(
    tmp_path: Path, parts: dict[str, str]
) -> None:
    names = renamed(parts)
    recording = read_bvh(write_bvh(tmp_path / "a.bvh", rename=names))
    found = {part: recording.joints[index].name for part, index in find_roles(recording).items()}
    wanted = {"pelvis": "Hips", "chest": "Spine1", "head": "Head"}
    for side in ("Left", "Right"):
        cmu = ("UpLeg", "Leg", "Foot", "ToeBase", "Arm", "ForeArm", "Hand")
        ours = ("hip", "knee", "ankle", "toes", "shoulder", "elbow", "wrist")
        for part, name in zip(ours, cmu, strict=True):
            wanted[f"{side.lower()} {part}"] = names.get(f"{side}{name}", f"{side}{name}")
        wanted[f"{side.lower()} fingers"] = names.get(f"{side}Hand", f"{side}Hand") + " end"
    assert found == wanted


def test_bones_keep_their_directions_and_take_the_bodys_lengths(tmp_path: Path) -> None:
    lifts = {"LeftArm": np.linspace(0, 170, 20), "RightLeg": np.linspace(0, 40, 20)}
    motion = read_motion(read_bvh(write_bvh(tmp_path / "a.bvh", turns=lifts)))
    body = random_body(np.random.default_rng(3))
    points = on_body(motion, body)
    for start, end, bone in (
        ("left shoulder", "left elbow", "upper arm"),
        ("right elbow", "right wrist", "forearm"),
        ("left hip", "left knee", "thigh"),
        ("right knee", "right ankle", "shin"),
    ):
        ours, theirs = points[end] - points[start], motion.points[end] - motion.points[start]
        length = np.linalg.norm(ours, axis=-1)
        np.testing.assert_allclose(length, body.bones[bone], rtol=1e-9)
        cosine = (ours * theirs).sum(-1) / length / np.linalg.norm(theirs, axis=-1)
        np.testing.assert_allclose(cosine, 1, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_who_stands_in_the_recording_stands_on_the_floor_in_any_body(
    tmp_path: Path, seed: int
) -> None:
    motion = read_motion(read_bvh(write_bvh(tmp_path / "a.bvh")))
    body = random_body(np.random.default_rng(seed))
    points = on_body(motion, body)
    for side in ("left", "right"):
        np.testing.assert_allclose(points[f"{side} ankle"][:, 1], ANKLE * body.height, atol=1e-6)
        np.testing.assert_allclose(points[f"{side} toes"][:, 1], BALL * body.height, atol=1e-6)


def test_a_jump_leaves_the_floor(tmp_path: Path) -> None:
    height = 90 + 40 * np.sin(np.linspace(0, np.pi, 20))
    way = np.stack([np.zeros(20), height, np.zeros(20)], axis=1)
    motion = read_motion(read_bvh(write_bvh(tmp_path / "a.bvh", way=way)))
    body = random_body(np.random.default_rng(0))
    rise = on_body(motion, body)["left ankle"][:, 1] - ANKLE * body.height
    scale = (body.bones["thigh"] + body.bones["shin"]) / 84  # the recording's leg: 84 cm
    np.testing.assert_allclose(rise, scale * (height - 90), atol=1e-6)


def test_a_short_walk_goes_on_where_it_ended_and_as_it_faced(tmp_path: Path) -> None:
    frames = 40
    turn = np.linspace(0, 90, frames)  # about y, by the middle channel order's last
    way = np.stack([np.zeros(frames), np.full(frames, 90.0), np.linspace(0, 200, frames)], axis=1)
    path = write_bvh(tmp_path / "a.bvh", frames=frames, way=way)
    lines = path.read_text().splitlines()
    first = lines.index("MOTION") + 3
    for number in range(frames):
        values = lines[first + number].split()
        values[5] = str(turn[number])
        lines[first + number] = " ".join(values)
    path.write_text("\n".join(lines))
    motion = read_motion(read_bvh(path))
    played = play(motion, 0.0, 1.0, np.arange(90) / 30)
    root = played.points["spine 0"][:, [0, 2]]
    steps = np.linalg.norm(np.diff(root, axis=0), axis=1)
    assert steps.max() < 3 * np.median(steps)  # back at the start would be 30 times
    facing = np.unwrap(heading(played.points))
    assert np.degrees(facing[-1]) > 150  # it turned 90 degrees, twice and more


def test_the_recordings_unit_does_not_matter(tmp_path: Path) -> None:
    path = write_bvh(tmp_path / "a.bvh", turns={"LeftArm": np.linspace(0, 90, 20)})
    large = read_motion(read_bvh(path)).points
    recording = read_bvh(path)
    joints = tuple(
        type(joint)(joint.name, joint.parent, tuple(x / 2.54 for x in joint.offset), joint.channels)
        for joint in recording.joints
    )
    values = recording.values.copy()
    values[:, :3] /= 2.54
    small = read_motion(type(recording)(path, joints, values, recording.frame_seconds)).points
    for part, value in large.items():
        np.testing.assert_allclose(small[part], value, atol=1e-9)


def broken(tmp_path: Path, old: str, new: str) -> Path:
    path = write_bvh(tmp_path / "broken.bvh")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "CHANNELS 3 Zrotation Xrotation Yrotation",
            "CHANNELS 2 Zrotation Xrotation",
            "needs each of",
        ),
        ("CHANNELS 3 Zrotation Xrotation Yrotation", "", "needs each of"),
        ("Frames: 20", "Frames: inf", "the number of frames is inf, which is no whole number"),
        ("Frames: 20", "Frames: nan", "the number of frames is nan, which is no whole number"),
        ("Frames: 20", "Frames: 0", "Frames: 0; a motion has at least 2"),
        ("Frames: 20", "Frames: 19", "values for 19 frames"),
        ("90.0000", "nan", r"frame 0 \(from 0\) holds a value that is not finite"),
        ("90.0000", "high", "a value of its motion is no number"),
        ("HIERARCHY", "{}", "'{}' stands where 'HIERARCHY' should"),
        ("Frame Time: 0.033333", "Frame Time: 0", "Frame Time: 0.0"),
        ("ROOT Hips", "ROOT Hips {", "stands where 'OFFSET' should"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_reason(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = broken(tmp_path, old, new)
    with pytest.raises(ValueError, match=message) as caught:
        read_bvh(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({name: f"bone{index}" for index, name in enumerate(NAMES)}, "0 limbs are named left"),
        ({f"Left{part}": part for part in BANDAI if "Leg" not in part}, "1 limbs are named left"),
    ],
)
def test_an_unknown_skeleton_is_refused_with_its_joints(
    tmp_path: Path, names: dict[str, str], message: str
) -> None:
    path = write_bvh(tmp_path / "odd.bvh", rename=names)
    with pytest.raises(ValueError, match=message) as caught:
        read_motion(read_bvh(path))
    assert str(path) in str(caught.value) and names[min(names)] in str(caught.value)


@pytest.mark.skipif(not MOCAP.is_dir(), reason="needs the motion capture beside the project")
def test_real_recordings_stand_upright_and_face_ahead() -> None:
    for path in sorted(MOCAP.glob("*walk_*.bvh"))[:4]:
        points = read_motion(read_bvh(path)).points
        assert 1.5 < points["head"][0, 1] < 1.9  # in legs
        assert points["spine 0"][-1, 2] > 3  # walked ahead, which is +z
        assert (points["left hip"] - points["right hip"])[0, 0] > 0
