from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from trainables.data.catalog import Dataset, load_catalog, require_splits
from trainables.data.files import check_files
from trainables.data.whole_files import add_to_catalog, entries_of

ROWS = "path,label\na/1.mp4,walk\na/2.mp4,run\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(folder: Path, manifest: str = ROWS, **entry: object) -> Dataset:
    """The one dataset of a catalog whose manifest is `manifest`."""
    write(folder / "clips.csv", manifest)
    fields = {"clips": "clips.csv", "root": "videos", "humans": "none", **entry}
    lines = "".join(f"    {key}: {value}\n" for key, value in fields.items())
    return load_catalog(write(folder / "catalog.yaml", f"datasets:\n  set:\n{lines}"))["set"]


def test_paths_are_relative_to_the_catalog_and_all_is_train_without_a_split(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    assert dataset.root == tmp_path / "videos"
    assert dataset.classes == ("run", "walk")
    assert [(clip.path, clip.label) for clip in dataset.split("train")] == [
        ("a/1.mp4", 1),
        ("a/2.mp4", 0),
    ]


@pytest.mark.parametrize(
    "manifest",
    [
        "path,label,group,split\na/b c.mp4,2,g1,train\nd.mp4,10,g2,report\n",
        "a/b c.mp4;2\nd.mp4;10\n",
        "a/b c.mp4 2\nd.mp4 10\n",
        "\ufeffpath , label\r\n\r\na/b c.mp4 , 2\r\nd.mp4,10\r\n",
        'label,path\n2,"a/b c.mp4"\n10,d.mp4\n',
    ],
)
def test_manifests_read_as_they_are_found_in_the_field(tmp_path: Path, manifest: str) -> None:
    dataset = load(tmp_path, manifest)
    assert [(clip.path, clip.label) for clip in dataset.clips] == [("a/b c.mp4", 2), ("d.mp4", 10)]
    assert len(dataset.classes) == 11  # whole numbers are indices: 2 stays 2


def test_a_split_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "test.txt", "b/9.mp4;walk\n")
    dataset = load(tmp_path, clips="{train: clips.csv, report: test.txt}")
    assert [clip.path for clip in dataset.split("report")] == ["b/9.mp4"]
    assert len(dataset.split("train")) == 2


def test_variables_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOS", "/somewhere")
    assert load(tmp_path, root="$VIDEOS/x").root == Path("/somewhere/x")


def test_a_group_is_captured_from_the_path(tmp_path: Path) -> None:
    dataset = load(tmp_path, "x_g01.avi;0\nx_g02.avi;0\n", group=r"'_(g\d+)'")
    assert [clip.group for clip in dataset.clips] == ["g01", "g02"]


def test_a_selection_split_is_cut_from_the_training_clips_by_group(tmp_path: Path) -> None:
    lines = [f"{i}.mp4,{i % 3},p{i // 6},{'report' if i >= 60 else 'train'}" for i in range(72)]
    dataset = load(
        tmp_path, "path,label,group,split\n" + "\n".join(lines), split="{selection: 0.2}"
    )
    sides = {name: {clip.group for clip in dataset.split(name)} for name in ("train", "selection")}
    assert len(dataset.split("report")) == 12
    assert len(sides["selection"]) == 2
    assert not sides["train"] & sides["selection"]


def test_a_leak_rate_is_told_and_changes_no_identity(tmp_path: Path) -> None:
    told, untold = load(tmp_path, leak_rate=0.031), load(tmp_path)
    assert told.leak_rate == 0.031 and untold.leak_rate is None
    assert told.content_hash == untold.content_hash


def test_the_hash_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    first = load(tmp_path)
    assert load(tmp_path, root="elsewhere").content_hash == first.content_hash
    changed = [
        load(tmp_path, humans="real"),
        load(tmp_path, version="'2'"),
        load(tmp_path, frame_rate=25),
        load(tmp_path, classes="[walk, run]"),
        load(tmp_path, split="{selection: 0.5}"),
        load(tmp_path, ROWS.replace("2.mp4", "3.mp4")),
    ]
    hashes = {dataset.content_hash for dataset in (first, *changed)}
    assert len(hashes) == 7


