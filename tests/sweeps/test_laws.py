"""Laws and merges in a whole search, its trials scored by a function of their shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces.space import load_space
from sweeps.mixture_limits import limited
from sweeps.records import TrialRecord
from sweeps.reporting.law_plots import plot_laws
from sweeps.reporting.law_report import law_lines, merge_lines
from sweeps.reporting.law_summary import law_summary, merge_summary
from sweeps.searching.given import given_trials
from sweeps.searching.search import Search
from sweeps.sweep import Sweep
from tests.toy import toy_data, toy_dataset, write_toy_sweep
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

SHARES = "align.mixture.shares"
LAW = {"weights": None, "kl_to_natural": 0.0, "last_trials": 0}
Score = Callable[[TrialConfig], dict[str, float] | None]  # None: the trial fails


def mix(sources: list[str], step: float = 0.05) -> dict[str, Any]:
    return {"parameters": {SHARES: {"type": "simplex", "over": sources, "step": step}}}


TWO = mix(["synthetic", "scenes"])


def share(config: TrialConfig, source: str = "synthetic") -> float:
    return float(config.align.mixture.shares.get(source, 0))


def best_at(top: float, noise: float = 0.003) -> Score:
    """A score that is best at a share of synthetic clips; its noise depends on mix and seed."""

    def score(config: TrialConfig) -> dict[str, float]:
        at = share(config)
        drawn = np.random.default_rng([config.seed, round(1000 * at)]).normal(0, noise)
        return {"low": 0.6 - 0.3 * (at - top) ** 2 + float(drawn)}

    return score


def searched(
    folder: Path,
    score: Score,
    space: dict[str, Any] = TWO,
    data: dict[str, Dataset] | None = None,
    **overrides: Any,
) -> Search:
    """The search of a sweep with laws, run to its end."""
    settings = {"search__trials": 12, "search__law": LAW, **overrides}
    search = begun(folder, space, data, **settings)
    run_to_end(search, score)
    return search


def begun(
    folder: Path, space: dict[str, Any], data: dict[str, Dataset] | None, **settings: Any
) -> Search:
    sweep = Sweep(write_toy_sweep(folder, space=space, **settings), {})
    data = data or toy_data()
    assert sweep.space_file is not None
    loaded = limited(load_space(sweep.space_file), sweep.settings.trial, data, "space.yaml")
    sizes = {name: len(dataset.split("train")) for name, dataset in data.items()}
    given = given_trials(sweep, loaded, sizes)
    search = Search(sweep, loaded, given, data)
    search.proposals.check(given, search.trials)
    return search


def run_to_end(search: Search, score: Score) -> None:
    while (assignment := search.ask()) is not None:
        record = search.records[assignment.number]
        scores = score(search.config(record))
        if scores is None:
            search.failed(record.number, "the loss is nan")
        else:
            search.complete(record.number, scores, {})


def law_of(search: Search) -> dict[str, Any]:
    law = law_summary(search.proposals, search.records)
    assert law is not None
    return law


def chosen_by_law(search: Search) -> list[TrialRecord]:
    return [record for record in search.records if record.origin == "law"]


def test_the_last_trials_vary_the_mix_alone_and_find_the_best(tmp_path: Path) -> None:
    space = {
        "parameters": {
            "align.optimizer.lr_peak": {"type": "choice", "values": [1e-3, 3e-3]},
            **TWO["parameters"],
        }
    }

    def score(config: TrialConfig) -> dict[str, float]:
        slow = 0.2 * (config.align.optimizer.lr_peak == 1e-3)
        return {"low": best_at(0.3)(config)["low"] - slow}

    search = searched(
        tmp_path, score, space, search__trials=18, search__law={**LAW, "last_trials": 6}
    )
    last = search.records[-6:]
    assert chosen_by_law(search) == last
    assert {record.values["align.optimizer.lr_peak"] for record in last} == {3e-3}
    proposed = law_of(search)["proposed"]
    assert proposed["shares"]["synthetic"] == pytest.approx(0.3, abs=0.1)
    # The truth is 0.6; of one sweep a 90 % interval may miss it, but not by one trial's noise.
    assert proposed["interval"][0] - 0.003 < 0.6 < proposed["interval"][1] < 0.62


def test_the_report_says_by_how_much_the_interval_is_widened_and_why(tmp_path: Path) -> None:
    search = searched(tmp_path, best_at(0.3, noise=0.01))
    law = law_of(search)
    proposed = law["proposed"]
    proposed |= {"interval": [0.58, 0.601], "interval_of_best_law": [0.585, 0.598]}
    said = f"the {law['best_law']} law alone would give 1.3: it is widened by 0.8, as which law"
    assert said in "\n".join(law_lines({"law": law}))
    proposed["interval_of_best_law"] = [0.57, 0.61]
    assert "alone would give 4.0: it is not widened" in "\n".join(law_lines({"law": law}))


def test_the_report_says_how_often_such_intervals_hold_the_truth(tmp_path: Path) -> None:
    law = law_of(searched(tmp_path, best_at(0.3)))
    text = "\n".join(law_lines({"law": law}))
    assert "83.5 to 98.0 % of the 90 % intervals held the true score of the proposed mix" in text
    assert "81.5 to 97.5 % that of the best mix there is" in text


def test_the_interval_of_the_best_law_is_that_of_its_draws_alone(tmp_path: Path) -> None:
    search = searched(tmp_path, best_at(0.3, noise=0.01))
    laws = search.proposals.laws
    assert laws is not None
    fitted = laws.fit(search.records)
    assert not isinstance(fitted, str)
    decision = fitted.decision
    alone = fitted.comparison.alone(law_of(search)["best_law"])
    drawn = alone.draws(decision.candidates[[decision.proposed]], seed=laws.seed)
    low, high = np.quantile(1 - drawn, [0.05, 0.95])
    found = law_of(search)["proposed"]["interval_of_best_law"]
    assert found == pytest.approx([low, high], abs=1e-5)


def test_only_trials_that_differ_in_nothing_but_mix_and_seed_enter_a_law(tmp_path: Path) -> None:
    points = [
        {"name": "other epochs", "set": {"align.epochs": 3, SHARES: {"scenes": 1}}},
        {"name": "an average", "set": {"average.method": "interpolate"}},
        {"name": "the best, without stage 1", "set": {"mae.epochs": 0}},
        {"name": "another seed", "set": {"seed": 7}},
        {"name": "the same as equal", "set": {"average.coefficient": 0.25}},
        {"name": "its sources are others", "set": {SHARES: {"hand": 1}}},
    ]
    data = {**toy_data(), "hand": toy_dataset("hand", 8)}

    def score(config: TrialConfig) -> dict[str, float]:
        bonus = 0.2 * (config.mae is not None and config.mae.epochs == 0 < config.align.epochs)
        return {"low": best_at(0.5)(config)["low"] + bonus}

    search = searched(tmp_path, score, data=data, search__points=points)
    law = law_of(search)
    numbers = {trial["number"] for trial in law["trials"]}
    names = {record.name for record in search.records if record.number in numbers}
    assert "another seed" in names and "baseline: equal" in names
    assert names.isdisjoint({p["name"] for p in points} - {"another seed"})
    assert "baseline: random weights" not in names
    # The incumbent's own settings have but one mix: the next best group has the law.
    assert max(search.records, key=lambda r: r.score or 0).name == "the best, without stage 1"
    assert [trial["seed"] for trial in law["trials"]].count(7) == 1


def test_failed_trials_stay_out_of_the_law(tmp_path: Path) -> None:
    search = searched(tmp_path, lambda c: None if share(c) > 0.9 else best_at(0.4)(c))
    failed = {record.number for record in search.records if record.state == "failed"}
    trials = law_of(search)["trials"]
    assert failed and failed.isdisjoint({trial["number"] for trial in trials})
    assert len(trials) + len(failed) == len(search.records) - 1  # random weights are no mixture


def test_a_used_up_space_is_spent_on_repeated_seeds(tmp_path: Path) -> None:
    search = searched(
        tmp_path,
        best_at(0.4, noise=0.05),
        mix(["synthetic", "scenes"], step=0.25),
        search__trials=14,
        search__law={**LAW, "last_trials": 7},
    )
    repeated = [record for record in chosen_by_law(search) if "seed" in record.values]
    assert len(repeated) >= 5
    ran = [(record.values[SHARES]["synthetic"], record.values["seed"]) for record in repeated]
    assert len(set(ran)) == len(ran) and min(seed for _, seed in ran) == 1
    noise = law_of(search)["noise"]
    assert noise["from_repeats"] and noise["repeats"] == len(repeated)
    assert 0.01 < noise["mean"] < 0.15


def test_while_mixes_are_lacking_the_widest_gaps_are_filled(tmp_path: Path) -> None:
    search = searched(
        tmp_path,
        best_at(0.5),
        search__baselines=False,
        search__points=[{"name": "one", "set": {SHARES: {"synthetic": 1}}}],
        search__trials=5,
        search__law={**LAW, "last_trials": 4},
    )
    at = [share(search.config(record)) for record in chosen_by_law(search)]
    assert at[:3] == [0.0, 0.5, 0.25]
    assert law_of(search)["reason"] is None


def test_constant_scores_have_no_law_and_say_so(tmp_path: Path) -> None:
    search = searched(tmp_path, lambda config: {"low": 0.5}, search__law={**LAW, "last_trials": 3})
    assert law_of(search)["reason"] == "all mixes score the same, so that nothing sets them apart"
    assert len({json.dumps(r.values, sort_keys=True) for r in chosen_by_law(search)}) == 3


def test_a_law_that_cannot_come_about_is_refused_with_how_many_trials_more(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"need 5 different mixes .* can have 4 .* by 1, or"):
        begun(
            tmp_path,
            mix(["synthetic", "scenes", "hand"]),
            {**toy_data(), "hand": toy_dataset("hand", 8)},
            search__law=LAW,
            search__trials=5,
        )


def test_a_law_that_failures_left_without_mixes_says_how_many_more(tmp_path: Path) -> None:
    search = searched(
        tmp_path, lambda c: best_at(0.5)(c) if share(c) in (0, 1) else None, search__trials=6
    )
    law = law_of(search)
    assert "at most 2 were completed, 2 more are needed" in law["reason"]
    said = law_lines({"law": law})
    assert f"There is no law: {law['reason']}." in said
    assert plot_laws({"law": law}, tmp_path) == []


def test_when_all_trials_failed_there_is_no_law_and_no_error(tmp_path: Path) -> None:
    search = searched(tmp_path, lambda config: None, search__law={**LAW, "last_trials": 4})
    assert "at most 0 were completed" in law_of(search)["reason"]
    assert len(search.records) == 12 and not chosen_by_law(search)


@pytest.mark.parametrize("weights", [{"low": 1.0}, {"high": 3.0, "low": 0.0}])
def test_weights_say_which_dataset_the_proposal_is_for(
    tmp_path: Path, weights: dict[str, float]
) -> None:
    data = {**toy_data(), "high": toy_dataset("high", 8, heldout=4, humans="real")}

    def score(config: TrialConfig) -> dict[str, float]:
        return {"low": best_at(0.9)(config)["low"], "high": best_at(0.1)(config)["low"]}

    search = searched(
        tmp_path,
        score,
        data=data,
        trial__downstream=["low", "high"],
        search__law={**LAW, "weights": weights},
    )
    law = law_of(search)
    expected = 0.9 if weights["low"] else 0.1
    assert law["proposed"]["shares"]["synthetic"] == pytest.approx(expected, abs=0.1)
    assert sum(law["weights"].values()) == pytest.approx(1)


def test_a_price_on_distance_draws_the_proposal_to_the_natural_mix(tmp_path: Path) -> None:
    search = searched(tmp_path, best_at(0.0), search__law={**LAW, "kl_to_natural": 10.0})
    law = law_of(search)
    assert law["natural"]["synthetic"] == pytest.approx(2 / 3, abs=1e-5)
    assert law["proposed"]["shares"]["synthetic"] == pytest.approx(2 / 3, abs=0.06)


def test_mixes_past_the_cap_of_repetition_are_never_proposed(tmp_path: Path) -> None:
    search = searched(
        tmp_path,
        best_at(0.0),  # all scenes, of which there are 8: 16 clips are drawn
        trial__align__mixture__max_repetition=1.5,
        trial__mae__mixture__max_repetition=None,
        search__baselines=False,
        search__points=[{"name": "equal", "set": {SHARES: {"synthetic": 0.5, "scenes": 0.5}}}],
        search__law={**LAW, "last_trials": 4},
    )
    proposed = law_of(search)["proposed"]["shares"]
    assert proposed["scenes"] == pytest.approx(0.75)
    assert max(share(search.config(r), "scenes") for r in search.records) <= 0.75


def test_the_answer_and_the_next_trials_are_functions_of_the_records(tmp_path: Path) -> None:
    law = {**LAW, "last_trials": 4}
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    whole = searched(tmp_path / "whole", best_at(0.3), search__law=law)
    settings: dict[str, Any] = {"search__trials": 12, "search__law": law}
    for _ in range(12):  # a search that is started again for every trial
        search = begun(tmp_path / "parts", TWO, None, **settings)
        assignment = search.ask()
        assert assignment is not None
        config = search.config(search.records[assignment.number])
        search.complete(assignment.number, best_at(0.3)(config) or {}, {})
    assert [r.values for r in search.records] == [r.values for r in whole.records]
    again = begun(tmp_path / "parts", TWO, None, **settings)
    assert json.dumps(law_of(again)) == json.dumps(law_of(whole))


def test_a_sweep_without_one_simplex_cannot_have_laws(tmp_path: Path) -> None:
    epochs = {"parameters": {"align.epochs": {"type": "choice", "values": [1, 2]}}}
    with pytest.raises(ValueError, match=r"search.law: the space has 0 simplexes"):
        begun(tmp_path, epochs, None, search__law=LAW)


@pytest.mark.parametrize(
    ("law", "said"),
    [
        ({**LAW, "last_trials": 7}, "law.last_trials 7 are more than all 6 trials"),
        ({**LAW, "weights": {"lo": 1.0}}, "'lo' is no downstream dataset; did you mean 'low'"),
        ({**LAW, "weights": {"low": 0.0}}, "no weight is above 0"),
    ],
)
def test_settings_of_a_law_that_mean_nothing_are_refused(
    tmp_path: Path, law: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Sweep(write_toy_sweep(tmp_path, search__law=law), {})


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_report_shows_laws_of_any_number_of_sources(tmp_path: Path, count: int) -> None:
    sources = ["synthetic", "scenes", "hand", "cave"][:count]
    extra = {name: toy_dataset(name, 8) for name in ("hand", "cave")}
    search = searched(
        tmp_path,
        best_at(0.4),
        mix(sources, step=0.1),
        {**toy_data(), **extra},
        search__trials=14,
    )
    law = law_of(search)
    summary = {"sweep": "toy", "law": law, "merge_proxy": None}
    plots = [plot.name for plot in plot_laws(summary, tmp_path)]
    assert (
        plots
        == {
            2: ["law_synthetic.png"],
            3: ["law_triangle.png", *(f"law_{source}.png" for source in sources)],
            4: [f"law_{source}.png" for source in sources],
        }[count]
    )
    assert law["proposed"]["shares"]["synthetic"] == pytest.approx(0.4, abs=0.15)
    text = "\n".join(law_lines(summary))
    assert "The laws propose **" in text and "foretells best here" in text
    along = law["slices"]["synthetic"] if count > 2 else law["curve"]
    for point in along:
        score, low, high = point["mean"]
        assert low <= score + 0.01 and score - 0.01 <= high
        assert sum(point["shares"].values()) == pytest.approx(1)


# Merges


def merged(search: Search, losses: Callable[[np.ndarray], np.ndarray]) -> None:
    """Publish experts, and the merges' probes as `losses` has them."""
    merges = search.proposals.merges
    assert merges is not None
    for expert in merges.experts:
        publish(search, expert)
    for stage, loss in zip(merges.unscored(), losses(merges.mixes), strict=True):
        publish(search, stage, accuracy=1 - float(loss))


