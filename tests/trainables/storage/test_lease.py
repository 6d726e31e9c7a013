from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from trainables.storage import lease as lease_module
from trainables.storage.folder import Folder
from trainables.storage.lease import Lease

ROOT = Path(__file__).resolve().parents[3]
TAKE = """
import sys
from trainables.storage.folder import Folder
from trainables.storage.lease import Lease
assert Lease(Folder(sys.argv[1]), 3600).take()
print("taken", flush=True)
sys.stdin.read()
"""


def elsewhere(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease's process is of another machine, for all that this one can tell."""
    monkeypatch.setattr(lease_module, "_system", lambda: "another boot:another namespace")


def test_one_of_many_takes_it_and_the_next_when_it_is_given_back(folder: Folder) -> None:
    leases = [Lease(folder, 3600) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        taken = list(threads.map(Lease.take, leases))
    assert sum(taken) == 1
    first, second = leases[taken.index(True)], leases[taken.index(False)]
    assert second.holder() is not None and first.holder() is None
    assert first.renew() and not second.renew() and not second.take()
    first.give_back()
    assert second.take() and not first.renew()
    assert [file.name for file in folder.listed()] == ["1.json"]


def test_that_of_a_killed_process_of_this_machine_is_void_at_once(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None and other.stdout.readline() == b"taken\n"
    lease = Lease(Folder(str(tmp_path)), 3600)
    holder = lease.holder()
    assert holder is not None and holder.pid == other.pid and holder.is_here()
    assert not lease.take()
    other.kill()
    other.wait()
    assert lease.take()


def test_that_of_a_process_elsewhere_lapses_when_it_was_not_renewed_for_so_long(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Lease(folder, 100)
    assert theirs.take()
    elsewhere(theirs, monkeypatch)
    now = time.monotonic()
    monkeypatch.setattr(lease_module, "monotonic", lambda: now)
    mine = Lease(folder, 100)
    assert not mine.take()
    now += 99
    assert not mine.take() and not mine.heard
    assert theirs.renew()
    now += 99
    assert not mine.take() and mine.heard
    now += 101
    assert mine.take()
    # Who stood still for so long finds out, and what it does then harms nobody.
    assert not theirs.renew() and not theirs.is_held() and mine.is_held()
    theirs.give_back()
    assert mine.renew()


def test_one_that_was_lost_is_not_taken_for_another_of_the_same_number(folder: Folder) -> None:
    stood_still, second = Lease(folder, 3600), Lease(folder, 3600)
    assert stood_still.take()
    folder.remove()  # as after another had taken it, and given it back
    assert second.take()
    assert not stood_still.renew() and second.renew()


def test_one_that_is_given_back_while_the_next_takes_it_leaves_that_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lease(Folder(str(tmp_path)), 0), Lease(Folder(str(tmp_path)), 0)
    assert first.take()  # and it lapses at once
    make = os.makedirs

    def make_and_give_back(*arguments: Any, **options: Any) -> None:
        make(*arguments, **options)
        first.give_back()

    monkeypatch.setattr(os, "makedirs", make_and_give_back)
    assert second.take() and second.is_held()


def test_taking_clears_what_earlier_holders_have_left(folder: Folder) -> None:
    left = Lease(folder, 3600)
    assert left.take()
    content = folder.read("1.json")
    folder.write("2.json", content)  # it died as it took the second
    mine = Lease(folder, 0)
    assert mine.take()
    assert [file.name for file in folder.listed()] == ["3.json"]


def test_a_damaged_lease_is_an_error_that_names_it(tmp_path: Path) -> None:
    Folder(str(tmp_path)).write("3.json", json.dumps({"holder": {}}).encode())
    with pytest.raises(ValueError, match="3.json: is no lease; delete it"):
        Lease(Folder(str(tmp_path)), 3600).take()
