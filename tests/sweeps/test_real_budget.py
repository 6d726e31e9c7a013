"""The real command with a budget, the cost-aware sampler and limits of shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sweeps.commands import run_to_end, write_world_sweep

pytestmark = pytest.mark.slow

SPACE = {
    "parameters": {
        "mae.epochs": {"type": "choice", "values": [0, 2]},
        "probe.neighbours": {"type": "choice", "values": [1, 3]},
        "align.mixture.shares": {
            "type": "simplex",
            "over": ["synthetic", "scenes"],
            "step": 0.25,
            "groups": [{"humans": "virtual", "min": 0.25, "max": 0.75}],
        },
    }
}


def test_a_real_sweep_ends_with_its_budget_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    sweep = write_world_sweep(
        tmp_path,
        space=SPACE,
        trial__mae__epochs=2,
        trial__align__epochs=2,
        search__sampler="cost_aware",
        search__trials=12,
    )
    said = run_to_end(sweep, "--set", "search.budget={gpu_hours: 0.0003}")
    folder = tmp_path / "runs" / "toy"
    first = json.loads((folder / "summary.json").read_text())
    budget = first["budget"]
    assert budget["device_seconds"] == pytest.approx(1.08) and budget["spent"] > 0
    assert "Budget: 1 s of device time, 0 s spent" in said
    assert "baseline: synthetic only is left out: in the search space 'synthetic' has" in said
    assert 0 < len(first["trials"]) < 12
    run_to_end(sweep, "--set", "search.budget={gpu_hours: 100}")
    second = json.loads((folder / "summary.json").read_text())
    assert len(second["trials"]) == 12 and second["counts"]["to_do"] == 0
    before = {trial["number"]: trial["score"] for trial in first["trials"]}
    after = {trial["number"]: trial["score"] for trial in second["trials"]}
    assert before.items() <= after.items()
    for trial in second["trials"]:
        if trial["origin"] == "suggested":
            assert 0.25 <= trial["shares"]["synthetic"] <= 0.75
    again = run_to_end(sweep, "--set", "search.budget={gpu_hours: 100}")
    assert "nothing is trained" in again