@pytest.mark.parametrize(
    ("manifest", "entry", "message"),
    [
        ("", {}, "is empty; it must list at least one clip"),
        ("path,label\n", {}, "has a header and no clips"),
        ("path,label\na.mp4\n", {}, r"line 2: 1 values for 2 columns \(path,label\): 'a.mp4'"),
        ("path,label\na.mp4,\n", {}, "line 2: label is empty"),
        ("path,label,grup\na,b,c\n", {}, "unknown column 'grup'; did you mean 'group'?"),
        ("path,group\na,b\n", {}, "it needs path and label once"),
        ("a.mp4,walk\n", {}, "a CSV needs the header 'path,label'"),
        ("a.mp4 0\nb.mp4\n", {}, "line 2: 'b.mp4' is neither"),
        ("path,label,split\na,b,val\n", {}, r"split 'val' is not one of .*; rename it"),
        ("a;0\na;1\n", {}, "a is listed twice; keep one line"),
        ("../a.mp4;0\n", {}, r"\.\./a\.mp4 is outside its root .*videos"),
        ("x/../../a.mp4;0\n", {}, "is outside its root"),
        ("/etc/a.mp4;0\n", {}, "/etc/a.mp4 is outside its root"),
        (
            ROWS,
            {"classes": "[walk, ran]"},
            "label 'run' is not in its 2 classes; did you mean 'ran'",
        ),
        ("a;7\n", {"classes": "[walk, run]"}, "label '7' is not in its 2 classes"),
        (ROWS, {"classes": "[walk, walk]"}, "`classes` must name each class once"),
        (ROWS, {"classes": "nowhere.txt"}, "nowhere.txt: cannot be read"),
        (ROWS, {"clips": "nowhere.csv"}, r"nowhere.csv: cannot be read \(No such file"),
        (ROWS, {"root": "$UNSET_ROOT/x"}, "'\\$UNSET_ROOT/x' names an unset variable; export it"),
        (ROWS, {"humans": "robots"}, "datasets.set.humans"),
        (ROWS, {"rooot": "x"}, "datasets.set.rooot: unknown key; did you mean 'root'"),
        (ROWS, {"group": "x(.)"}, "finds nothing in a/1.mp4"),
        (ROWS, {"group": "x(("}, "is no regex"),
        (ROWS, {"split": "{train: 0.5, report: 0.4}"}, "must name train and sum to 1"),
        (ROWS, {"split": "{train: 1.2, report: -0.2}"}, "not between 0 and 1"),
        (
            ROWS,
            {"split": "{train: 0.6, selection: 0.2, report: 0.2}"},
            "'set' is too small for its split: 2 clips in 2 groups cannot fill 3 .*add groups",
        ),
        ("path,label,split\na,0,selection\n", {"split": "{selection: 0.2}"}, "drop one of the two"),
        (
            "path,label,split\na,0,train\n",
            {"split": "{train: 0.5, report: 0.5}"},
            "manifests list splits",
        ),
    ],
)
def test_bad_input_is_refused_with_the_reason(
    tmp_path: Path, manifest: str, entry: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, manifest, **entry)


def test_a_split_without_clips_is_refused_with_its_counts_and_the_remedy(tmp_path: Path) -> None:
    dataset = load(tmp_path, "path,label,split\na,0,train\nb,0,report\n")
    require_splits(dataset, ["train", "report"])
    message = r"'set' has no selection clips \(train 1, selection 0, report 1\).*\{selection: 0.2\}"
    with pytest.raises(ValueError, match=message):
        require_splits(dataset, ["train", "selection", "report"])


def test_clips_that_do_not_exist_are_listed_before_anything_is_read(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    with pytest.raises(ValueError, match=r"root .*videos is not a folder; correct `root`"):
        check_files(dataset)
    write(tmp_path / "videos/a/1.mp4", "x")
    with pytest.raises(ValueError, match=r"1 of 2 clips do not exist under .*: a/2.mp4; correct"):
        check_files(dataset)
    write(tmp_path / "videos/a/2.mp4", "x")
    check_files(dataset)


def test_latents_that_do_not_exist_are_told_before_anything_is_read(tmp_path: Path) -> None:
    write(tmp_path / "videos/a/1.mp4", "x")
    write(tmp_path / "videos/a/2.mp4", "x")
    dataset = load(tmp_path, latents="set.latents.safetensors")
    with pytest.raises(ValueError, match=r"latents .*set.latents.safetensors is not a file; corr"):
        check_files(dataset)
    write(tmp_path / "set.latents.safetensors", "x")
    check_files(dataset)


def test_a_frame_folder_needs_a_frame_rate(tmp_path: Path) -> None:
    (tmp_path / "videos/dir").mkdir(parents=True)
    with pytest.raises(
        ValueError, match="has frame folders; give its catalog entry a `frame_rate`"
    ):
        check_files(load(tmp_path, "dir;0\n"))
    check_files(load(tmp_path, "dir;0\n", frame_rate=25))


def add_many(path: Path, command: str, both: Barrier) -> None:
    both.wait()
    for number in range(40):
        add_to_catalog(path, f"{command}{number}", {"clips": "clips.csv"})


def test_commands_that_end_at_once_lose_no_entry(tmp_path: Path) -> None:
    path, context = tmp_path / "new" / "catalog.yaml", get_context("spawn")
    both = context.Barrier(2)
    commands = [context.Process(target=add_many, args=(path, name, both)) for name in "ab"]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
        assert command.exitcode == 0
    assert set(entries_of(path)) == {f"{name}{number}" for name in "ab" for number in range(40)}


def test_an_entry_is_added_to_a_catalog_without_any(tmp_path: Path) -> None:
    path = write(tmp_path / "catalog.yaml", "datasets:\n")
    add_to_catalog(path, "set", {"clips": "clips.csv"})
    assert entries_of(path) == {"set": {"clips": "clips.csv"}}


def test_what_another_command_said_of_another_root_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    add_to_catalog(path, "set", {"root": "a", "licence": "CC0", "masks": "m"})
    add_to_catalog(path, "set", {"root": "a"}, kept=("licence",))
    assert entries_of(path)["set"] == {"root": "a", "licence": "CC0"}
    add_to_catalog(path, "set", {"root": "b"}, kept=("licence",))
    assert entries_of(path)["set"] == {"root": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: toy\n", "catalog.yaml: has name, so it is no catalog"),
        ("datasets: [a, b]\n", r"holds \['a', 'b'\] as datasets"),
        ("", "holds no mapping"),
    ],
)
def test_an_entry_is_not_added_to_what_is_no_catalog(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path / "catalog.yaml", text)
    with pytest.raises(ValueError, match=message):
        add_to_catalog(path, "set", {})
    assert path.read_text() == text
