"""What a sweep file says of its search."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trainables.settings import Settings, nearest, parse
from trainables.training_settings import AsTuple, NonNegative, Positive


class PointSettings(Settings):
    """A trial that runs before the sampler is asked: the sweep's trial with some settings set."""

    name: str
    set: dict[str, Any]
    real_humans: bool = False  # it pre-trains on real people: left out unless the sweep allows it


class EarlyStopping(Settings):
    """ASHA on probes of the model while it aligns.

    Never stopped are baselines and points, and a trial whose training is all paid already.
    """

    # The trials at a rung are compared by the score's rule on the probes, or by non-dominated rank
    # over the downstream datasets, or over the objectives.
    by: Literal["score", "datasets", "objectives"]
    rungs: Annotated[  # parts of the alignment: 0.25 is when a quarter of its clips is trained
        tuple[Annotated[float, Field(gt=0, lt=1)], ...], AsTuple, Field(min_length=1)
    ]
    reduction_factor: Annotated[int, Field(ge=2)]  # 1 in so many goes on
    train_clips: Positive  # a probe is fitted on, of each downstream dataset
    selection_clips: Positive  # it is scored on

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs {list(self.rungs)} do not rise; write each once, in order")
        return self


class GroupSettings(Settings):
    """An objective: the mean top-1 over some of the downstream datasets."""

    name: str
    mean_of: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)]


class MlflowSweep(Settings):
    """A sweep that MLflow knows; `uri: null` is the server of this sweep."""

    experiment: str  # which has the name of its sweep
    uri: str | None


def _objective(value: Any) -> Any:
    """One error for an entry that is neither a name nor a group, instead of one for each."""
    if isinstance(value, dict):
        return parse(GroupSettings, value, "")
    if value not in NAMED:
        raise ValueError(
            f"no objective{nearest(str(value), [*NAMED])} Or a group: {{name: ..., mean_of: [...]}}"
        )
    return value


def _earlier(value: Any) -> Any:
    if isinstance(value, dict):
        return parse(MlflowSweep, value, "")
    if not isinstance(value, str):
        raise ValueError("give the name of a sweep, or {experiment: NAME, uri: null} for MLflow's")
    return value


NAMED = ("score", "gpu_hours")
Objective = Annotated[Literal["score", "gpu_hours"] | GroupSettings, BeforeValidator(_objective)]
Earlier = Annotated[str | MlflowSweep, BeforeValidator(_earlier)]


class LawSettings(Settings):
    """Laws of the loss over the mix, one a downstream dataset; which fits best is found out."""

    # Of the downstream datasets, in what the proposed mix is to make least; null: all alike.
    weights: dict[str, Annotated[float, Field(ge=0)]] | None
    # What a mix costs beside its loss: so much for each nat of KL(mix || proportional to size).
    kl_to_natural: Annotated[float, Field(ge=0)]
    # So many of `trials`, the last, have the best one's settings and a mix that the laws choose.
    last_trials: NonNegative


class MergeProxySettings(Settings):
    """Merged weights of the source-only baselines, scored before the sampler is asked."""

    points: Positive  # at most so many mixes, on a lattice


class BudgetSettings(Settings):
    """The search ends when its stages took so much device time; trials that run are finished."""

    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # of CPU workers where no GPU is


class SearchSettings(Settings):
    # A file of search_spaces/, relative to the sweep file; null: baselines and points alone.
    space: str | None
    sampler: Literal["cost_aware", "tpe", "gp", "random", "grid"]
    seed: Annotated[int, Field(ge=0)]
    # What the sampler is after: the score, device hours as if the trial shared no stage, the means
    # over groups of datasets. The recommendation goes by the score alone.
    objectives: Annotated[tuple[Objective, ...], AsTuple, Field(min_length=1)]
    trials: Positive | None  # in all, with baselines and points; null: these alone
    budget: BudgetSettings | None  # beside `trials`: whichever is reached first ends the search
    # Trials at a time; auto: as many as the cluster can feed, more or fewer as it grows or shrinks.
    concurrent: Positive | Literal["auto"]
    baselines: bool  # random weights, each source alone, 1:1, proportional to size
    points: Annotated[tuple[PointSettings, ...], AsTuple] = ()
    greedy_soup: bool  # once all trials are done, one more: the greedy soup of their weights
    early_stopping: EarlyStopping | None
    # Earlier sweeps whose trials the sampler begins with: names in the same storage, or MLflow's.
    warm_start: Annotated[tuple[Earlier, ...], AsTuple]
    law: LawSettings | None
    merge_proxy: MergeProxySettings | None

    @model_validator(mode="after")
    def _an_end(self) -> Self:
        if self.space is not None and self.trials is None:
            raise ValueError("a search of a space needs a number of trials; give 'trials'")
        names = [point.name for point in self.points]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two points are called {name!r}; rename one")
        objectives = [each if isinstance(each, str) else each.name for each in self.objectives]
        for name in objectives:
            if objectives.count(name) > 1:
                raise ValueError(f"two objectives are called {name!r}; keep or rename one")
        if self.sampler == "cost_aware" and len(objectives) > 1:
            raise ValueError(
                f"sampler 'cost_aware' improves one objective for its cost, {len(objectives)} are "
                "given; choose tpe, gp or random, or keep one objective"
            )
        if objectives == ["gpu_hours"]:
            raise ValueError(
                "objectives is gpu_hours alone, for which the best trial is to train nothing; add "
                "score, or a group of datasets"
            )
        if self.law is not None and self.law.last_trials > (self.trials or 0):
            raise ValueError(
                f"law.last_trials {self.law.last_trials} are more than all {self.trials or 0} "
                "trials; lower it, or raise trials"
            )
        if self.space is None and not self.points and not self.baselines:
            raise ValueError("there is nothing to run: give a space, baselines or points")
        return self