def publish(search: Search, stage: Stage, **metrics: float) -> None:
    store = StageStore(Path(search.folder.url).parent / "stages")
    store.publish(stage, write={}, metrics=metrics, cost={"device_seconds": 1.0, "clips": 1.0})


def true_losses(mixes: np.ndarray) -> np.ndarray:
    return 0.3 + 0.3 * (mixes[:, 0] - 0.3) ** 2


def with_merges(
    folder: Path, losses: Callable[[np.ndarray], np.ndarray], **overrides: Any
) -> Search:
    settings = {
        "search__trials": 12,
        "search__law": LAW,
        "search__merge_proxy": {"points": 11},
        **overrides,
    }
    search = begun(folder, TWO, None, **settings)
    search.given_only = True
    run_to_end(search, best_at(0.3, noise=0.001))
    assert {record.origin for record in search.records} == {"baseline"}
    merged(search, losses)
    search.given_only = False
    assert search.unfinished() == 7  # the search itself is still to come
    run_to_end(search, best_at(0.3, noise=0.001))
    return search


def test_the_best_merge_is_trained_first_and_once(tmp_path: Path) -> None:
    search = with_merges(tmp_path, true_losses)
    origins = [record.origin for record in search.records]
    assert origins == ["baseline"] * 5 + ["proxy"] + ["suggested"] * 6
    assert share(search.config(search.records[5])) == 0.3


