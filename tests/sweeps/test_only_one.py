from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from sweeps import only_one as only_one_module
from sweeps.only_one import only_one
from sweeps.records import TrialRecord
from trainables.storage import lease as lease_module
from trainables.storage.folder import Folder
from trainables.storage.lease import Lease


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of half a second, and no process that this one can see."""
    monkeypatch.setattr(only_one_module, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(only_one_module, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(only_one_module, "LOOK_SECONDS", 0.05)
    systems = iter(range(1000))
    monkeypatch.setattr(lease_module, "_system", lambda: f"machine {next(systems)}")


@pytest.mark.usefixtures("quick")
def test_a_second_process_elsewhere_is_refused_while_the_first_is_heard(tmp_path: Path) -> None:
    said: list[str] = []
    folder = Folder(str(tmp_path))
    with only_one(folder, said.append):
        with pytest.raises(ValueError, match="runs this sweep; wait for it.*--set name=NAME"):
            with only_one(folder, said.append):
                pass
    assert "this process goes on unless it is heard within" in said[0]
    with only_one(folder, said.append):  # given back: no wait
        pass
    assert len(said) == 1


@pytest.mark.usefixtures("quick")
def test_it_goes_on_after_a_process_elsewhere_that_is_not_heard_any_more(tmp_path: Path) -> None:
    folder, said = Folder(str(tmp_path)), list[str]()
    assert Lease(folder / "lease", 0.5).take()  # and never renewed
    with only_one(folder, said.append) as check:
        check()
    assert len(said) == 1


@pytest.mark.usefixtures("quick")
def test_who_stood_still_and_was_overtaken_is_interrupted_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()
    monkeypatch.setattr(signal, "SIGINT", signal.SIGUSR1)
    before = signal.signal(signal.SIGUSR1, lambda *_: interrupted.set())
    folder, said = Folder(str(tmp_path)), list[str]()
    try:
        with only_one(folder, said.append) as check:
            check()
            (folder / "lease").write("2.json", (folder / "lease").read("1.json"))
            with pytest.raises(ValueError, match="another process has taken over this sweep"):
                check()
            assert interrupted.wait(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "taken over" in said[0]
    assert (folder / "lease").read("2.json")  # the other's lease is left alone


def test_a_search_asks_before_it_writes_a_record(tmp_path: Path) -> None:
    from search_spaces.space import load_space
    from sweeps.searching.search import Search
    from sweeps.sweep import Sweep
    from tests.toy import toy_data, write_toy_sweep

    sweep = Sweep(write_toy_sweep(tmp_path), {})
    assert sweep.space_file is not None
    search = Search(sweep, load_space(sweep.space_file), [], toy_data())

    def taken_over() -> None:
        raise ValueError("another process has taken over this sweep")

    search.before_writing = taken_over
    written: list[TrialRecord] = []
    search.listen(written.append)
    with pytest.raises(ValueError, match="taken over"):
        search.ask()
    assert not written and (sweep.folder / "trials").listed() == []
