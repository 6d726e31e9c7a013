from __future__ import annotations

from pathlib import Path

import pytest

from trainables.data.catalog import Dataset, load_catalog

CLASSES = ("walk", "run", "jump", "sit")  # not in the order of their names


def write(folder: Path, **entries: str) -> Path:
    """A catalog of `whole` (4 classes of 8 training and 2 selection clips) and `entries`."""
    rows = ["path,label,group,split"]
    for label in CLASSES:
        rows += [
            f"{label}/{i}.mp4,{label},g{i},{'train' if i < 8 else 'selection'}" for i in range(10)
        ]
    (folder / "clips.csv").write_text("\n".join(rows))
    lines = {
        "whole": "{clips: clips.csv, root: videos, humans: virtual, frame_rate: 5, licence: free, "
        f"classes: [{', '.join(CLASSES)}]}}",
        **entries,
    }
    path = folder / "catalog.yaml"
    path.write_text("datasets:\n" + "".join(f"  {name}: {text}\n" for name, text in lines.items()))
    return path


def subset(folder: Path, rest: str, of: str = "whole") -> Dataset:
    return load_catalog(write(folder, part=f"{{subset_of: {of}, {rest}}}"))["part"]


def labelled(dataset: Dataset, split: str) -> set[tuple[str, str]]:
    return {(clip.path.split("/")[0], dataset.classes[clip.label]) for clip in dataset.split(split)}


@pytest.mark.parametrize(
    ("classes", "kept"),
    [("{first: 1}", CLASSES[:1]), ("{last: 3}", CLASSES[1:]), ("{first: 4}", CLASSES)],
)
def test_the_first_or_last_classes_are_kept_with_all_that_is_theirs(
    tmp_path: Path, classes: str, kept: tuple[str, ...]
) -> None:
    part = subset(tmp_path, f"classes: {classes}, clips_per_class: null")
    assert (part.name, part.classes) == ("part", kept)
    for split, count in (("train", 8), ("selection", 2)):
        assert labelled(part, split) == {(name, name) for name in kept}
        assert len(part.split(split)) == count * len(kept)
    assert (part.root, part.humans, part.frame_rate) == (tmp_path / "videos", "virtual", 5)
    assert part.licence == "free"


def test_clips_per_class_takes_so_many_training_clips_the_same_every_time(tmp_path: Path) -> None:
    def paths(rest: str) -> set[str]:
        part = subset(tmp_path, f"classes: {{last: 2}}, {rest}")
        train = part.split("train")
        assert [sum(clip.label == label for clip in train) for label in (0, 1)] == [
            len(train) // 2,
            len(train) // 2,
        ]
        assert len(part.split("selection")) == 4
        return {clip.path for clip in train}

    three = paths("clips_per_class: 3")
    assert len(three) == 6
    assert paths("clips_per_class: 3") == three
    assert paths("clips_per_class: 5") > three
    assert len(paths("clips_per_class: 1000")) == 16
    assert paths("clips_per_class: 3, seed: 1") != three
    assert three != {f"{label}/{i}.mp4" for label in CLASSES[2:] for i in range(3)}


def test_a_subset_has_an_identity_of_its_own(tmp_path: Path) -> None:
    asked = [
        "classes: {first: 2}, clips_per_class: null",
        "classes: {last: 2}, clips_per_class: null",
        "classes: {first: 2}, clips_per_class: 3",
        "classes: {first: 2}, clips_per_class: 3, seed: 1",
    ]
    hashes = [subset(tmp_path, rest).content_hash for rest in asked]
    hashes.append(load_catalog(tmp_path / "catalog.yaml", ["whole"])["whole"].content_hash)
    assert len(set(hashes)) == 5
    again = subset(tmp_path, asked[0] + ", licence: other")
    assert (again.content_hash, again.licence) == (hashes[0], "other")


def test_only_what_is_asked_for_and_its_parent_is_read(tmp_path: Path) -> None:
    part = "{subset_of: whole, classes: {first: 1}, clips_per_class: null}"
    gone = "{clips: nowhere.csv, root: $UNSET_ROOT, humans: none}"
    path = write(tmp_path, part=part, gone=gone)
    assert set(load_catalog(path, ["part"])) == {"part"}
    with pytest.raises(ValueError, match="nowhere.csv: cannot be read"):
        load_catalog(path)
    with pytest.raises(ValueError, match="'wole' is not in it; did you mean 'whole'"):
        load_catalog(path, ["part", "wole"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{subset_of: wole, classes: {first: 1}}", "clips_per_class: missing"),
        (
            "{subset_of: wole, classes: {first: 1}, clips_per_class: 1}",
            "'part': subset_of 'wole' is not in the catalog; did you mean 'whole'",
        ),
        (
            "{subset_of: other, classes: {first: 1}, clips_per_class: 1}",
            "subset_of 'other' is itself a subset; take it of 'whole'",
        ),
        (
            "{subset_of: whole, classes: {last: 5}, clips_per_class: 1}",
            "asks for 5 classes of 'whole', which has 4; ask for fewer",
        ),
        (
            "{subset_of: whole, classes: {first: 1, last: 1}, clips_per_class: 1}",
            "classes: give exactly one of 'first' and 'last'",
        ),
        ("{subset_of: whole, classes: {frst: 1}, clips_per_class: 1}", "did you mean 'first'"),
        ("{subset_of: whole, classes: {first: 0}, clips_per_class: 1}", "classes.first"),
        (
            "{subset_of: whole, root: x, classes: {first: 1}, clips_per_class: 1}",
            "datasets.part.root: unknown key",
        ),
    ],
)
def test_a_subset_that_cannot_be_is_refused(tmp_path: Path, entry: str, message: str) -> None:
    other = "{subset_of: whole, classes: {first: 2}, clips_per_class: 1}"
    with pytest.raises(ValueError, match=message):
        load_catalog(write(tmp_path, part=entry, other=other))