@pytest.mark.parametrize(("points", "units"), [(10, 8), (14, 10)])
def test_the_best_merge_is_a_mix_that_can_be_trained_on(
    tmp_path: Path, points: int, units: int
) -> None:
    asked = {"search__merge_proxy": {"points": points}}
    search = with_merges(tmp_path, true_losses, **asked)  # whose best lies inside the lattice
    (proxy,) = [record for record in search.records if record.origin == "proxy"]
    assert share(search.config(proxy)) == pytest.approx(round(0.3 * units) / units)
    assert begun(tmp_path, TWO, None, search__trials=12, **asked).unfinished() == 0


def test_merges_that_rank_as_training_does_are_told_so_and_carry_the_law(tmp_path: Path) -> None:
    search = with_merges(tmp_path, lambda mixes: 0.1 + 0.5 * true_losses(mixes))
    merges = merge_summary(search.proposals, search.records)
    assert merges is not None and len(merges["curve"]) == 11
    # Of mixes of one source alone merge and training are the same weights: they do not count.
    assert merges["correlation"]["mixes"] == len(law_of(search)["trials"]) - 2
    assert merges["correlation"]["spearman"] > 0.9 and merges["correlation"]["interval"][0] > 0
    text = "\n".join(merge_lines({"merge_proxy": merges}))
    assert "0.3 synthetic + 0.7 scenes is best" in text and "better than by chance" in text
    names = [law["name"] for law in law_of(search)["laws"]]
    assert names[-1] == "merged weights"


