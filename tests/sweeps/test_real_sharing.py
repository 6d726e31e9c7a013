"""The real command: lengths that share a trunk, and more epochs that go on from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.sweeps.commands import run_to_end, write_world_sweep
from trainables.stage_store import Record, StageStore

pytestmark = pytest.mark.slow

# 2 steps of 4 clips an epoch: the decays of 2, 4 and 8 epochs begin at steps 3, 6 and 12.
SCHEDULE = {
    "trial__align__optimizer__lr_schedule": "constant_then_decay",
    "trial__align__optimizer__warmup_fraction": None,
    "trial__align__optimizer__warmup_clips": 4,
    "trial__align__optimizer__decay_fraction": 0.25,
}


def space(*epochs: int) -> dict[str, object]:
    return {"parameters": {"align.epochs": {"type": "choice", "values": list(epochs)}}}


def records_of(store: StageStore) -> list[Record]:
    found = store.records()
    return [record for record in found if record is not None]


def clips(store: StageStore, kind: str) -> list[int]:
    """Trained by each stage of this kind."""
    return sorted(int(r.cost["clips"]) for r in records_of(store) if r.stage["kind"] == kind)


def test_lengths_share_a_trunk_and_an_extended_sweep_goes_on_from_it(tmp_path: Path) -> None:
    sweep = write_world_sweep(
        tmp_path,
        space=space(4, 2),  # the longer one first: it makes the shorter one's part in passing
        trial__mae__epochs=0,
        trial__align__branch_epochs=[2, 4],
        search__sampler="grid",
        search__baselines=False,
        search__trials=2,
        **SCHEDULE,
    )
    store = StageStore(tmp_path / "runs" / "stages")
    printed = run_to_end(sweep)
    assert "align trunk" in printed and "Trunks keep 2 training states" in printed
    assert clips(store, "align_trunk") == [4 * 3, 4 * 3]
    assert clips(store, "align") == [4 * 1, 4 * 2]
    assert "gave up 1 training states" in printed

    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space(4, 2, 8)))
    settings = yaml.safe_load(sweep.read_text())
    settings["search"]["trials"] = 3
    settings["trial"]["align"]["branch_epochs"] = [2, 4, 8]
    sweep.write_text(yaml.safe_dump(settings, sort_keys=False))
    run_to_end(sweep)
    assert clips(store, "align_trunk") == [4 * 3, 4 * 3, 4 * (12 - 6)]
    assert clips(store, "align") == [4 * 1, 4 * 2, 4 * 4]
    trunks = [record for record in records_of(store) if record.stage["kind"] == "align_trunk"]
    assert [r.stage["settings"]["step"] for r in trunks if not r.given_up] == [12]
