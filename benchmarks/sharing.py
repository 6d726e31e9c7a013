"""What sharing saves: 5 shares x 3 lengths x 6 coefficients, 90 trials on the demo world.

Stage 1, then alignment on the mix, then a point between the two (WiSE-FT), probed on both
downstream datasets. All under `constant_then_decay`. Against

- each trial alone: the same trials with nothing shared, stage by stage in a warm process;
- stock Ray Tune: `Tuner` and `OptunaSearch` over a function that trains a whole trial;
- a careful user: stage 1 is cached by hand, coefficients are scored together after training.

The study runs whole, with the real command's code: Ray, MLflow and report are in its time. Of the
others a sample runs, two at a time on two processes, and its time is scaled by the clips that all
trials train on; clips are counted. The sample's scores must be the study's own.

    python benchmarks/sharing.py --folder FOLDER       15 minutes or so on 2 cores
    python benchmarks/sharing.py --folder FOLDER --aligned 64 --sample 2 4   a smaller one

An interrupted study continues, and then its time is no figure. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Ray's own is 15: where others use the machine too, that would compare priorities.
os.environ.setdefault("RAY_worker_niceness", "0")

from sweeps.planning.stage_facts import PRETRAINED, stage_clips  # noqa: E402
from sweeps.prepare import prepare  # noqa: E402
from sweeps.run import run_sweep  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402
from sweeps.watching.terminal import make_console  # noqa: E402
from trainables.config import Execution, TrialConfig  # noqa: E402
from trainables.data.catalog import Dataset  # noqa: E402
from trainables.stage import Stage  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402
from trainables.trial import trial_score, trial_stages  # noqa: E402

SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]  # of the synthetic source
LENGTHS = [2, 4, 8]  # epochs of alignment
COEFFICIENTS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
STAGE_1_EPOCHS = 4
PROCESSES = 2

SPACE = f"""parameters:
  align.mixture.shares: {{type: simplex, over: [synthetic, scenes], step: 0.25}}
  align.epochs: {{type: choice, values: {LENGTHS}}}
  average.coefficient: {{type: choice, values: {COEFFICIENTS}}}
"""


def changes(folder: Path, clips_per_epoch: int) -> dict[str, Any]:
    """The demo's sweep file as this study."""
    schedule = {
        "lr_schedule": "constant_then_decay",
        "warmup_fraction": None,
        "warmup_clips": clips_per_epoch // 2,
        "decay_fraction": 0.2,
    }
    return {
        "name": "sharing",
        "question": "What does sharing save?",
        "storage": str(folder / "runs"),
        "datasets.demo_world.clips_per_source": 512,
        "datasets.demo_world.heldout_per_source": 16,
        "datasets.demo_world.downstream_train": 96,
        "datasets.demo_world.downstream_selection": 48,
        "datasets.demo_world.downstream_report": 48,
        "trial.mae.epochs": STAGE_1_EPOCHS,
        "trial.mae.clips_per_epoch": clips_per_epoch,
        "trial.align.clips_per_epoch": clips_per_epoch,
        "trial.align.branch_epochs": LENGTHS,
        "trial.align.heldout_clips": 0,
        **{
            f"trial.{kind}.optimizer.{k}": v
            for kind in ("mae", "align")
            for k, v in schedule.items()
        },
        "trial.average.method": "wise_ft",
        "trial.average.scored_together": COEFFICIENTS,
        "search.space": str(folder / "space.yaml"),
        "search.sampler": "grid",
        "search.trials": len(SHARES) * len(LENGTHS) * len(COEFFICIENTS),
        "search.concurrent": 12,
        "search.baselines": False,
        "search.points": [],
        "search.law": None,
        "bias": None,  # nobody else measures it
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="for the study; default: a temporary one")
    parser.add_argument("--aligned", type=int, default=384, help="clips an epoch")
    parser.add_argument(
        "--sample", type=int, nargs="+", default=[8, 2, 4, 4], help="epochs of each"
    )
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="sharing-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.yaml").write_text(SPACE)
    sweep = Sweep(ROOT / "sweeps" / "demo.yaml", changes(folder, arguments.aligned))
    console = make_console()
    prepared = prepare(sweep, console, dry_run=False)  # renders the world: in nobody's time
    load = [os.getloadavg()[0]]

    began = time.monotonic()
    summary = run_sweep(sweep, console)
    study_seconds = time.monotonic() - began
    failed = [t["number"] for t in summary["trials"] if t["state"] != "complete"]
    if failed:
        raise SystemExit(f"trials {failed} did not complete; see {sweep.folder}")
    study_clips = clips_trained(prepared.store)
    load.append(os.getloadavg()[0])

    shares = cycle([0.5, 0.25])  # no trial twice
    sample = [point(next(shares), epochs) for epochs in arguments.sample]
    work = Work(sweep, prepared.data, folder / "others")
    everything = clips_alone(every_trial(sweep), prepared.data)
    sampled = clips_alone([sweep.trial_with(each, "sample") for each in sample], prepared.data)

    alone_seconds, scores = work.side_by_side(work.alone, sample)
    careful_seconds, careful_clips = careful_user(work, sample, prepared.data, sweep)
    tune_seconds = work.stock_tuner(sample)  # last: Ray changes __main__, which others pickle
    load.append(os.getloadavg()[0])

    known = {key_of(t["config"]): t["score"] for t in summary["trials"]}
    found = [(known[key_of(config)], score) for config, score in scores]
    alone = alone_seconds * everything / sampled
    stock = tune_seconds * everything / sampled
    result = {
        "benchmark": "sharing",
        "trials": len(summary["trials"]),
        "clips_per_epoch": arguments.aligned,
        "lengths": LENGTHS,
        "sample": arguments.sample,
        "clips": {"ours": study_clips, "nothing_shared": everything, "careful_user": careful_clips},
        "seconds": {
            "ours": round(study_seconds),
            "each_alone": round(alone),
            "stock_tuner": round(stock),
            "careful_user": round(careful_seconds),
        },
        "sampled_seconds": {"each_alone": round(alone_seconds), "stock_tuner": round(tune_seconds)},
        "fewer_clips": ratios(study_clips, nothing_shared=everything, careful_user=careful_clips),
        "faster": ratios(
            study_seconds, each_alone=alone, stock_tuner=stock, careful_user=careful_seconds
        ),
        "sampled_scores_are_the_studys": all(ours == theirs for ours, theirs in found),
        "load": [round(each, 1) for each in load],
    }
    print(json.dumps(result))
    return 0