def test_merges_that_rank_the_wrong_way_round_are_not_trusted(tmp_path: Path) -> None:
    search = with_merges(tmp_path, lambda mixes: 1 - true_losses(mixes))
    merges = merge_summary(search.proposals, search.records)
    assert merges is not None and merges["correlation"]["spearman"] < -0.9
    assert "do not use them here" in "\n".join(merge_lines({"merge_proxy": merges}))
    (law,) = [law for law in law_of(search)["laws"] if law["name"] == "merged weights"]
    assert law["weight"]["low"] < 0.1


def test_merges_that_are_not_scored_are_said_to_be_missing(tmp_path: Path) -> None:
    search = searched(tmp_path, best_at(0.3), search__merge_proxy={"points": 11}, search__law=None)
    merges = merge_summary(search.proposals, search.records)
    assert merges is not None and merges["curve"] is None
    assert "were not scored" in "\n".join(merge_lines({"merge_proxy": merges}))
    assert {record.origin for record in search.records} == {"baseline", "suggested"}


def test_merges_without_the_baselines_that_are_their_experts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expert of 'synthetic' .* set baselines: true"):
        begun(
            tmp_path,
            TWO,
            None,
            search__baselines=False,
            search__merge_proxy={"points": 11},
        )


def test_too_few_points_for_a_merge_that_is_none_of_its_experts_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="search.merge_proxy: points 2 are too few .* give 3"):
        begun(tmp_path, TWO, None, search__merge_proxy={"points": 2})


def test_merges_of_three_sources_cover_the_lattice_that_the_points_allow(tmp_path: Path) -> None:
    data = {**toy_data(), "hand": toy_dataset("hand", 8)}
    space = mix(["synthetic", "scenes", "hand"])
    search = begun(tmp_path, space, data, search__merge_proxy={"points": 20})
    merges = search.proposals.merges
    assert merges is not None and len(merges.mixes) == 15 and len(merges.experts) == 3
    passes = {stage.inputs["train"].identity for stage in merges.stages()}
    assert len(passes) == 1  # all merges in one pass of a split


def test_experts_are_what_the_baselines_train(tmp_path: Path) -> None:
    search = begun(tmp_path, TWO, None, search__merge_proxy={"points": 3})
    known = {name: config for name, config in search.known().values()}
    merges = search.proposals.merges
    assert merges is not None
    for source, expert in zip(("synthetic", "scenes"), merges.experts, strict=True):
        baseline = trial_stages(known[f"baseline: {source} only"], toy_data())
        assert baseline.weights.identity == expert.identity
