"""Ray Tune over one function: a trial awaits its stages and reports. The study says what to try.

Trials hold no CPU and own no stage, so that any number of them may wait and any may be stopped.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.stages_handle import StagesHandle
from cluster.study import RungPoint, Study
from cluster.trial_process import trial_process

DRIVER_RESTARTS = 20  # of a trial whose waiting process died: with its node, as a rule
# No CPU, or waiting trials would keep stages from theirs. Tune wants something: a byte.
DRIVER = {"CPU": 0, "memory": 1}


def run_trials(
    study: Study,
    stages: StagesHandle,
    *,
    concurrent: Callable[[], int],
) -> None:
    """Run trials until the study has no more.

    Where the storage refuses for longer than its patience no more trials begin, and those that
    wait for it stay unfinished.

    `concurrent` says how many may run at a time, and is asked before each: it may change.
    Where `stages` makes probes of what aligns, the study is asked at each rung whether the trial
    may go on.

    Raises OSError where the storage refused, and what the study raised.
    """
    os.environ |= {
        "RAY_AIR_NEW_OUTPUT": "0",  # the old output is silent at verbose=0, the new one is not
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is for the entry point, not for Tune
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study's records are the state
        # Processes of trials that start at a time; Tune's own is one.
        "TUNE_MAX_PENDING_TRIALS_PG": str(max(1, (os.cpu_count() or 1) // 2)),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    }
    searcher = _StudySearcher(study, stages, concurrent)
    trainable = tune.with_parameters(trial_process, stages=stages)
    # Trials report numbers alone, so that Tune's folder need not be shared.
    with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {**DRIVER, **stages.driver_resources}),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=searcher,
                scheduler=_AsksTheStudy(searcher),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=DRIVER_RESTARTS),
                callbacks=[_TellErrors(searcher)],
                verbose=0,
            ),
        )
        tuner.fit()
    if searcher.error is not None:
        raise searcher.error


class _StudySearcher(Searcher):
    """Between Tune, which knows trials by its own ids, and the study, which knows their numbers.

    Tune logs and drops what a searcher raises; it is kept in `error`, and no more trials start.
    """

    def __init__(self, study: Study, stages: StagesHandle, concurrent: Callable[[], int]) -> None:
        super().__init__()
        self._study = study
        self._stages = stages
        self._concurrent = concurrent  # Tune's own limit is fixed once it has begun
        self._numbers: dict[str, int] = {}  # Tune's id -> the trial's number
        self._again: list[dict[str, Any]] = []  # to hand out once more
        self.running: set[str] = set()  # Tune's ids
        self.finished = False  # no more trials begin
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restore that never comes; the study may hold locks

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.running) >= self._concurrent():
            return None  # Tune asks again
        given = self._next()
        if given is None:  # Tune never asks after FINISHED, and what runs may have to begin again
            return None if self.running else Searcher.FINISHED
        self._numbers[trial_id] = given["number"]
        self.running.add(trial_id)
        return given

    def _next(self) -> dict[str, Any] | None:
        if self._again and self.error is None:
            return self._again.pop()
        ended = self.finished or self.error is not None
        assignment = None if ended else self._study.ask()
        if assignment is None:
            self.finished = True
            return None
        # As text, for Tune looks into nested dictionaries for things to sample.
        return {"number": assignment.number, "assignment": json.dumps(asdict(assignment))}

    def may_go_on(self, trial_id: str, point: RungPoint) -> bool:
        return self._tell(trial_id, "reached", point) is not False

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.running.discard(trial_id)
        self._stages.drop(self._numbers[trial_id])
        if error or result is None:
            return  # told with its reason by _TellErrors
        if "accuracies" in result:
            accuracies, stages = json.loads(result["accuracies"]), json.loads(result["stages"])
            self._tell(trial_id, "complete", accuracies, stages)
        elif "failure" in result:
            self._tell(trial_id, "failed", result["failure"])
        elif "refusal" in result:  # no fault of the trial: it is handed out again by the next run
            self.error = self.error or OSError(result["refusal"])

    def tell_error(self, trial_id: str, reason: str) -> None:
        self._tell(trial_id, "failed", reason)

    def hand_out_again(self, given: dict[str, Any]) -> None:
        self._again.append(given)

    def _tell(self, trial_id: str, what: str, *details: Any) -> Any:
        try:
            return getattr(self._study, what)(self._numbers[trial_id], *details)
        except Exception as error:
            self.error = self.error or error

    # Tune saves its own state whatever it is told; ours is in the study.

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is continued from its records")


class _AsksTheStudy(FIFOScheduler):
    """Stops the trials of which the study says so. Tune's own schedulers compare one number.

    It also has Tune keep the processes of trials that have ended for those that begin. By itself it
    keeps one: where several end at once it kills the others, and starts as many for the next ones.
    """

    def __init__(self, searcher: _StudySearcher) -> None:
        super().__init__()
        self._searcher = searcher
        self._kept = 0

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._keep(max(self._kept, len(self._searcher.running)), tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if self._searcher.finished:
            self._keep(0, tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if "point" in result:
            point = RungPoint(**json.loads(result["point"]))
            if not self._searcher.may_go_on(trial.trial_id, point):
                return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def _keep(self, processes: int, tune_controller: Any, trial: Trial) -> None:
        controller = getattr(tune_controller, "_tune_controller", tune_controller)  # it is wrapped
        more = processes - self._kept
        controller._actor_cache.increase_max(trial.placement_group_factory, more)
        self._kept = processes


class _TellErrors(tune.Callback):
    """Tells the study of trials whose process could not be kept alive.

    One that was given a process that had died between two trials is given another: Tune itself
    gives such a trial up.
    """

    def __init__(self, searcher: _StudySearcher) -> None:
        self._searcher = searcher

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        times = trial.run_metadata.num_failures
        if times <= DRIVER_RESTARTS:
            self._searcher.hand_out_again(trial.config)
            return
        # Tune's own accessors look where the file is only copied to in the end.
        file = trial.error_file and Path(trial.error_file)
        lines = file.read_text().strip().splitlines() if file and file.exists() else []
        reason = lines[-1].strip() if lines else "its process died"
        self._searcher.tell_error(trial.trial_id, f"{reason} ({times} times)")


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['number']:04d}"
