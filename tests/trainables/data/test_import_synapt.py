from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from trainables.data.catalog import Dataset, load_catalog
from trainables.data.files import check_files
from trainables.data.import_synapt import equal_shares, main
from trainables.data.synapt_assets import SynaptClip, find_clips

PHAV = "b1079-House-Day-Foggy-clap_01-{}-Kite-w-04fe02c4786cd96946b229b74d3c1d3{}"
# Lines as SynAPT's sim150_val.txt has them.
HELDOUT = [
    "clapping/A039_P112_G002_C009",
    "clapping/S005C003P017R001A010_v135_r00",
    f"clapping/{PHAV.format('Joan', 0)}",
    "a27/PRE_a27_d1_p066_c1_color.avi_v225_r00",
    "smoking/A038_P112_G016_C023",
]


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """All three layouts: 9 ElderSim clips of clapping, 4 of NTU, 2 of PHAV, and other actions."""
    files = [
        *(f"eldersim/A039_P{person}_G002_C009.avi" for person in range(103, 113)),
        *(f"eldersim/A038_P{person}_G016_C023.avi" for person in (101, 112)),
        "eldersim/A055_P101_G001_C001.avi",  # an action that no list names
        *(f"surreact/S005C003P0{person}R001A010_v135_r00.mp4" for person in range(13, 18)),
        *(f"surreact/a27_d1_p0{person}_c1_color.avi_v225_r00.mp4" for person in (2, 66, 77)),
        *(
            f"phav/Clap/{PHAV.format(who, n)}.mp4"
            for n, who in enumerate(("Joan", "Alexis", "Boy"))
        ),
    ]
    for file in files:
        path = tmp_path / "assets" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "val.txt").write_text("\n".join(HELDOUT) + "\n")
    return tmp_path / "assets"


def imported(assets: Path, *more: str) -> Dataset:
    folder = assets.parent
    command = [str(assets), str(folder / "out"), "--heldout", str(folder / "val.txt"), *more]
    assert main(command) == 0
    dataset = load_catalog(folder / "out" / "catalog.yaml")["synapt"]
    check_files(dataset)
    return dataset


def test_actions_are_merged_as_the_list_merges_them(assets: Path) -> None:
    dataset = imported(assets)
    assert (dataset.classes, dataset.humans) == (("a27", "clapping", "smoking"), "virtual")
    counts = Counter((dataset.classes[clip.label], clip.split) for clip in dataset.clips)
    assert counts == {
        ("clapping", "train"): 9 + 4 + 2,
        ("clapping", "selection"): 3,
        ("a27", "train"): 2,
        ("a27", "selection"): 1,
        ("smoking", "train"): 1,
        ("smoking", "selection"): 1,
    }
    assert {clip.group for clip in dataset.clips if "phav" in clip.path} == {
        "phav:Joan", "phav:Alexis", "phav:Boy",
    }  # fmt: skip


def test_a_class_has_equal_shares_of_its_assets(assets: Path) -> None:
    dataset = imported(assets, "--per-class", "10")
    clapping = dataset.classes.index("clapping")
    train = [clip for clip in dataset.split("train") if clip.label == clapping]
    assert Counter(clip.path.split("/")[0] for clip in train) == {
        "phav": 2,  # all that it has
        "surreact": 4,
        "eldersim": 4,
    }


@pytest.mark.parametrize(("most", "shares"), [(100, (9, 4, 2)), (6, (2, 2, 2)), (3, (1, 1, 1))])
def test_shares_are_as_equal_as_can_be(assets: Path, most: int, shares: tuple[int, ...]) -> None:
    actions = {("eldersim", "A039"), ("surreact ntu", "A010"), ("phav", "Clap")}
    clips = [clip for clip in find_clips(assets) if (clip.asset, clip.action) in actions]
    clips = [clip for clip in clips if not any(clip.name in line for line in HELDOUT)]
    chosen = equal_shares(clips, most, seed=0)
    counts = Counter(clip.asset for clip in chosen)
    assert tuple(counts[name] for name in ("eldersim", "surreact ntu", "phav")) == shares
    fewer: list[SynaptClip] = equal_shares(clips, most - 1, seed=0)
    assert set(fewer) <= set(equal_shares(clips, most + 1, seed=0))


