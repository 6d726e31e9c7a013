from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.s3 import S3
from trainables.storage import folder as folder_module
from trainables.storage import node_cache
from trainables.storage.folder import GIGABYTE, Folder
from trainables.storage.local_files import LocalFiles

ROOT = Path(__file__).resolve().parents[3]


def names(folder: Folder) -> list[str]:
    return [file.name for file in folder.listed()]


def test_what_was_written_is_read_listed_replaced_and_deleted(folder: Folder) -> None:
    assert folder.listed() == []
    with pytest.raises(FileNotFoundError):
        folder.read("a.json")
    folder.write("a.json", b"one")
    (folder / "below").write("b.json", memoryview(b"three"))
    assert [(file.name, file.size) for file in folder.listed()] == [
        ("a.json", 3),
        ("below/b.json", 5),
    ]
    folder.write("a.json", b"four")
    assert folder.read("a.json") == b"four" and folder.read("below/b.json") == b"three"
    folder.delete(["a.json", "never there"])
    assert names(folder) == ["below/b.json"]
    (folder / "below").remove()
    assert names(folder) == []


def test_folders_are_those_directly_below_and_not_files(folder: Folder) -> None:
    assert folder.folders() == []
    folder.write("file.json", b"x")
    for name in ("b/record.json", "a/record.json", "a/checkpoint/last.pt"):
        folder.write(name, b"x")
    assert folder.folders() == ["a", "b"]
    assert (folder / "a").folders() == ["checkpoint"]


def test_of_many_who_create_one_file_one_has_made_it(folder: Folder) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: folder.create("record.json", b"%d" % n), range(8)))
    assert sum(made) == 1
    assert folder.read("record.json") == b"%d" % made.index(True)
    assert names(folder) == ["record.json"]


def test_a_copy_within_the_storage_has_the_content_and_outlives_its_source(folder: Folder) -> None:
    (folder / "trunk").write("weights", b"w")
    (folder / "stage").copy("mine", folder / "trunk", "weights")
    (folder / "trunk").remove()
    assert (folder / "stage").read("mine") == b"w"


def test_a_file_on_this_node_has_the_content(folder: Folder) -> None:
    folder.write("weights", b"w" * 100)
    assert folder.local("weights").read_bytes() == b"w" * 100


def test_a_file_larger_than_a_part_of_an_upload_comes_back_whole(bucket: Folder) -> None:
    content = os.urandom(40 * 2**20)  # three parts
    bucket.write("weights", content)
    assert bucket.local("weights").read_bytes() == content


def test_an_object_is_fetched_once_and_the_copies_asked_for_longest_ago_go_first(
    bucket: Folder, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Folder(bucket.url, cache_gb=2500 / GIGABYTE)
    for name in "abc":
        room.write(name, b"x" * 1000)
    monkeypatch.setattr(node_cache, "IN_USE_SECONDS", 600.0)
    copies = {name: room.local(name) for name in "abc"}
    assert all(copy.exists() for copy in copies.values())  # they may be in use
    before = s3.asked["GET"]
    assert room.local("a") == copies["a"] and s3.asked["GET"] == before
    for age, name in enumerate("acb"):  # b was asked for longest ago
        os.utime(copies[name], (1000.0 - age, 1000.0 - age))
    room.write("d", b"x" * 1000)
    room.local("d")
    assert [copies[name].exists() for name in "abc"] == [True, False, False]


def test_a_storage_that_refuses_is_asked_again_until_it_takes_the_file(
    bucket: Folder, s3: S3
) -> None:
    bucket.write("old", b"1")
    s3.refusing, s3.refused = True, 0
    with pytest.raises(OSError, match="503"):
        bucket.write("new", b"2")
    patient = Folder(bucket.url, patience_seconds=300)
    written = threading.Thread(target=patient.write, args=("new", b"3"))
    written.start()
    while s3.refused < 10:
        assert written.is_alive()
    s3.refusing = False
    written.join(120)
    assert patient.read("new") == b"3" and names(bucket) == ["new", "old"]


def test_a_creation_whose_answer_was_lost_is_still_this_ones(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, lost = folder_module._files_of(folder.url), [True]
    create = type(files).create

    def loses_an_answer(self: object, path: str, data: bytes) -> bool:
        made = create(self, path, data)
        if lost.pop() if lost else False:
            raise OSError(errno.EIO, "the connection was reset")
        return made

    monkeypatch.setattr(type(files), "create", loses_an_answer)
    patient = Folder(folder.url, patience_seconds=60)
    assert patient.create("record.json", b"mine")
    assert not patient.create("record.json", b"another's")
    assert patient.read("record.json") == b"mine"


def test_what_does_not_pass_is_not_asked_again(folder: Folder) -> None:
    if folder.path is None:
        with pytest.raises(FileNotFoundError, match="no such object or bucket"):
            Folder("s3://no-such-bucket/x", patience_seconds=600).write("a", b"")
    else:
        folder.write("file", b"")
        with pytest.raises((NotADirectoryError, FileExistsError)):
            Folder(f"{folder}/file", patience_seconds=600).write("a", b"")


LIMITED = """
import resource, signal, sys
from trainables.storage.folder import Folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing too much is an error
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    Folder(sys.argv[1]).write("record.json", b"x" * 10_000)
except OSError as error:
    print(error.errno)
"""


def test_a_write_that_the_disk_cuts_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path,
) -> None:
    Folder(str(tmp_path)).write("record.json", b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == errno.EFBIG
    assert names(Folder(str(tmp_path))) == ["record.json"]
    assert Folder(str(tmp_path)).read("record.json") == b"old"


def test_a_write_is_flushed_with_its_name_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    for write in (LocalFiles().write, LocalFiles().create):
        flushed.clear()
        write(str(tmp_path / "a" / write.__name__), b"1")
        assert flushed[0].endswith(".tmp") and flushed[1] == str(tmp_path / "a")


def test_a_scheme_that_is_none_and_missing_packages_are_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="storage ftp://a/b: give a folder, or s3 or gs://BUCKET"):
        Folder("ftp://a/b").read("c")
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "trainables.storage.object_files", raising=False)
    with pytest.raises(ValueError, match=r"needs the package obstore.*pip install .*\[cloud\]"):
        Folder("s3://another-bucket/b").read("c")


def test_without_credentials_the_error_says_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ValueError, match="no AWS credentials.*AWS_PROFILE"):
        Folder("s3://a-third-bucket/b").read("c")