def point(share: float, epochs: int, coefficient: float = 0.6) -> dict[str, Any]:
    return {
        "align.mixture.shares": {"synthetic": share, "scenes": 1 - share},
        "align.epochs": epochs,
        "average.coefficient": coefficient,
        # Who shares nothing makes no trunk for others, and scores what it asks for.
        "align.branch_epochs": [],
        "average.scored_together": [],
    }


def every_trial(sweep: Sweep) -> list[TrialConfig]:
    return [
        sweep.trial_with(point(share, epochs, coefficient), "study")
        for share in SHARES
        for epochs in LENGTHS
        for coefficient in COEFFICIENTS
    ]


def key_of(config: Mapping[str, Any]) -> str:
    shares = {name: float(share) for name, share in config["align"]["mixture"]["shares"].items()}
    chosen = [shares, config["align"]["epochs"], config["average"]["coefficient"]]
    return json.dumps(chosen, sort_keys=True)


def clips_trained(store: StageStore) -> int:
    """By all stages of pre-training in the store, as their records say."""
    return int(sum(r.cost["clips"] for r in store.records() if r.stage["kind"] in PRETRAINED))


def clips_alone(trials: Sequence[TrialConfig], data: Mapping[str, Dataset]) -> int:
    """That the trials train on if each is alone."""
    stages = [stage for trial in trials for stage in trial_stages(trial, data).searched()]
    return sum(clips_of(stage, data) for stage in stages)


def ratios(ours: float, **others: float) -> dict[str, float]:
    return {name: round(other / ours, 2) for name, other in others.items()}


