from __future__ import annotations

from pathlib import Path

import pytest

from trainables.data.catalog import Dataset, load_catalog, require_splits
from trainables.data.files import check_files
from trainables.data.suite import SUITE

CATALOGS = Path(__file__).parents[3] / "sweeps" / "catalogs"

# Lines of PPMA's own lists: train, val.
LISTED = {
    "ucf101": (
        ["Biking/v_Biking_g08_c01;10", "Biking/v_Biking_g08_c02;10", "YoYo/v_YoYo_g08_c01;100"],
        ["Typing/v_Typing_g06_c02;94"],
    ),
    "hmdb51": (
        [
            "talk/The_Matrix_1_talk_h_nm_np1_le_goo_2;0",
            "smoke/The_Matrix_4_smoke_h_nm_np1_fr_goo_1;33",
            "brush_hair/brushing_hair_2_brush_hair_h_nm_np1_ba_med_0;10",
            "handstand/doppel_handstand_handstand_f_cm_np2_ba_med_0;34",
            "walk/21_walk_h_cm_np1_fr_med_10;35",
        ],
        ["talk/Faith_Rewarded_talk_h_nm_np1_fr_goo_46;0"],
    ),
    "mini_ssv2": (
        ["something2something-v2/videos/169362.webm;71"],
        ["something2something-v2/videos/172305.webm;73"],
    ),
    "diving48": (
        ["diving48/videos/L_SB1PRgDTE_00019.mp4;0", "diving48/videos/_lmT4WlK7G0_00026.mp4;46"],
        ["diving48/videos/k71Cc-Sm-Mg_00116.mp4;0"],
    ),
    "ikea_fa": (
        ["ikea_furniture/videos/spin_in/GOPR0086_00117_00294_05.MP4;10"],
        ["ikea_furniture/videos/attach_leg_2/GOPR0020_01434_01599_09.MP4;1"],
    ),
    "uav_human": (
        ["uav_human/videos/P115S26G10B30H20UC041000LC021000A099R0_10021556.avi;99"],
        ["uav_human/videos/P001S00G20B40H20UC072000LC021000A000R0_08241838.avi;0"],
    ),
}
USUAL = {  # where the first line of each is looked for first
    "ucf101": "Biking/v_Biking_g08_c01.avi",
    "hmdb51": "talk/The_Matrix_1_talk_h_nm_np1_le_goo_2.avi",
    "mini_ssv2": "videos/169362.webm",
    "diving48": "videos/L_SB1PRgDTE_00019.mp4",
    "ikea_fa": "frames/spin_in/GOPR0086_00117_00294_05",
    "uav_human": "frames/P115S26G10B30H20UC041000LC021000A099R0_10021556",
}


def every_class(suite: str, number: int) -> list[str]:
    """Lines with a clip of each class, in the form of the real list's first line, six groups."""
    line = LISTED[suite][0][0].split(";")[0]
    changed = {
        "ucf101": lambda i, g: line.replace("Biking", f"C{i}").replace("g08", f"g{10 + g}"),
        "hmdb51": lambda i, g: line.replace("The_Matrix", f"Film{'abcdef'[g]}_{i}"),
        "mini_ssv2": lambda i, g: line.replace("169362", f"{1000 * g + i}"),
        "diving48": lambda i, g: line.replace("L_SB1PRgDTE_00019", f"L_{g}_{i:05}"),
        "ikea_fa": lambda i, g: line.replace("GOPR0086_00117", f"GOPR{g:04}_{i:05}"),
        "uav_human": lambda i, g: line.replace("P115", f"P{g:03}").replace("A099", f"A{i:03}"),
    }[suite]
    return [f"{changed(i, group)};{i}" for group in range(6) for i in range(number)]


def load(folder: Path, suite: str, train: list[str], val: list[str]) -> Dataset:
    root = folder / "data"
    root.mkdir(exist_ok=True)
    (root / "train.csv").write_text("\n".join(train) + "\n")
    (root / "val.csv").write_text("\n".join(val) + "\n")
    return load_entry(folder, f"{{suite: {suite}, root: data}}")


def load_entry(folder: Path, entry: str, name: str = "mine") -> Dataset:
    catalog = folder / "catalog.yaml"
    catalog.write_text(f"datasets:\n  {name}: {entry}\n")
    return load_catalog(catalog)[name]


def groups(dataset: Dataset) -> list[str]:
    return [clip.group for clip in dataset.clips]


