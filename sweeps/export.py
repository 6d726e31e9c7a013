"""Writes the weights that a sweep recommends, with a model card, for use outside this project.

As a folder that transformers loads (VideoMAEForVideoClassification) where transformers can compute
what the model computes, and always as weights.safetensors for this project's own trunk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script: this folder is on the path, the project is not
    sys.path.insert(0, str(ROOT))

from safetensors import SafetensorError, safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from sweeps.model_card import model_card  # noqa: E402
from sweeps.reporting.summary import WEIGHTS_FILE  # noqa: E402
from trainables.config import TrialConfig  # noqa: E402
from trainables.data.augment import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from trainables.models.videomae import (  # noqa: E402
    TRUNK,
    linear_patch_embedding,
    to_videomae,
    videomae_config,
)
from trainables.settings import parse  # noqa: E402
from trainables.storage.folder import Folder  # noqa: E402

EXAMPLE = """example:
  python sweeps/export.py runs/demo --out exported/demo
"""


def export(sweep_folder: Path, out: Path) -> str | None:
    """Write the recommended weights of the finished sweep in `sweep_folder` to `out`, a new folder.

    Returns:
        Why transformers cannot express the model; None if its files were written too.

    Raises:
        ValueError: the sweep has not ended, recommends nothing, or `out` holds something.
    """
    summary = _summary(sweep_folder)
    trial = parse(TrialConfig, summary["recommended"]["config"], "recommended.config")
    weights = sweep_folder / WEIGHTS_FILE
    _check_weights(weights, summary["recommended"]["weights"]["stage"])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: is there already; give a folder that is new or empty")
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, out / "weights.safetensors")
    reason = why_not_videomae(trial)
    if reason is None:
        _write_videomae(trial, weights, out)
    (out / "README.md").write_text(model_card(summary, trial, reason))
    return reason


def why_not_videomae(trial: TrialConfig) -> str | None:
    """Why transformers' VideoMAE cannot compute what the trial's model does; None if it can."""
    vit = trial.model.vit
    if vit is None:
        return f"model.name {trial.model.name!r} is no ViT"
    if vit.positions != "sincos_1d":
        return (
            f"model.vit.positions is {vit.positions!r}, and VideoMAE in transformers has the fixed "
            "table 'sincos_1d' alone"
        )
    if trial.clip.normalize != "imagenet":
        return (
            f"clip.normalize is {trial.clip.normalize!r}, and its preprocessing knows fixed means "
            "and deviations alone"
        )
    return None


def _copied(folder: Folder, to: Path) -> Path:
    """What an export reads of a sweep in an object store."""
    try:
        for name in ("summary.json", WEIGHTS_FILE):
            (to / name).write_bytes(folder.read(name))
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be read ({error}); give the folder of a sweep that has ended"
        ) from None
    return to


def _summary(folder: Path) -> dict[str, Any]:
    file = folder / "summary.json"
    try:
        summary: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file}: cannot be read ({error}); give the folder of a sweep that has ended"
        ) from None
    if summary["recommended"] is None:
        raise ValueError(f"{file}: recommends nothing, for no trial was completed")
    return summary


def _check_weights(file: Path, stage: str) -> None:
    try:
        with safe_open(file, "pt") as opened:
            found = (opened.metadata() or {}).get("stage")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); run the sweep again") from None
    if found != stage:
        raise ValueError(
            f"{file}: is of stage {found}, but summary.json recommends {stage}; run the sweep's "
            "command again, which writes both"
        )


def _write_videomae(trial: TrialConfig, weights: Path, out: Path) -> None:
    assert trial.model.vit is not None
    trunk = load_file(weights)
    if trial.model.vit.tubelet == "difference":
        trunk["patch_embed.weight"] = linear_patch_embedding(trunk["patch_embed.weight"])
    tensors = {
        name if name.startswith("fc_norm.") else f"{TRUNK}{name}": tensor.contiguous()
        for name, tensor in to_videomae(trunk).items()
    }
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["VideoMAEForVideoClassification"],
        **videomae_config(trial.model, trial.clip),
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,  # on queries and values; its keys have none
        "use_mean_pooling": True,
    }
    side = trial.clip.resolution
    preprocessor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    for name, content in (("config", config), ("preprocessor_config", preprocessor)):
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python sweeps/export.py",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sweep", metavar="SWEEP_FOLDER", help="<storage>/<sweep>, with its summary.json"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write, new or empty"
    )
    arguments = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as copies:
            folder = Folder(arguments.sweep)
            reason = export(folder.path or _copied(folder, Path(copies)), arguments.out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if reason is None:
        print(f"{arguments.out}: written; transformers loads it, and so does this project.")
    else:
        print(f"{arguments.out}: weights and model card written, no files for transformers:")
        print(f"{reason}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
