"""The real command: merges scored between baselines and search, last trials chosen by laws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sweeps.commands import run_to_end, write_world_sweep

pytestmark = pytest.mark.slow
SHARES = {"type": "simplex", "over": ["synthetic", "scenes"], "step": 0.05}


def test_a_sweep_scores_merges_trains_the_best_and_ends_with_trials_of_the_laws(
    tmp_path: Path,
) -> None:
    sweep = write_world_sweep(
        tmp_path,
        space={"parameters": {"align.mixture.shares": SHARES}},
        trial__mae__epochs=0,
        trial__align__epochs=4,
        search__trials=9,
        search__law={"weights": None, "kl_to_natural": 0.0, "last_trials": 2},
        search__merge_proxy={"points": 6},
    )
    printed = run_to_end(sweep)
    assert "6 merges of the 2 source-only baselines are scored before the search" in printed
    folder = tmp_path / "runs" / "toy"
    summary = json.loads((folder / "summary.json").read_text())
    origins = [t["origin"] for t in sorted(summary["trials"], key=lambda t: t["number"])]
    # A best merge that is one source alone has been trained already.
    assert origins[:4] == ["baseline"] * 4 and origins[-2:] == ["law"] * 2
    assert set(origins[4:-2]) <= {"proxy", "suggested"}

    merges, law = summary["merge_proxy"], summary["law"]
    assert [point["shares"]["synthetic"] for point in merges["curve"]] == [
        pytest.approx(n / 5) for n in range(6)
    ]
    trained = {t["name"]: t["scores"] for t in summary["trials"]}
    for end, name in ((0, "scenes"), (-1, "synthetic")):
        alone = trained[f"baseline: {name} only"]
        assert merges["curve"][end]["scores"] == pytest.approx(alone, abs=1e-6)  # 6 places
    assert law["reason"] is None and law["mixes"] >= 4
    assert [each["name"] for each in law["laws"]][-1] == "merged weights"
    low, high = law["proposed"]["interval"]
    assert 0 < low < high < 1
    assert (folder / "law_synthetic.png").read_bytes().startswith(b"\x89PNG")
    report = (folder / "report.md").read_text()
    assert "The laws propose **" in report and "## Merged weights as a proxy" in report

    before = (folder / "summary.json").read_bytes()
    assert "nothing is trained" in run_to_end(sweep)
    assert (folder / "summary.json").read_bytes() == before
    kept = [path.name for path in (tmp_path / "runs" / "mlartifacts").rglob("law_synthetic.png")]
    assert kept == ["law_synthetic.png"]