def lists(folder: Path, suite: str) -> Dataset:
    """The dataset of some lines of the real lists, made long enough to be cut."""
    train, val = LISTED[suite]
    return load(folder, suite, [*train, *every_class(suite, 3)], val)


@pytest.mark.parametrize("suite", SUITE)
def test_the_published_lists_are_read_and_the_outputs_are_the_published_classes(
    tmp_path: Path, suite: str
) -> None:
    count = {"ucf101": 101, "hmdb51": 51, "mini_ssv2": 87, "diving48": 48}
    count |= {"ikea_fa": 12, "uav_human": 155}
    dataset = lists(tmp_path, suite)
    assert (dataset.name, dataset.humans, dataset.frame_rate) == ("mine", "real", 25.0)
    assert len(dataset.classes) == count[suite]
    assert dataset.clips[0].path == USUAL[suite]
    label = int(LISTED[suite][0][0].split(";")[1])
    assert dataset.clips[0].label == label and dataset.classes[label] == str(label)
    assert len(dataset.split("report")) == len(LISTED[suite][1])
    require_splits(dataset, ["train", "selection", "report"])


@pytest.mark.parametrize(
    ("suite", "wanted"),
    [
        ("ucf101", ["v_Biking_g08", "v_Biking_g08", "v_YoYo_g08"]),
        ("hmdb51", ["The_Matrix", "The_Matrix", "brushing_hair", "doppel_handstand", "21"]),
        ("mini_ssv2", [""]),  # each clip is its own
        ("diving48", ["L_SB1PRgDTE", "_lmT4WlK7G0"]),
        ("ikea_fa", ["GOPR0086"]),
        ("uav_human", ["P115S26G10B30H20UC041000"]),
    ],
)
def test_the_group_is_the_one_that_is_documented(
    tmp_path: Path, suite: str, wanted: list[str]
) -> None:
    assert groups(lists(tmp_path, suite))[: len(wanted)] == wanted
    if suite == "uav_human":
        assert len(wanted[0]) == 24


@pytest.mark.parametrize("suite", SUITE)
def test_a_fifth_of_the_train_list_is_selection_and_no_group_is_on_both_sides(
    tmp_path: Path, suite: str
) -> None:
    dataset = load(tmp_path, suite, every_class(suite, 12), LISTED[suite][1])
    train, selection = dataset.split("train"), dataset.split("selection")
    assert len(selection) == pytest.approx(0.2 * 72, abs=4)
    mine = {clip.group or clip.path for clip in selection}
    assert mine and not mine & {clip.group or clip.path for clip in train}


def test_the_cut_and_the_identity_do_not_depend_on_what_the_entry_is_called(
    tmp_path: Path,
) -> None:
    first = lists(tmp_path, "ucf101")
    second = load_entry(tmp_path, "{suite: ucf101, root: data}", "other")
    assert first.clips == second.clips
    assert first.content_hash == second.content_hash
    third = load_entry(tmp_path, "{suite: ucf101, root: data, licence: none}", "other")
    assert (third.content_hash, third.licence) == (first.content_hash, "none")
    fourth = load_entry(tmp_path, "{suite: ucf101, root: data, version: v2}", "other")
    assert fourth.content_hash != first.content_hash


@pytest.mark.parametrize(
    ("suite", "there", "found"),
    [
        ("ucf101", "Biking/v_Biking_g08_c01/", "Biking/v_Biking_g08_c01"),
        ("diving48", "frames/L_SB1PRgDTE_00019/", "frames/L_SB1PRgDTE_00019"),
        (
            "ikea_fa",
            "videos/spin_in/GOPR0086_00117_00294_05.MP4",
            "videos/spin_in/GOPR0086_00117_00294_05.MP4",
        ),
        (
            "diving48",
            "diving48/videos/L_SB1PRgDTE_00019.mp4",
            "diving48/videos/L_SB1PRgDTE_00019.mp4",
        ),
    ],
)
def test_clips_are_found_as_they_lie_videos_or_frame_folders(
    tmp_path: Path, suite: str, there: str, found: str
) -> None:
    path = tmp_path / "data" / there
    path.parent.mkdir(parents=True)
    path.mkdir() if there.endswith("/") else path.touch()
    assert lists(tmp_path, suite).clips[0].path == found


