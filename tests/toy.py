"""Toy-sized settings and datasets that the tests share."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from cluster.study import RungPoint
from trainables.config import Execution, TrialConfig
from trainables.data.catalog import Clip, Dataset
from trainables.settings import parse, with_overrides

MIXTURE = {
    "granularity": "clip",
    "match_repetition": False,
    "max_repetition": None,
    "max_unreadable": 0.01,
    "resample": {},
}
AUGMENT = {
    "crop_scale": [0.8, 1.0],
    "crop_ratio": [1.0, 1.0],
    "flip": False,
    "jitter": 0.0,
    "rand_augment": None,
    "erasing": 0.0,
}
OPTIMIZER = {
    "algorithm": "adamw",
    "betas": [0.9, 0.98],
    "momentum": None,
    "batch_size": 4,
    "lr_schedule": "cosine",
    "lr_peak": 1e-3,
    "lr_start": 0.0,
    "lr_end": 0.0,
    "warmup_fraction": 0.1,
    "warmup_clips": None,
    "decay_fraction": None,
    "weight_decay": 0.05,
    "layer_decay": 1.0,
    "layer_decay_of_head": True,
    "clip_norm": 1.0,
    "precision": "fp32",
}
MIXUP = {  # PPMA's
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "probability": 1.0,
    "switch_probability": 0.5,
    "across_sources": False,
}
TRIAL: dict[str, Any] = {
    "seed": 0,
    "model": {
        "name": "vit_tiny",
        "vit": {
            "patch_size": 16,
            "tubelet": "difference",
            "positions": "sincos_1d",
        },
    },
    "clip": {"frames": 4, "seconds": 1.0, "resolution": 32, "normalize": "per_clip"},
    "start": {"weights": "random", "path": None},
    "mae": {
        "epochs": 1,
        "branch_epochs": [],
        "clips_per_epoch": 8,
        "views_per_clip": 1,
        "mixture": {"shares": {"scenes": 1}, **MIXTURE},
        "masking": "random",
        "mask_ratio": 0.5,
        "target": "pixels",
        "final_norm": "fresh",
        "decoder": {"width": 32, "depth": 1, "heads": 2},
        "augment": AUGMENT,
        "optimizer": OPTIMIZER,
    },
    "contrastive": None,
    "align": {
        "epochs": 2,
        "branch_epochs": [],
        "clips_per_epoch": 8,
        "views_per_clip": 1,
        "mixture": {"shares": {"synthetic": 0.5, "scenes": 0.5}, **MIXTURE},
        "drop_path": 0.0,
        "head": "per_source",
        "label_smoothing": 0.0,
        "heldout_clips": 0,
        "keep": {"last": 0, "ema_decay": None, "posthoc_ema": False},
        "mixup": None,
        "augment": AUGMENT,
        "optimizer": OPTIMIZER,
    },
    "average": {
        "method": "none",
        "endpoints": [{"mixture.shares": {"scenes": 1}}, {"mixture.shares": {"synthetic": 1}}],
        "coefficient": 0.5,
        "scored_together": [],
        "learned": "global",
        "last": 1,
        "ema_length": 0.1,
    },
    "probe": {"l2_grid": [1.0], "neighbours": 3, "max_unreadable": 0.01, "precision": "fp32"},
    "augmented_probe": None,
    "finetune": None,
    "test": {"clips": 1, "crops": 1},
    "downstream": ["low"],
    "score": {"use": "probe", "combine": "mean"},
}
CPU: dict[str, Any] = {
    "workers": 1,
    "cpus_per_worker": 1,
    "gpus_per_worker": 0,
    "loader_workers": 0,
    "video_reader": "decord",
    "per_device_batch": None,
    "checkpoint_every_steps": 2,
    "compile": False,
    "recompute_activations": False,
}


def toy_trial(**overrides: Any) -> TrialConfig:
    """The toy trial; keyword `align__epochs=3` sets `align.epochs`."""
    paths = {key.replace("__", "."): value for key, value in overrides.items()}
    return parse(TrialConfig, with_overrides(deepcopy(TRIAL), paths), "")


def toy_execution(**changes: Any) -> Execution:
    return Execution(**{**CPU, **changes})


def toy_dataset(name: str, train: int, heldout: int = 0, humans: str = "virtual") -> Dataset:
    """A dataset of two classes whose clips exist nowhere: enough for plans and identities."""
    splits = ["train"] * train + ["selection"] * heldout + ["report"] * heldout
    clips = tuple(
        Clip(path=f"{i}.mp4", label=i % 2, group=f"g{i}", split=split)
        for i, split in enumerate(splits)
    )
    content = hashlib.sha256(f"{name} {train} {heldout}".encode()).hexdigest()[:16]
    return Dataset(
        name=name,
        root=Path("/nowhere"),
        humans=humans,  # type: ignore[arg-type]
        classes=("a", "b"),
        clips=clips,
        frame_rate=None,
        content_hash=content,
    )


def toy_data() -> dict[str, Dataset]:
    return {
        "synthetic": toy_dataset("synthetic", 16),
        "scenes": toy_dataset("scenes", 8, humans="removed"),
        "low": toy_dataset("low", 8, heldout=4, humans="real"),
    }


SPACE: dict[str, Any] = {
    "parameters": {
        "align.mixture.shares": {
            "type": "simplex",
            "over": ["synthetic", "scenes"],
            "step": 0.25,
        }
    }
}


def toy_sweep_data(**overrides: Any) -> dict[str, Any]:
    """A sweep file's content; keyword `search__trials=3` sets `search.trials`."""
    data = {
        "name": "toy",
        "question": "Does it work?",
        "storage": "runs",
        "allow_real_humans": False,
        "datasets": {"catalog": "catalog.yaml"},
        "trial": TRIAL,
        "search": {
            "space": "space.yaml",
            "sampler": "random",
            "seed": 0,
            "objectives": ["score"],
            "trials": 6,
            "budget": None,
            "baselines": True,
            "greedy_soup": False,
            "concurrent": 1,
            "early_stopping": None,
            "warm_start": [],
            "law": None,
            "merge_proxy": None,
        },
        "bias": None,
        "execution": {
            "mae": CPU,
            "align": CPU,
            "finetune": CPU,
            "tasks": CPU,
            "attempts": 3,
            "hang_seconds": None,
            "first_step_seconds": None,
            "driver_resource": None,
            "storage": {"budget_gb": None, "patience_minutes": 1, "cache_gb": 1},
            "clips_per_second": None,
            "device_teraflops": None,
            "device_price_per_hour": None,
        },
        "tracking": {"uri": None},
    }
    paths = {key.replace("__", "."): value for key, value in overrides.items()}
    return with_overrides(deepcopy(data), paths)


STOPPING: dict[str, Any] = {
    "by": "score",
    "rungs": [0.25, 0.5],
    "reduction_factor": 2,
    "train_clips": 4,
    "selection_clips": 2,
}


def at_rung(rung: float, low: float, **others: float) -> RungPoint:
    """How a trial stands at a rung, by dataset."""
    return RungPoint(rung=rung, accuracies={"low": low, **others}, device_seconds=1.0)


def write_toy_sweep(folder: Path, space: dict[str, Any] = SPACE, **overrides: Any) -> Path:
    """sweep.yaml and space.yaml in `folder`, storage below it. Returns the sweep file."""
    overrides = {"storage": str(folder / "runs"), **overrides}
    (folder / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(toy_sweep_data(**overrides), sort_keys=False))
    return path
