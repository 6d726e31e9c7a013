"""--status on stored state: made by hand, and by a real run."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import sweeps.watching.heartbeat
from search_spaces.space import load_space
from sweeps.mixing import main
from sweeps.planning.stage_facts import stage_clips
from sweeps.records import write_sweep
from sweeps.searching.given import given_trials
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from sweeps.watching.heartbeat import Heartbeat
from sweeps.watching.status import SILENT_SECONDS, Status, read_status
from sweeps.watching.status_tables import print_status
from sweeps.watching.usage import Usage, read_usage
from tests.sweeps.commands import ROOT, command, environment, write_world_sweep
from tests.toy import toy_data, write_toy_sweep
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.storage.folder import Folder
from trainables.trial import TrialStages, trial_stages

RATES = {"mae": 3.0, "align": 1.0, "features": 0.5}  # device-seconds a clip


@dataclass
class Toy:
    """A sweep of six trials: five baselines, and one that the sampler will suggest."""

    folder: Path
    overrides: dict[str, Any] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)  # what the `Stages` actor says
    up: float = 4.0  # CPUs of the cluster; it says that 2 are held and 1 is at work

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.sweep = Sweep(write_toy_sweep(self.folder, **self.overrides), {})
        assert self.sweep.space_file is not None
        space = load_space(self.sweep.space_file)
        sizes = {"synthetic": 16, "scenes": 8}
        self.search = Search(self.sweep, space, given_trials(self.sweep, space, sizes), toy_data())
        self.store = StageStore(self.sweep.storage / "stages")
        write_sweep(self.sweep.folder, self.sweep.identity())
        self.heartbeat = Heartbeat(self.search, toy_data(), self, Usage(device="CPU"))

    # What the heartbeat asks of the `Stages` actor, and puts into the field `told`.

    def status(self) -> list[dict[str, Any]]:
        return [*self.told]

    def usage(self) -> dict[str, dict[str, float]]:
        devices = {"up": self.up, "held": 2.0, "at_work": 1.0}
        return {name: {"CPU": number, "GPU": 0.0} for name, number in devices.items()}

    def stages(self, number: int) -> TrialStages:
        _, config = self.search.known()[number]
        return trial_stages(config, toy_data())

    def finish(self, stage: Stage) -> None:
        clips = stage_clips(stage, toy_data())
        cost = {"device_seconds": clips * RATES.get(stage.kind, 0.0), "clips": clips}
        self.store.publish(stage, write={}, metrics={}, cost=cost)

    def complete(self, number: int, score: float) -> None:
        assignment = self.search.ask()
        assert assignment is not None and assignment.number == number
        stages = list(self.stages(number).all())
        for stage in stages:
            self.finish(stage)
        named = {f"{stage.kind} {stage.identity}": stage.identity for stage in stages}
        self.search.complete(number, {"low": score}, named)

    def begin(self, number: int, **point: float) -> Stage:
        """The trial's alignment has trained an epoch, and runs on the host gpu-1."""
        self.search.ask()
        stage = self.stages(number).weights
        point = {"epoch": 1, "device_seconds": 8.0, "clips_per_second": 1.5, **point}
        self.store.add_progress(stage.identity, point)
        begun = {"state": "progress", "since": time.time() - 600, "hosts": ["gpu-1"], "attempt": 2}
        begun["workers"] = self.sweep.settings.execution.align.counts[-1]
        self.tell(stage, number, **begun)
        return stage

    def tell(self, stage: Stage, number: int, **event: Any) -> None:
        event = {"time": time.time() - 240, "trials": [number], **event}
        self.told.append({"identity": stage.identity, "kind": stage.kind, **event})

    def seen(self, later: float = 0.0) -> Status:
        return read_status(self.sweep.folder, self.store, time.time() + later)

    def half_way(self) -> None:
        """Two trials complete, the third half through its alignment, the fourth queued."""
        self.complete(0, 0.25)
        self.complete(1, 0.75)
        self.begin(2)
        self.search.ask()
        self.tell(self.stages(3).weights, 3, state="queued", why="needs 1 GPU, free 0")
        self.heartbeat.beat()


def shown(status: Status) -> str:
    """What is printed, on one line."""
    console = Console(width=160, record=True, file=io.StringIO())
    print_status(status, console)
    return " ".join(console.export_text().split())


