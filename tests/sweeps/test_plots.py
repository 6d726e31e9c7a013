"""What the plots show, read from matplotlib's axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.reporting import plots
from sweeps.reporting.plots import plot_scores
from sweeps.searching.given import RANDOM_WEIGHTS


def trial(shares: dict[str, float], score: float, **changes: Any) -> dict[str, Any]:
    average = {"method": changes.pop("method", "none"), "coefficient": changes.pop("at", 0.5)}
    return {
        "name": "a mix",
        "state": "complete",
        "config": {"align": {"epochs": changes.pop("epochs", 2)}, "average": average},
        "shares": shares,
        "varied": {},
        "score": score,
        "scores": {"low": score},
        "intervals": {"low": [score - 0.125, score + 0.25]},
        **changes,
    }


def both(synthetic: float) -> dict[str, float]:
    return {"synthetic": synthetic, "scenes": 1 - synthetic}


def summary(*trials: dict[str, Any], curves: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"sweep": "toy", "downstream": ["low"], "trials": list(trials), "curves": curves or []}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """File name -> the axes that it shows."""
    shown: dict[str, Any] = {}
    finish = plots.finish

    def keep(figure: Any, axes: Any, told: Any, label: str, path: Path) -> Path:
        shown[path.name] = axes
        return finish(figure, axes, told, label, path)

    monkeypatch.setattr(plots, "finish", keep)
    return shown


def line(axes: Any, label: str) -> list[tuple[float, float]]:
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return [(float(x), float(y)) for x, y in found.get_xydata()]


def test_the_score_stands_over_the_share_with_its_interval_and_random_weights_below(
    drawn: dict[str, Any], tmp_path: Path
) -> None:
    trials = [
        trial(both(0.75), 0.5),
        trial(both(0.25), 0.375),
        trial({}, 0.25, name=RANDOM_WEIGHTS, epochs=0),
    ]
    (path,) = plot_scores(summary(*trials), tmp_path)
    assert path == tmp_path / "share_of_synthetic.png" and path.stat().st_size > 0
    axes = drawn["share_of_synthetic.png"]
    assert line(axes, "score") == [(0.25, 37.5), (0.75, 50.0)]
    assert {y for _, y in line(axes, "score, random weights")} == {25.0}
    (errors,) = axes.containers
    assert errors.get_label() == "low"
    spans = [[tuple(map(float, end)) for end in span] for span in errors[2][0].get_segments()]
    assert spans == [[(0.25, 25.0), (0.25, 62.5)], [(0.75, 37.5), (0.75, 75.0)]]


def test_of_more_than_two_sources_each_has_a_plot_and_a_source_left_out_a_share_of_0(
    drawn: dict[str, Any], tmp_path: Path
) -> None:
    trials = [trial({"a": 0.5, "b": 0.25, "c": 0.25}, 0.5), trial({"a": 1.0}, 0.25)]
    names = [path.name for path in plot_scores(summary(*trials), tmp_path)]
    assert names == ["share_of_a.png", "share_of_b.png", "share_of_c.png"]
    assert line(drawn["share_of_b.png"], "score") == [(0.0, 25.0), (0.25, 50.0)]


def test_only_interpolations_that_were_aligned_and_completed_stand_over_the_coefficient(
    drawn: dict[str, Any], tmp_path: Path
) -> None:
    averages = [
        trial({}, 0.5, method="interpolate", at=0.75),
        trial({}, 0.25, method="interpolate", at=0.5),
        trial({}, 0.1, method="interpolate", at=0.1, epochs=0),
        trial({}, 0.1, method="interpolate", at=0.2, state="failed"),
        trial({}, 0.1, method="uniform", at=0.3),
    ]
    (path,) = plot_scores(summary(*averages), tmp_path)
    assert path.name == "averaging_coefficient.png"
    assert line(drawn[path.name], "score") == [(0.5, 25.0), (0.75, 50.0)]
    assert plot_scores(summary(*averages[1:]), tmp_path) == []  # one coefficient shows nothing


def test_a_curve_has_a_line_for_each_dataset_and_a_single_point_is_none(
    drawn: dict[str, Any], tmp_path: Path
) -> None:
    points = [
        {"coefficient": 0.0, "scores": {"low": 0.25}, "mean": 0.25},
        {"coefficient": 1.0, "scores": {"low": 0.75}, "mean": 0.75},
    ]
    between = {"w0": "0123456789", "w1": "abcdefghij"}
    curves = [{"between": between, "points": points[:1]}, {"between": between, "points": points}]
    (path,) = plot_scores(summary(curves=curves), tmp_path)
    assert path.name == "averaging_curve_2.png"
    axes = drawn[path.name]
    assert line(axes, "low") == [(0.0, 25.0), (1.0, 75.0)]
    assert axes.get_xlabel() == "coefficient from 012345 to abcdef"


@pytest.mark.parametrize("widest", [0.5, 4.0])
def test_no_point_of_a_plot_is_cut_off_and_shares_are_shown_from_none_to_all(
    drawn: dict[str, Any], tmp_path: Path, widest: float
) -> None:
    viewed = [trial(both(0.5), 0.5), trial(both(0.25), 0.25)]
    for each, scale in zip(viewed, (0.25, widest), strict=True):
        each["config"]["contrastive"] = {"epochs": 2, "view_scale": scale}
    plot_scores(summary(*viewed), tmp_path)
    low, high = drawn["scale_of_generator_views.png"].get_xlim()
    assert low < 0.25 and high > widest
    low, high = drawn["share_of_synthetic.png"].get_xlim()
    assert (low, high) == pytest.approx((-0.05, 1.05))


def test_the_score_stands_over_the_scale_of_views_where_several_were_tried(
    drawn: dict[str, Any], tmp_path: Path
) -> None:
    trials = [trial(both(0.5), score, epochs=0) for score in (0.25, 0.5, 0.375)]
    for each, scale in zip(trials, (0.0, 0.5, 2.0), strict=True):
        each["config"]["contrastive"] = {"epochs": 2, "view_scale": scale}
    trials.append(trial(both(1.0), 0.125))  # of alignment alone
    plot_scores(summary(*trials), tmp_path)
    axes = drawn["scale_of_generator_views.png"]
    assert line(axes, "score") == [(0.0, 25.0), (0.5, 50.0), (2.0, 37.5)]
    drawn.clear()
    plot_scores(summary(*trials[2:]), tmp_path)
    assert "scale_of_generator_views.png" not in drawn


def test_scores_of_trials_that_are_alike_in_all_else_are_joined(
    drawn: dict[str, Any], tmp_path: Path
) -> None:
    def at(synthetic: float, epochs: int, score: float) -> dict[str, Any]:
        varied = {"align.mixture.shares": both(synthetic), "align.epochs": epochs}
        return trial(both(synthetic), score, varied=varied, epochs=epochs)

    short = [at(1.0, 1, 0.25), at(0.0, 1, 0.5), at(0.5, 1, 0.75)]
    long = [at(0.0, 2, 0.5), at(0.25, 2, 0.625), at(1.0, 2, 0.375)]
    two_points = [at(0.0, 4, 0.5), at(1.0, 4, 0.5)]
    plot_scores(summary(*short, *long, *two_points), tmp_path)
    axes = drawn["share_of_synthetic.png"]
    assert line(axes, "align.epochs 1") == [(0.0, 50.0), (0.5, 75.0), (1.0, 25.0)]
    assert line(axes, "align.epochs 2") == [(0.0, 50.0), (0.25, 62.5), (1.0, 37.5)]
    assert "align.epochs 4" not in {each.get_label() for each in axes.get_lines()}
    of_three = [
        trial(shares, 0.5, varied={"align.mixture.shares": shares, "align.epochs": epochs})
        for epochs in (1, 2)
        for shares in ({"a": 0.0, "b": 1.0, "c": 0.0}, {"a": 0.5, "c": 0.5}, {"a": 1.0})
    ]
    plot_scores(summary(*of_three), tmp_path)  # one share does not tell the mix
    labels = {each.get_label() for each in drawn["share_of_a.png"].get_lines()}
    assert "score" in labels and "align.epochs 1" not in labels
    plot_scores(summary(*short), tmp_path)  # nothing to tell apart
    labels = {each.get_label() for each in drawn["share_of_synthetic.png"].get_lines()}
    assert "align.epochs 1" not in labels
