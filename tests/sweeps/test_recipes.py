"""The published recipes' own files, made small with --set, on clips that are rendered here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sweeps.commands import ROOT, run_to_end
from tests.trainables.data.videos import write_video
from trainables.settings import load_yaml

SWEEPS = ROOT / "sweeps"
DOWNSTREAM = ["ucf101", "hmdb51"]
SOURCES = {"nh_kinetics": "removed", "synapt": "virtual", "kinetics150": "real"}
CLASSES = 6


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes' catalog by name, as a few clips of 6 classes each."""
    root = tmp_path_factory.mktemp("recipes")
    datasets: dict[str, Any] = {}
    humans = {**SOURCES, **dict.fromkeys(DOWNSTREAM, "real")}
    for number, (name, kind) in enumerate(humans.items()):
        lines = ["path,label,split"]
        for index in range(4 * CLASSES):
            split = "train" if index < 2 * CLASSES else ("selection", "report")[index % 2]
            clip = f"{index:02d}.mp4"
            write_video(root / name / clip, width=40, height=32, count=9, seed=100 * number + index)
            # Every source has class names of its own, as PPMA's two label sets have.
            label = f"{name if name in SOURCES else 'real'} {index // 2 % CLASSES}"
            lines.append(f"{clip},{label},{split}")
        (root / name / "clips.csv").write_text("\n".join(lines) + "\n")
        datasets[name] = {"clips": f"{name}/clips.csv", "root": name, "humans": kind}
    for first, last in ((2, 4), (3, 3), (4, 2)):  # of 6 classes, as 40/110, 75/75, 110/40 of 150
        names = {(2, 4): ("40", "110"), (3, 3): ("75", "75"), (4, 2): ("110", "40")}[first, last]
        datasets[f"synapt_{names[0]}"] = subset("synapt", {"first": first})
        datasets[f"nhk_{names[1]}"] = subset("nh_kinetics", {"last": last})
    path = root / "catalog.yaml"
    path.write_text(yaml.safe_dump({"datasets": datasets}, sort_keys=False))
    return path


def subset(of: str, classes: dict[str, int]) -> dict[str, Any]:
    return {"subset_of": of, "classes": classes, "clips_per_class": 1000}


def small(catalog: Path, storage: Path, **more: Any) -> list[str]:
    """What makes any of the three files run on a CPU in seconds a stage."""
    cpu = {
        "workers": 1,
        "cpus_per_worker": 1,
        "gpus_per_worker": 0,
        "loader_workers": 0,
        "video_reader": "pyav",
        "per_device_batch": None,
        "checkpoint_every_steps": 100,
        "compile": False,
        "recompute_activations": False,
    }
    settings = {
        "storage": str(storage),
        "datasets.catalog": str(catalog),
        "trial.clip": {"frames": 4, "seconds": 1.0, "resolution": 32, "normalize": "imagenet"},
        "trial.align.epochs": 1,
        "trial.align.clips_per_epoch": 12,
        "trial.align.heldout_clips": 4,
        "trial.align.optimizer.batch_size": 4,
        "trial.finetune.epochs": 1,
        "trial.finetune.optimizer.batch_size": 4,
        "trial.finetune.optimizer.precision": "fp32",
        "trial.test": {"clips": 2, "crops": 1},
        "trial.downstream": DOWNSTREAM,
        "search.concurrent": 2,
        "bias": None,
        **{f"execution.{name}": cpu for name in ("mae", "align", "finetune", "tasks")},
        **more,
    }
    return [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]


SMALL_PPMA = {
    "trial.model": {
        "name": "vit_tiny",
        "vit": {"patch_size": 16, "tubelet": "linear", "positions": "sincos_1d"},
    },
    "trial.mae.epochs": 1,
    "trial.mae.clips_per_epoch": 8,
    "trial.mae.decoder": {"width": 32, "depth": 1, "heads": 2},
    "trial.mae.optimizer.batch_size": 4,
    "trial.mae.optimizer.precision": "fp32",
    "trial.align.optimizer.precision": "fp32",
    "trial.augmented_probe.epochs": 1,
    "trial.augmented_probe.optimizer.batch_size": 4,
    "trial.augmented_probe.optimizer.precision": "fp32",
}


