"""What MLflow is told of a sweep as it happens, and made again from its files after a kill."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from cluster.tracking import Tracker
from search_spaces.space import load_space
from sweeps.planning.stage_facts import describe
from sweeps.searching.given import given_trials
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from sweeps.watching.terminal import Terminal
from sweeps.watching.watch import Watch
from tests.toy import toy_data, write_toy_sweep
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import TrialStages, trial_stages


class Life:
    """One process' life of the sweep in `folder`, all but the training and Ray.

    `events` are what the `Stages` actor says.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "sweep.yaml"
        self.sweep = Sweep(file if file.exists() else write_toy_sweep(folder), {})
        assert self.sweep.space_file is not None
        space = load_space(self.sweep.space_file)
        given = given_trials(self.sweep, space, {"synthetic": 16, "scenes": 8})
        self.search = Search(self.sweep, space, given, toy_data())
        self.store = StageStore(self.sweep.storage / "stages")
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.tracker = Tracker(self.uri, "toy", "ab12", None)
        self.events: list[dict[str, Any]] = []
        self.away, self.asked = False, 0
        self.bias: list[Stage] = []  # stages of no trial
        self.screen = io.StringIO()

    def open(self) -> Watch:
        settings = self.sweep.identity()
        self.tracker.start(settings, "", {}, datasets=["low"], varied=[], must_answer=True)
        prepared: Any = SimpleNamespace(
            search=self.search,
            data=toy_data(),
            store=self.store,
            costs=None,
            bias_stages=lambda: self.bias,
        )
        terminal = Terminal(Console(file=self.screen, width=200), self.search.trials)
        self.watch = Watch(prepared, self.tracker, terminal)
        self.watch._price_told = float("inf")  # nothing is to be priced
        self.watch.catch_up()
        self.search.listen(self.watch.changed)
        self.watch.follow(self.told)
        return self.watch

    def told(self, since: int) -> tuple[list[dict[str, Any]], int]:
        self.asked += 1
        if self.away:
            raise RuntimeError("the actor died")
        return self.events[since:], len(self.events)

    def close(self) -> dict[str, Run]:
        self.watch.stop()
        self.watch.catch_up()
        self.tracker.wait()
        assert self.tracker.unsent == 0
        self.watch.note_runs()
        return self.runs()

    def runs(self) -> dict[str, Run]:
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("toy")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        named = {f"{run.data.tags['kind']} {run.data.tags['key']}": run for run in found}
        assert len(named) == len(found), "twins"
        return named

    def stages(self, number: int, split: str = "selection") -> TrialStages:
        return trial_stages(self.search.known()[number][1], toy_data(), split)

    def train(self, stage: Stage, epochs: int, *, finish: bool = True) -> None:
        self.store.begin_attempt(stage.identity)
        for epoch in range(1, epochs + 1):
            point = {"epoch": epoch, "loss": 1 / epoch, "time": 1e9 + epoch}
            self.store.add_progress(stage.identity, point)
            self.event(stage, "progress", point=point)
        if finish:
            metrics = {"accuracy": 0.5} if stage.kind == "probe" else {}
            cost = {"device_seconds": 1.0, "clips": 8}
            self.store.publish(stage, write={}, metrics=metrics, cost=cost)
            self.event(stage, "finished", record={"cost": cost, "metrics": {}})

    def event(self, stage: Stage, state: str, **more: Any) -> None:
        self.events.append(
            {"identity": stage.identity, "kind": stage.kind, "state": state, "trials": [], **more}
        )

    def run_trial(self) -> None:
        assignment = self.search.ask()
        assert assignment is not None
        for stage in self.stages(assignment.number).searched():
            if self.store.record(stage.identity) is None:
                self.train(stage, 3 if stage.kind in ("mae", "align") else 0)
        self.search.complete(assignment.number, {"low": 0.5}, {})


@pytest.fixture(autouse=True)
def database(made_database: Path, tmp_path: Path) -> None:
    shutil.copy(made_database, tmp_path / "mlflow.db")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    life.open()
    yield life


def curve(life: Life, run: Run) -> list[tuple[int, float]]:
    history = MlflowClient(life.uri).get_metric_history(run.info.run_id, "loss")
    return [(each.step, each.value) for each in history]


def test_a_trial_has_its_score_its_own_settings_and_links_to_all_its_stages(life: Life) -> None:
    for _ in range(3):
        life.run_trial()
    found = life.close()
    trial = found["trial 2"]
    assert trial.info.status == "FINISHED"
    assert trial.data.metrics == {"score": 0.5, "accuracy/low": 0.5}
    assert trial.data.params["align.mixture.shares.scenes"] == "1.0"
    assert "model.name" not in trial.data.params  # as all trials: the parent has it
    assert found["sweep toy"].data.params["trial.model.name"] == "vit_tiny"
    for stage in life.stages(2).searched():
        run = found[f"stage {stage.identity}"]
        assert run.info.status == "FINISHED"
        assert f"runs/{run.info.run_id})" in trial.data.tags["mlflow.note.content"]
        if stage.kind in ("mae", "align"):
            assert curve(life, run) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert life.search.records[2].mlflow_run_id == trial.info.run_id