def test_classes_without_clips_are_named_and_stay_outputs(tmp_path: Path) -> None:
    train = [line for line in every_class("ikea_fa", 12) if line.split(";")[1] not in ("3", "7")]
    dataset = load(tmp_path, "ikea_fa", train, LISTED["ikea_fa"][1])
    assert len(dataset.classes) == 12
    (note,) = dataset.notes
    assert "10 of the 12 classes of ikea_fa" in note and note.endswith("without: 3, 7")


def test_the_class_that_diving48_lacks_is_named_beside_the_published_count(tmp_path: Path) -> None:
    train = [line for line in every_class("diving48", 48) if not line.endswith(";36")]
    val = LISTED["diving48"][1]
    (note,) = load(tmp_path, "diving48", train, val).notes
    assert "47 of the 48 classes of diving48 have clips (47 in the published lists)" in note
    assert note.endswith("without: 36")
    fewer = [line for line in train if not line.endswith(";35")]
    (note,) = load(tmp_path, "diving48", fewer, val).notes
    assert note.endswith("without: 35, 36")


@pytest.mark.parametrize(("label", "shown"), [("12", "12"), ("spin_in", "spin_in")])
def test_labels_that_are_no_published_class_are_refused(
    tmp_path: Path, label: str, shown: str
) -> None:
    train = [*every_class("ikea_fa", 12), f"videos/x/GOPR0001_1_2_3.MP4;{label}"]
    message = f"labels {shown} are not among the 12 classes of ikea_fa, .* 0 to 11; correct"
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "ikea_fa", train, LISTED["ikea_fa"][1])


def test_a_missing_root_or_list_says_what_to_put_where(tmp_path: Path) -> None:
    entry = "{suite: diving48, root: data}"
    with pytest.raises(ValueError) as caught:
        load_entry(tmp_path, entry)
    message = str(caught.value)
    assert f"root {tmp_path / 'data'} is not a folder" in message
    for words in (
        "train.csv, val.csv",
        "`path;label`, no header, labels 0 to 47",
        "data/splits/diving48/ of github.com/howardzh01/PPMA",
        "videos/8qRmKunCjtY_00016.mp4 or frames/8qRmKunCjtY_00016/ (a folder of frames)",
        "svcl.ucsd.edu",
    ):
        assert words in message
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("diving48/videos/a_1.mp4;0\n")
    with pytest.raises(ValueError, match=r"val.csv not in .*data\ndiving48 needs under"):
        load_entry(tmp_path, entry)


def test_clips_that_are_not_there_are_told_by_where_they_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"clips do not exist under .*: videos/L_SB1PRgDTE_00019"):
        check_files(lists(tmp_path, "diving48"))


@pytest.mark.parametrize("catalog", ["ppma", "synapt"])
def test_the_catalogs_say_that_data_is_unset_and_then_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: str
) -> None:
    path = CATALOGS / f"{catalog}.yaml"
    monkeypatch.delenv("DATA", raising=False)
    for name in ("ucf101", "synapt", "nh_kinetics"):
        with pytest.raises(ValueError, match=f"'{name}': '\\$DATA/.* names an unset variable"):
            load_catalog(path, [name])
    monkeypatch.setenv("DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"uav_human.* is not a folder\nuav_human needs under"):
        load_catalog(path, ["uav_human"])


def test_the_catalog_of_ppma_loads_from_its_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", str(tmp_path))
    names = {"nh_kinetics": "removed", "synapt": "virtual", "kinetics150": "real"}
    for name in (*names, *SUITE):
        (tmp_path / name).mkdir()
        train, val = ([f"a/{i}.mp4;{i}" for i in range(150)], ["b/0.mp4;0"])
        if name in SUITE:
            train, val = every_class(name, SUITE[name].classes), LISTED[name][1]
        (tmp_path / name / "train.csv").write_text("\n".join(train))
        (tmp_path / name / "val.csv").write_text("\n".join(val))
    ppma = load_catalog(CATALOGS / "ppma.yaml")
    assert {name: dataset.humans for name, dataset in ppma.items()} == names | dict.fromkeys(
        SUITE, "real"
    )
    for name in names:
        assert len(ppma[name].split("train")) == 150 and len(ppma[name].split("selection")) == 1
    mixes = load_catalog(CATALOGS / "synapt.yaml")
    for synapt, nhk in ((40, 110), (75, 75), (110, 40)):
        first, last = mixes[f"synapt_{synapt}"], mixes[f"nhk_{nhk}"]
        assert (first.humans, last.humans) == ("virtual", "removed")
        assert set(first.classes).isdisjoint(last.classes)
        assert len({*first.classes, *last.classes}) == 150
