from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.study import RungPoint
from search_spaces.space import parse_space
from search_spaces.study import Observation, Study
from sweeps.records import (
    TrialRecord,
    check_same_sweep,
    read_records,
    read_sweep,
    write_record,
    write_sweep,
)
from trainables.storage.folder import Folder
from trainables.storage.local_files import LocalFiles


def record(number: int, **changes: Any) -> TrialRecord:
    running = TrialRecord(
        number=number,
        name=None,
        origin="suggested",
        values={"align.mixture.shares": {"synthetic": 0.35, "scenes": 0.65}, "mae.epochs": 2},
        params={"align.mixture.shares[synthetic]": 0.1 + 0.2, "mae.epochs": 2},
        state="running",
    )
    return replace(running, **changes)


def test_records_are_read_back_as_written_in_order(tmp_path: Path) -> None:
    written = [
        record(
            0,
            name="baseline: equal",
            origin="baseline",
            state="complete",
            score=1 / 3,
            scores={"actions": 0.25, "scenes": 5 / 12},
            rungs=[RungPoint(rung=0.25, accuracies={"low": 0.1}, device_seconds=7.5)],
            stages={"mae": "3f2a", "align": "99bc"},
            mlflow_run_id="ab12",
            started_at="2026-11-22T07:35:00+00:00",
            attempts=1,
        ),
        record(1, state="failed", reason="align: the loss is not finite at step 3"),
        record(2, state="pruned", reason="stopped early"),
        *(record(number) for number in range(3, 12)),
    ]
    for each in reversed(written):
        write_record(Folder(str(tmp_path)), each)
    assert read_records(Folder(str(tmp_path))) == written
    assert [path.name for path in sorted((tmp_path / "trials").iterdir())][:2] == [
        "0000.json",
        "0001.json",
    ]


def test_a_new_sweep_has_no_records(tmp_path: Path) -> None:
    assert read_records(Folder(str(tmp_path))) == []
    assert read_sweep(Folder(str(tmp_path))) is None


def test_a_crash_while_writing_leaves_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(Folder(str(tmp_path)), record(0))

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write_record(Folder(str(tmp_path)), record(0, state="complete", score=0.5))
    assert read_records(Folder(str(tmp_path))) == [record(0)]
    write_record(Folder(str(tmp_path)), record(0, state="complete", score=0.5))
    assert read_records(Folder(str(tmp_path)))[0].score == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"number": 1, "na', "0001.json: is no record of trial 1"),
        ("", "is no record"),
        ("[]", "is no record"),
        ('{"number": 1}', "values: "),
        ('{"number": 0}', "is no record"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(
    tmp_path: Path, text: str, message: str
) -> None:
    for number in range(3):
        write_record(Folder(str(tmp_path)), record(number))
    (tmp_path / "trials" / "0001.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_records(Folder(str(tmp_path)))


def test_a_record_of_another_number_or_with_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    write_record(Folder(str(tmp_path)), record(0))
    path = tmp_path / "trials" / "0000.json"
    text = path.read_text()
    path.write_text(text.replace('"number": 0', '"number": 4'))
    with pytest.raises(ValueError, match="holds trial 4"):
        read_records(Folder(str(tmp_path)))
    path.write_text(text.replace('"reason"', '"raeson"'))
    with pytest.raises(ValueError, match="raeson"):
        read_records(Folder(str(tmp_path)))


def test_a_storage_that_does_not_answer_is_no_reason_to_delete_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(Folder(str(tmp_path)), record(0))

    def refuse(*_: Any) -> bytes:
        raise OSError(errno.EIO, "503 Service Unavailable")

    monkeypatch.setattr(LocalFiles, "read", refuse)
    with pytest.raises(OSError, match="does not answer.*503.*0000.json") as refused:
        read_records(Folder(str(tmp_path)))
    assert "delete" not in str(refused.value)


def test_a_missing_record_is_an_error_that_names_it(tmp_path: Path) -> None:
    for number in (0, 2):
        write_record(Folder(str(tmp_path)), record(number))
    with pytest.raises(ValueError, match=r"0001.json.*delete it and all later"):
        read_records(Folder(str(tmp_path)))


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "complete"},
        {"state": "complete", "score": float("nan")},
        {"state": "failed"},
        {"state": "done"},
        {"values": {"x": object()}},
    ],
)
def test_a_record_that_cannot_be_true_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        record(0, **changes)


def test_records_rebuild_the_study_that_wrote_them(tmp_path: Path) -> None:
    space = parse_space(
        {"parameters": {"x": {"type": "simplex", "over": ["a", "b", "c"]}}}, where="s.yaml"
    )
    study = Study(space, sampler="tpe", seed=0, startup_trials=2)
    for number in range(6):
        trial = study.ask()
        assert trial is not None
        score = trial.values["x"]["b"]
        study.tell(number, "complete", [score])
        write_record(
            Folder(str(tmp_path)),
            record(number, values=trial.values, params=trial.params, state="complete", score=score),
        )
    past = [
        Observation(values=each.values, state=each.state, objectives=(each.score,))
        for each in read_records(Folder(str(tmp_path)))
        if each.score is not None
    ]
    assert Study(space, sampler="tpe", seed=0, startup_trials=2, past=past).ask() == study.ask()


STORED: dict[str, Any] = {
    "name": "demo",
    "search": {"trials": 8, "seed": 0, "points": []},
    "trial": {"align": {"epochs": 4, "mixture": {"shares": {"a": 0.5, "b": 0.5}}}},
    "execution": {"align": {"workers": 1}},
}
FREE = ("search.trials", "execution")


def test_more_trials_and_other_workers_continue_a_sweep(tmp_path: Path) -> None:
    write_sweep(Folder(str(tmp_path)), STORED)
    stored = read_sweep(Folder(str(tmp_path)))
    assert stored == STORED
    check_same_sweep(stored, STORED, FREE)
    changed = {
        **STORED,
        "search": {"trials": 12, "seed": 0, "points": ()},
        "execution": {"align": {"workers": 2, "gpus": 1}},
    }
    check_same_sweep(stored, changed, FREE)


def test_a_sweep_of_an_earlier_version_goes_on_where_what_it_did_not_know_is_off() -> None:
    check_same_sweep(STORED, {**STORED, "trial": {**STORED["trial"], "contrastive": None}}, FREE)


def test_a_changed_sweep_is_an_error_that_names_each_key_with_both_values() -> None:
    changed = {
        "name": "demo",
        "search": {"trials": 12, "seed": 1, "trials_more": 1},
        "trial": {"align": {"epochs": 5, "mixture": {"shares": {"a": 0.4, "b": 0.6}}}},
        "execution": {"align": {"workers": 1}},
    }
    with pytest.raises(ValueError) as error:
        check_same_sweep(STORED, changed, FREE)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == [
        "  search.seed: 0 when it began, 1 now",
        "  search.points: [] when it began, absent now",
        "  trial.align.epochs: 4 when it began, 5 now",
        "  trial.align.mixture.shares.a: 0.5 when it began, 0.4 now",
        "  trial.align.mixture.shares.b: 0.5 when it began, 0.6 now",
        "  search.trials_more: absent when it began, 1 now",
    ]
    assert "another name" in lines[-1]