def run_small(name: str, catalog: Path, folder: Path, *arguments: str, **more: Any) -> Any:
    """The summary and report of the sweep file `name`, run to its end by the real command."""
    sweep = SWEEPS / name
    settings = small(catalog, folder, **more)
    printed = run_to_end(sweep, *arguments, *settings, folder=folder, seconds=900)
    results = folder / load_yaml(sweep)["name"]
    summary = json.loads((results / "summary.json").read_text())
    failed = {t["name"]: t["reason"] for t in summary["trials"] if t["state"] != "complete"}
    assert not failed, f"{failed}\n{printed[-3000:]}"
    return summary, (results / "report.md").read_text(), printed


@pytest.mark.slow
def test_ppma_runs_to_its_end_and_takes_every_part_of_the_recipe_with_it(
    catalog: Path, tmp_path: Path
) -> None:
    summary, report, _ = run_small("ppma.yaml", catalog, tmp_path, "--trials", "8", **SMALL_PPMA)
    names = [trial["name"] for trial in summary["trials"]]
    assert {"PPMA (as released)", "PPMA (budget-neutral)", "baseline: equal"} <= set(names)
    assert "| method | ucf101 probe | ucf101 LP | ucf101 FT | hmdb51 probe |" in report
    (released,) = [t for t in summary["trials"] if t["name"] == "PPMA (as released)"]
    (align,) = [s for s in released["stages"].values() if s["kind"] == "align"]
    # 12 training clips each: an epoch of both is 24, in batches of one source each.
    assert align["mixture"]["requested"] == {"nh_kinetics": "0.5", "synapt": "0.5"}
    assert align["mixture"]["realised"] == {"nh_kinetics": 12, "synapt": 12}


@pytest.mark.slow
def test_ppma_s_baselines_make_the_table_of_its_paper(catalog: Path, tmp_path: Path) -> None:
    points = load_yaml(SWEEPS / "ppma_baselines.yaml")["search"]["points"]
    humans = [point["name"] for point in points if point.get("real_humans")]
    one = {**SMALL_PPMA, "trial.downstream": DOWNSTREAM[:1]}
    summary, report, printed = run_small("ppma_baselines.yaml", catalog, tmp_path, **one)
    rows = [
        line.split(" | ")[0].removeprefix("| ")
        for line in report.split("## Methods")[1].splitlines()
    ]
    assert [point["name"] for point in points if point["name"] in rows] == [
        point["name"] for point in points if point["name"] not in humans
    ]
    assert all(f"{name} is left out" in " ".join(printed.split()) for name in humans)
    assert summary["allow_real_humans"] is False


@pytest.mark.slow
def test_synapt_trains_its_networks_on_its_mixes_of_classes(catalog: Path, tmp_path: Path) -> None:
    points = [
        point
        for point in load_yaml(SWEEPS / "synapt.yaml")["search"]["points"]
        if point["name"].startswith("tsn") or point["name"].endswith("synthetic only")
    ]
    for point in points:  # ResNet-50 takes a minute here; the name of a smaller one is enough
        point["set"]["model.name"] = point["set"]["model.name"].replace("resnet50", "resnet10t")
    summary, report, _ = run_small(
        "synapt.yaml",
        catalog,
        tmp_path,
        "--trials",
        str(len(points)),
        **{
            "search.points": points,
            "trial.model.name": "tsn_resnet10t",
            "trial.align.clips_per_epoch": 64,  # the largest batch of its space
            "trial.clip": {"frames": 8, "seconds": 1.0, "resolution": 32, "normalize": "imagenet"},
            "trial.downstream": DOWNSTREAM[:1],
        },
    )
    assert "| method | ucf101 probe | ucf101 FT |" in report
    (mixed,) = [t for t in summary["trials"] if t["name"].endswith("75 / 75 classes")]
    (align,) = [s for s in mixed["stages"].values() if s["kind"] == "align"]
    assert align["mixture"]["realised"] == {"nhk_75": 32, "synapt_75": 32}


def test_both_files_of_ppma_hold_the_same_recipe() -> None:
    ppma, baselines = (load_yaml(SWEEPS / f"{n}.yaml")["trial"] for n in ("ppma", "ppma_baselines"))
    assert (ppma["align"].pop("head"), baselines["align"].pop("head")) == ("per_source", "by_index")
    assert ppma == baselines