def test_surreacts_two_parts_have_the_share_of_one_asset(tmp_path: Path) -> None:
    for number in range(10, 16):
        for name in (
            f"eldersim/A039_P1{number}_G002_C009.avi",
            f"surreact/S005C003P0{number}R001A010_v135_r00.mp4",
            f"surreact/a27_d1_p0{number}_c1_color.avi_v225_r00.mp4",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    chosen = equal_shares(find_clips(tmp_path), 6, seed=0)
    assert Counter(clip.folder for clip in chosen) == {"eldersim": 3, "surreact": 3}


def test_how_the_clips_were_chosen_stands_beside_them(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(assets, "--per-class", "4", "--seed", "7")
    told = json.loads((assets.parent / "out" / "synapt.json").read_text())
    digest = hashlib.sha256((assets.parent / "val.txt").read_bytes()).hexdigest()
    assert told["lists"] == {"heldout": {"path": str(assets.parent / "val.txt"), "sha256": digest}}
    assert (told["per_class"], told["seed"]) == (4, 7)
    assert "eldersim: 13 clips on disk" in capsys.readouterr().out


def test_a_training_list_restricts_and_missing_clips_are_told(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = assets.parent / "total.txt"
    train.write_text("clapping/A039_P103_G002_C009.avi\nclapping/A039_P999_G002_C009.avi\n")
    dataset = imported(assets, "--train", str(train))
    assert [clip.path for clip in dataset.split("train")] == ["eldersim/A039_P103_G002_C009.avi"]
    assert "1 of 7 listed clips are not on disk" in capsys.readouterr().out


def test_ppmas_numbers_order_the_classes(assets: Path) -> None:
    numbers = {"clapping": 2, "a27": 0, "smoking": 1}
    lines = [f"{line}.mp4;{numbers[line.split('/')[0]]}" for line in HELDOUT]
    (assets.parent / "val.txt").write_text("\n".join(lines))
    assert imported(assets).classes == ("a27", "smoking", "clapping")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["smoking/A038_P112_G016_C023", "clapping/A038_P101_G016_C023"], "A038 is listed as"),
        (["smoking/A099_P112_G016_C023"], "none of the 1 listed clips"),
        (["smoking"], "neither 'class/clip'"),
        ([], "is empty"),
    ],
)
def test_a_wrong_list_is_refused(
    assets: Path, capsys: pytest.CaptureFixture[str], lines: list[str], message: str
) -> None:
    bad = assets.parent / "bad.txt"
    bad.write_text("\n".join(lines))
    assert main([str(assets), str(assets.parent / "out"), "--heldout", str(bad)]) == 2
    assert message in " ".join(capsys.readouterr().out.split())


CLAP, OTHER = "clapping/A039_P112_G002_C009", "smoking/A038_P112_G016_C023"


@pytest.mark.parametrize(
    ("heldout", "train", "message"),
    [
        (
            [CLAP, "smoking/A039_P112_G002_C009.mp4"],
            [],
            "val.txt, line 2: clip 'A039_P112_G002_C009' is of class 'smoking', and of 'clapping' "
            "in list",
        ),
        ([f"{CLAP};0", f"{OTHER};0"], [], "line 2: number 0 is of class 'smoking', and of"),
        (
            [f"{CLAP};0", "clapping/A039_P103_G002_C009;1"],
            [],
            "line 2: class 'clapping' is of number 1, and of 0 in list",
        ),
        (
            [CLAP],
            [OTHER, "smoking/A039_P112_G002_C009"],
            "train.txt, line 2: clip 'A039_P112_G002_C009' is of class 'smoking', and of "
            "'clapping' in list",
        ),
        ([f"{CLAP};0"], [f"{OTHER};0"], "train.txt, line 1: number 0 is of class 'smoking'"),
    ],
)
def test_lists_that_contradict_themselves_or_each_other_are_refused(
    assets: Path,
    capsys: pytest.CaptureFixture[str],
    heldout: list[str],
    train: list[str],
    message: str,
) -> None:
    out = assets.parent / "out"
    command = [str(assets), str(out)]
    for option, lines in (("heldout", heldout), ("train", train)):
        path = assets.parent / f"{'val' if option == 'heldout' else option}.txt"
        path.write_text("\n".join(lines))
        command += [f"--{option}", str(path)] if lines else []
    assert main(command) == 2
    told = " ".join(capsys.readouterr().out.split())
    assert message in told and "so correct the line that is wrong" in told
    assert not out.exists()


def test_wrong_assets_are_refused(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(assets.parent), str(assets.parent / "out"), "--heldout"]
    assert main([*command, str(assets.parent / "val.txt")]) == 2
    assert "holds none of the folders" in capsys.readouterr().out
    (assets / "surreact" / "A039_P112_G002_C009").mkdir()
    with pytest.raises(ValueError, match="is not named as the clips of surreact are"):
        find_clips(assets)
    (assets / "surreact" / "A039_P112_G002_C009").rmdir()
    (assets / "eldersim" / "A039_P101_G002_C009").mkdir()
    assert main([str(assets), *command[1:], str(assets.parent / "val.txt")]) == 2
    assert "--frame-rate" in capsys.readouterr().out