def test_after_a_kill_with_nothing_sent_all_is_told_from_the_files(tmp_path: Path) -> None:
    dead = Life(tmp_path)  # it never reached MLflow
    for _ in range(6):
        dead.run_trial()
    dead.search.ask()
    best, *_ = dead.search.records
    after = dead.stages(best.number, "report")
    for stage in after.all():
        if dead.store.record(stage.identity) is None:
            dead.train(stage, 0)

    life = Life(tmp_path)
    life.open()
    found = life.close()
    assert {key for key in found if key.startswith("trial")} == {f"trial {n}" for n in range(6)}
    on_disk = {record.identity for record in life.store.records()}
    assert {f"stage {identity}" for identity in on_disk} == {k for k in found if "stage" in k}
    assert {run.info.status for key, run in found.items() if key != "sweep toy"} == {"FINISHED"}
    aligned = life.stages(1).weights
    assert curve(life, found[f"stage {aligned.identity}"]) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_what_mlflow_knows_is_neither_read_nor_sent_again(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        life.run_trial()
    before = life.close()
    again, read = Life(tmp_path), []
    with monkeypatch.context() as patch:  # what the search itself reads is not meant
        patch.setattr(StageStore, "record", lambda self, identity: read.append(identity))
        again.open()
    assert read == []
    after = again.close()
    assert {key: run.info.end_time for key, run in after.items() if "sweep" not in key} == {
        key: run.info.end_time for key, run in before.items() if "sweep" not in key
    }


def test_a_stage_that_no_trial_wants_any_more_does_not_run_for_ever(
    life: Life, tmp_path: Path
) -> None:
    life.run_trial()
    life.search.ask()
    left, failed = life.stages(1).weights, life.stages(2).weights
    life.train(left, 2, finish=False)
    stopped = {"state": "pruned", "reason": "held-out accuracy 0.1 at epoch 2"}
    life.search._finish(life.search.records[1], **stopped)
    life.search.ask()
    life.train(failed, 1, finish=False)
    life.search.failed(2, f"align {failed.identity}: loss is nan")
    life.watch.stop()  # as by a kill: their ends are not told
    life.tracker.wait()
    assert life.runs()[f"stage {left.identity}"].info.status == "RUNNING"

    again = Life(tmp_path)
    again.open()
    found = again.close()
    run = found[f"stage {left.identity}"]
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "stopped")
    assert curve(again, run) == [(1, 1.0), (2, 0.5)]
    assert found[f"stage {failed.identity}"].info.status == "FAILED"
    assert found["trial 1"].info.status == "KILLED"
    assert found["trial 2"].info.status == "FAILED"


def test_what_happens_while_the_actor_is_away_is_told_when_it_is_back(life: Life) -> None:
    life.away, life.asked = True, 0
    life.run_trial()
    deadline = time.monotonic() + 60
    while not life.asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    life.away = False
    life.watch.stop()
    assert "trial 0" in life.screen.getvalue()
    life.tracker.wait()
    assert life.runs()["trial 0"].info.status == "FINISHED"


def test_the_stages_of_a_suggested_trial_are_told_by_what_they_train_on(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.open()
    for _ in range(6):  # 5 baselines, then a suggestion
        life.run_trial()
    suggested = life.stages(5).weights
    life.close()
    told = [line for line in life.screen.getvalue().splitlines() if suggested.identity[:6] in line]
    assert told and all(describe(suggested) in line for line in told)


def test_a_stage_of_no_trial_is_told_as_it_ends_or_once_the_search_is_over(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.bias = [
        Stage(kind="bias", settings={"dataset": "low", "view": view}, data={"low": "ab"})
        for view in ("frames", "people_masked")
    ]
    life.open()
    while life.search.unfinished():
        life.run_trial()
    told, untold = life.bias
    life.train(told, 0)
    life.store.publish(untold, write={}, metrics={}, cost={"device_seconds": 1.0, "clips": 8})
    runs = life.close()
    names = [runs[f"stage {stage.identity}"].info.run_name for stage in life.bias]
    assert [name.partition(" ·")[0] for name in names] == [
        "bias low frames",
        "bias low people masked",
    ]


def test_a_line_says_the_date_and_the_time_of_day(tmp_path: Path) -> None:
    screen, before = io.StringIO(), time.time()
    Terminal(Console(file=screen, width=200), trials=1).say("something")
    day, clock, said = screen.getvalue().split()
    said_at = time.strptime(f"{time.localtime().tm_year}-{day} {clock}", "%Y-%m-%d %H:%M:%S")
    assert said == "something" and abs(time.mktime(said_at) - before) < 300