def test_what_runs_says_where_for_how_long_and_how_far_and_what_waits_says_for_what(
    tmp_path: Path,
) -> None:
    toy = Toy(tmp_path)
    toy.half_way()
    status = toy.seen()
    assert status.life == "runs"
    (running,), (waiting,) = status.running, status.waiting
    assert (running.kind, running.trials, running.hosts) == ("align", [2], ["gpu-1"])
    assert (running.epoch, running.epochs, running.attempt) == (1, 2, 2)
    assert running.seconds == pytest.approx(600, abs=5)
    assert (waiting.trials, waiting.why) == ([3], "needs 1 GPU, free 0")
    assert waiting.seconds == pytest.approx(240, abs=5)
    assert status.later == 10  # of three trials with four stages each, but for these two
    assert status.counts == {"complete": 2, "failed": 0, "pruned": 0, "running": 2, "waiting": 2}
    said = shown(status)
    assert "2 of 6 complete, 0 failed, 0 pruned, 2 running, 2 waiting" in said
    assert "1 of 2" in said and "gpu-1" in said and "1 scenes" in said and "10 min" in said
    assert "needs 1 GPU, free 0" in said and "10 more stages" in said


def test_cost_and_end_count_the_part_of_a_running_stage_that_is_done(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.half_way()
    status = toy.seen()
    features = 12 * 0.5
    assert status.cost.device_seconds == pytest.approx(features + (24 + 16 + features) + 8)
    assert (status.cost.finished, status.cost.begun) == (9, 1)
    alignment = 16.0
    known = alignment / 2 + features + 2 * (alignment + features)
    assert status.to_do.known_seconds == pytest.approx(known)
    # The one to be suggested costs what a trial does that pays for no stage 1.
    assert (status.to_do.to_suggest, status.to_do.suggested_seconds) == (1, alignment + features)
    assert status.to_do.ends == pytest.approx(status.now + known + alignment + features)
    assert "with 1 device at work as now" in shown(status)


def test_what_earlier_sweeps_made_is_no_cost_of_this_one(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    shared = next(stage for stage in toy.stages(1).weights.chain() if stage.kind == "mae")
    toy.finish(shared)
    folder = toy.store.folder(shared.identity)
    record = json.loads(folder.read("record.json"))
    folder.write("record.json", json.dumps(record | {"finished_at": time.time() - 60}).encode())
    toy.store = StageStore(toy.store.root)
    toy.half_way()
    features = 12 * 0.5
    assert toy.seen().cost.device_seconds == pytest.approx(features + (16 + features) + 8)
    assert toy.seen().cost.finished == 8


def test_a_stage_on_four_workers_ends_four_times_as_soon(tmp_path: Path) -> None:
    toy = Toy(tmp_path, {"execution__align__workers": 4})
    toy.half_way()
    alone = Toy(tmp_path / "alone")
    alone.half_way()
    four, one = toy.seen(), alone.seen()
    assert four.to_do.ends is not None and one.to_do.ends is not None
    assert four.to_do.ends - four.now == pytest.approx((one.to_do.ends - one.now) / 4)


def test_a_stage_that_has_a_place_but_no_workers_yet_waits_and_says_for_what(
    tmp_path: Path,
) -> None:
    toy = Toy(tmp_path)
    toy.search.ask()
    place = {"state": "started", "attempt": 1, "workers": 1, "hosts": []}
    toy.tell(toy.stages(0).weights, 0, **place, why="waits for a node to start")
    toy.heartbeat.beat()
    status = toy.seen()
    assert (status.running, len(status.waiting)) == ([], 1)
    assert "waits for a node to start" in shown(status)


def test_the_cost_in_money_counts_the_part_of_a_gpu_that_a_worker_has(tmp_path: Path) -> None:
    prices = {
        "execution__device_price_per_hour": 3600.0,
        "execution__align__gpus_per_worker": 1,
        "execution__tasks__gpus_per_worker": 0.25,
    }
    toy = Toy(tmp_path, prices)
    toy.half_way()
    features = 12 * 0.5
    assert toy.seen().cost.money == pytest.approx(2 * features / 4 + 16 + 8)  # and no GPU for MAE
    assert "at the price of a device" in shown(toy.seen())
    free = Toy(tmp_path / "free")
    free.half_way()
    assert free.seen().cost.money is None
    assert "price" not in shown(free.seen())


def test_what_was_held_and_idle_is_summed_over_all_lives_of_a_sweep_and_kept(
    tmp_path: Path,
) -> None:
    now = {"up": {"CPU": 8.0, "GPU": 4.0}, "held": {"CPU": 6.0, "GPU": 3.0}}
    now["at_work"] = {"CPU": 4.0, "GPU": 1.0}
    gpus = Usage(device="GPU").later(10, now).later(5, now)
    assert gpus == Usage(device="GPU", up=60, held=45, at_work=15)
    assert "Idle: 50% held between stages and while workers start, 25%" in gpus.sentence()
    waits = {**now, "held": {"CPU": 0.0, "GPU": 9.0}}  # of nodes that are still to come
    assert Usage(device="GPU").later(1, waits).held == 4

    toy = Toy(tmp_path)
    toy.heartbeat.beat()
    before = read_usage(toy.sweep.folder, "CPU")
    toy.heartbeat.start()  # of what runs there is nothing new to write
    toy.heartbeat.stop()
    first = read_usage(toy.sweep.folder, "CPU")
    assert 0 < first.at_work == first.held / 2 == first.up / 4
    assert first.up > before.up
    again = Heartbeat(toy.search, toy_data(), toy, first)
    again.beat()
    again.start()
    again.stop()
    assert read_usage(toy.sweep.folder, "CPU").up > first.up
    assert toy.seen().usage == read_usage(toy.sweep.folder, "CPU")
    assert "CPU time: 0.00 h of nodes" in shown(toy.seen())
    assert read_usage(toy.sweep.folder, "GPU").up == 0  # another thing is counted from now on


def test_the_heartbeat_goes_on_after_the_actor_was_away_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    toy, asked = Toy(tmp_path), 0

    def away_at_first() -> list[dict[str, Any]]:
        nonlocal asked
        asked += 1
        if asked <= 3:
            raise RuntimeError("the actor died")
        return []

    monkeypatch.setattr(toy, "status", away_at_first)
    monkeypatch.setattr(sweeps.watching.heartbeat, "CHANGE_SECONDS", 0.01)
    toy.heartbeat.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs/toy/stages.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert toy.seen().life == "runs"
    toy.heartbeat.stop()
    assert caplog.text.count("failed, and is done again: RuntimeError('the actor died')") == 1


def test_an_end_is_not_promised_while_a_kind_is_untimed_or_nothing_is_at_work(
    tmp_path: Path,
) -> None:
    toy = Toy(tmp_path)
    toy.heartbeat.beat()
    assert toy.seen().to_do.untimed == ["align", "features", "mae"]
    assert "Estimated end: not known, as nothing is at work" in shown(toy.seen())
    toy.complete(0, 0.5)
    toy.begin(1)
    toy.heartbeat.beat()
    assert toy.seen().to_do.untimed == ["align", "mae"]  # this one goes by its own first epoch
    assert "mae not timed yet" in shown(toy.seen())
    assert "not known, as some kinds of stage" in shown(toy.seen())


def test_rates_of_the_sweep_file_price_what_was_never_timed(tmp_path: Path) -> None:
    rates = {"mae": 1.0, "align": 2.0, "tasks": 4.0}
    toy = Toy(tmp_path, {"execution__clips_per_second": rates})
    toy.heartbeat.beat()
    to_do = toy.seen().to_do
    assert to_do.untimed == []
    assert to_do.known_seconds == pytest.approx(8 / 1 + 4 * 16 / 2 + 5 * 12 / 4)


def test_a_dead_sweep_says_since_when_nothing_was_heard_and_its_clocks_stand_still(
    tmp_path: Path,
) -> None:
    toy = Toy(tmp_path)
    toy.half_way()
    status = toy.seen(later=SILENT_SECONDS + 270)
    assert status.life == "silent"
    assert status.running[0].seconds == pytest.approx(600, abs=5)
    assert status.to_do.ends is None
    said = shown(status)
    assert "Nothing has been heard for 5 min" in said
    assert "Ran when it was last heard" in said and "Interrupted trials" in said
    assert toy.seen(later=SILENT_SECONDS - 5).life == "runs"


def test_an_orderly_end_is_no_death(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.half_way()
    toy.heartbeat.start()
    toy.heartbeat.stop()
    status = toy.seen(later=1000)
    assert (status.life, status.running) == ("stopped", [])
    assert "It was stopped" in shown(status) and "continues it" in shown(status)


def test_a_finished_sweep_shows_its_cost_and_the_head_of_its_leaderboard(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    for number, score in enumerate((0.1, 0.9, 0.3, 0.9, 0.2, 0.4)):
        toy.complete(number, score)
    toy.heartbeat.beat()
    toy.heartbeat.start()
    toy.heartbeat.stop()
    status = toy.seen(later=10_000)
    assert status.life == "finished" and status.later == 0
    assert status.to_do.known_seconds == 0
    console = Console(width=160, record=True, file=io.StringIO())
    print_status(status, console)
    table = console.export_text().split("Best of 6 so far")[1]
    order = [line.split()[1] for line in table.splitlines() if line.startswith("│")]
    assert order == ["1", "3", "5", "2", "4"]
    assert "To do" not in shown(status)


def test_stages_of_a_trial_that_was_given_up_are_paid_for_and_not_to_do(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.half_way()
    before = toy.seen()
    toy.search.failed(2, "the loss is nan")
    toy.told.pop(0)
    toy.heartbeat.beat()
    status = toy.seen()
    assert status.cost == before.cost
    assert before.to_do.known_seconds - status.to_do.known_seconds == pytest.approx(8 + 6)
    assert status.counts["failed"] == 1


def test_gpu_utilisation_is_shown_where_it_was_measured_and_not_claimed_elsewhere(
    tmp_path: Path,
) -> None:
    toy = Toy(tmp_path, {"execution__align__gpus_per_worker": 1})
    toy.begin(0, gpu_utilisation=0.87)
    toy.heartbeat.beat()
    assert toy.seen().gpu_utilisation == 0.87
    assert "87%" in shown(toy.seen())
    toy.store.add_progress(toy.stages(0).weights.identity, {"epoch": 2, "device_seconds": 9.0})
    assert "not known" in shown(toy.seen())
    cpu = Toy(tmp_path / "cpu")
    cpu.begin(0)
    cpu.heartbeat.beat()
    assert cpu.seen().gpu_utilisation is None
    assert "no GPU" in shown(cpu.seen())


def test_a_suggested_trial_is_planned_when_it_is_known(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    for number in range(5):
        toy.complete(number, 0.1)
    toy.heartbeat.beat()
    assert toy.seen().to_do.to_suggest == 1
    toy.search.ask()
    toy.heartbeat.beat()
    plan = json.loads(toy.sweep.folder.read("plan.json"))
    assert plan["known"] == 6 and toy.seen().to_do.to_suggest == 0
    assert any(5 in planned["trials"] for planned in plan["stages"].values())


def test_the_heartbeat_writes_on_a_change_and_as_a_sign_of_life_and_outlives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Toy(tmp_path)
    written: list[str] = []
    real: Callable[..., None] = sweeps.watching.heartbeat.write_json
    full = False

    def write(folder: Folder, name: str, data: Any) -> None:
        if full:
            raise OSError("no space left")
        if name != "usage.json":  # which comes with stages.json
            written.append(name)
        real(folder, name, data)

    monkeypatch.setattr(sweeps.watching.heartbeat, "write_json", write)
    toy.heartbeat.beat()
    toy.heartbeat.beat()
    assert written == ["plan.json", "stages.json"]
    toy.tell(toy.stages(0).weights, 0, state="queued", why="1 before it")
    full = True
    toy.heartbeat.beat()
    full = False
    toy.heartbeat.beat()
    assert written == ["plan.json", "stages.json", "stages.json"]
    monkeypatch.setattr(sweeps.watching.heartbeat, "BEAT_SECONDS", 0.0)
    toy.heartbeat.beat()
    assert written[3:] == ["stages.json"]


def test_a_sweep_that_never_started_is_an_error_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_toy_sweep(tmp_path)
    assert main([str(sweep), "--status"]) == 2
    assert "no sweep has been started there" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit) as refused:
        main([str(sweep), "--status", "--dry-run"])
    assert refused.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_status_writes_nothing_and_needs_neither_ray_mlflow_nor_torch(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.half_way()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code = (
        "import sys; from sweeps.mixing import main\n"
        f"assert main([{str(toy.sweep.file)!r}, '--status']) == 0\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'decord'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]" and "It runs" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.slow
def test_a_real_sweep_is_seen_while_it_runs_and_after_it_has_ended(tmp_path: Path) -> None:
    sweep = write_world_sweep(
        tmp_path, trial__mae__epochs=0, trial__align__epochs=30, search__trials=2
    )
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(sweep), cwd=tmp_path, env=environment(), stdout=log, stderr=log
        )
    store = StageStore(tmp_path / "runs" / "stages")
    folder = Folder(str(tmp_path / "runs" / "toy"))
    seen = []
    while process.poll() is None:
        if (tmp_path / "runs" / "toy" / "stages.json").exists():
            seen.append(read_status(folder, store))
        time.sleep(0.5)
    assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    at_work = [each for status in seen for each in status.running if each.kind == "align"]
    assert any(each.hosts == [socket.gethostname()] for each in at_work)
    assert any(0 < each.epoch < 30 and each.epochs == 30 for each in at_work)
    assert all(status.life == "runs" for status in seen if status.running)
    done = subprocess.run(
        command(sweep, "--status"), env=environment(), capture_output=True, text=True, check=True
    )
    assert "It is finished" in done.stdout and "2 of 2 complete" in done.stdout
    summary = json.loads(folder.read("summary.json"))
    paid = summary["cost"]["device_seconds"]
    assert read_status(folder, store).cost.device_seconds >= paid > 0  # this counts the report too