class Work:
    """What the others do with a trial: all of its stages, on a store that nobody shares."""

    def __init__(self, sweep: Sweep, data: Mapping[str, Dataset], folder: Path) -> None:
        self.sweep, self.data, self.folder = sweep, data, folder
        self.execution: Execution = sweep.settings.execution.tasks
        shutil.rmtree(folder, ignore_errors=True)

    def run(self, ends: Sequence[Stage], store: StageStore) -> None:
        from trainables.stages.run import run_stage

        for end in ends:
            for stage in end.chain():
                run_stage(stage, store, self.data, self.execution, lambda: False)

    def alone(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """A whole trial in a store of its own; its settings and its score."""
        trial = self.sweep.trial_with(values, "sample")
        store = StageStore(Path(tempfile.mkdtemp(dir=self._made())))
        parts = trial_stages(trial, self.data)
        self.run(list(parts.scored.values()), store)
        accuracies = {
            name: store.record(end.identity).metrics["accuracy"]  # type: ignore[union-attr]
            for name, end in parts.scored.items()
        }
        return trial.model_dump(mode="json"), trial_score(trial, accuracies)

    def careful(self, values: Mapping[str, Any]) -> None:
        """Alignment in one go from the cached stage 1, then all coefficients in one pass."""
        together = {**values, "average.scored_together": COEFFICIENTS}
        trials = [
            self.sweep.trial_with({**together, "average.coefficient": c}, "sample")
            for c in COEFFICIENTS
        ]
        stages = Path(tempfile.mkdtemp(dir=self._made())) / "stages"
        shutil.copytree(self.folder / "stage_1", stages)
        store = StageStore(stages)
        self.run([e for t in trials for e in trial_stages(t, self.data).scored.values()], store)

    def side_by_side(
        self, do: Callable[[Mapping[str, Any]], Any], points: Sequence[Mapping[str, Any]]
    ) -> tuple[float, list[Any]]:
        """Wall seconds of `do` for all points on two warm processes, and what it returned."""
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
            list(pool.map(warm_up, range(2 * PROCESSES)))
            began = time.monotonic()
            results = list(pool.map(do, points))
            return time.monotonic() - began, results

    def stock_tuner(self, points: Sequence[Mapping[str, Any]]) -> float:
        """Wall seconds of Ray Tune's own way with these points; Ray is up before."""
        import ray
        from ray import tune
        from ray.tune.search.optuna import OptunaSearch

        named = {f"{number}": each for number, each in enumerate(points)}

        def trial(config: dict[str, Any]) -> None:
            tune.report({"score": self.alone(named[config["point"]])[1]})

        ray.init("local", num_cpus=PROCESSES, log_to_driver=False, include_dashboard=False)
        try:
            search = OptunaSearch(
                metric="score", mode="max", points_to_evaluate=[{"point": name} for name in named]
            )
            tuner = tune.Tuner(
                trial,
                param_space={"point": tune.choice(list(named))},
                tune_config=tune.TuneConfig(
                    num_samples=len(named), search_alg=search, max_concurrent_trials=PROCESSES
                ),
                run_config=tune.RunConfig(storage_path=str(self._made() / "tune"), verbose=0),
            )
            began = time.monotonic()
            results = tuner.fit()
            seconds = time.monotonic() - began
            assert not results.errors, results.errors
        finally:
            ray.shutdown()
        return seconds

    def _made(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder


def careful_user(
    work: Work, sample: Sequence[Mapping[str, Any]], data: Mapping[str, Dataset], sweep: Sweep
) -> tuple[float, int]:
    """Wall seconds and clips of stage 1 once and 15 alignments, scored; scaled from the sample."""
    trials = [sweep.trial_with(each, "sample") for each in sample]
    stage_1 = next(
        stage for stage in trial_stages(trials[0], data).searched() if stage.kind == "mae"
    )
    cached, _ = work.side_by_side(Cache(work, stage_1), [{}])
    aligned, _ = work.side_by_side(work.careful, sample)
    stage_1_clips = sum(
        clips_of(stage, data) for stage in {s.identity: s for s in stage_1.chain()}.values()
    )
    runs = every_trial(sweep)[1 :: len(COEFFICIENTS)]  # at 0 nothing is aligned
    everything = clips_alone(runs, data) - stage_1_clips * len(runs)
    sampled = clips_alone(trials, data) - stage_1_clips * len(trials)
    return cached + aligned * everything / sampled, stage_1_clips + everything


def clips_of(stage: Stage, data: Mapping[str, Dataset]) -> int:
    return stage_clips(stage, data) if stage.kind in PRETRAINED else 0


class Cache:
    """Trains stage 1 into the folder that the careful user copies from."""

    def __init__(self, work: Work, stage_1: Stage) -> None:
        self.work, self.stage_1 = work, stage_1

    def __call__(self, _: Mapping[str, Any]) -> None:
        self.work.run([self.stage_1], StageStore(self.work.folder / "stage_1"))


def warm_up(_: int) -> None:
    """What every process imports before its time counts."""
    import trainables.stages.run  # noqa: F401

    time.sleep(1)  # so that each process takes one


if __name__ == "__main__":
    sys.exit(main())
