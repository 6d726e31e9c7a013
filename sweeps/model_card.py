"""The model card of exported weights: what they are, what they learnt from, how well they did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainables.config import TrialConfig
from trainables.training_descriptions import Pretraining

LOAD_HERE = """```python
import json
from pathlib import Path

from safetensors import safe_open

from trainables.config import TrialConfig
from trainables.settings import parse
from trainables.stages.weights import trunk_from

file = Path("weights.safetensors")
with safe_open(file, "pt") as opened:
    trial = parse(TrialConfig, json.loads(opened.metadata()["config"]), "config")
trunk = trunk_from(file, trial.model, trial.clip).eval()
feature = trunk(video)  # video [B, 3, T, H, W] -> feature [B, width]
```"""
LOAD_TRANSFORMERS = """```python
import torch
from transformers import VideoMAEForVideoClassification

model = VideoMAEForVideoClassification.from_pretrained(".").eval()
model.classifier = torch.nn.Identity()  # the weights come without a classifier: train your own
feature = model(video.transpose(1, 2)).logits  # it takes [B, T, 3, H, W]
```"""


def model_card(summary: Mapping[str, Any], trial: TrialConfig, not_videomae: str | None) -> str:
    """README.md of an export; `not_videomae` is why it holds no files for transformers."""
    best = summary["recommended"]
    lines = ["---", "license: other", "tags: [video, action-recognition]", "---", ""]
    lines += [f"# {summary['sweep']}: {best['name']}", "", summary["question"], ""]
    lines += [
        f"The trunk of a {trial.model.name}, without a classifier: trial {best['trial']}, which "
        "this sweep recommends by its score on the selection split.",
        "",
        *_learnt_from(summary, trial),
        *_made(trial),
        *_scores(summary),
        "## How to load it",
        "",
        f"A clip is {trial.clip.frames} frames spread evenly over {trial.clip.seconds:g} s, the "
        f"middle square, {trial.clip.resolution} pixels wide, normalised: {trial.clip.normalize}.",
        "",
    ]
    if not_videomae is None:
        lines += [
            "With transformers (features differ by about 1e-5, for its last norm adds 1e-5 to the "
            "variance where ours adds 1e-6):",
            "",
            LOAD_TRANSFORMERS,
            "",
        ]
    else:
        lines += [f"Not with transformers: {not_videomae}.", ""]
    lines += ["With this project:", "", LOAD_HERE, "", "## All settings", ""]
    lines += ["```json", json.dumps(best["config"], indent=1), "```"]
    return "\n".join(lines) + "\n"


def _learnt_from(summary: Mapping[str, Any], trial: TrialConfig) -> list[str]:
    sources = summary["recommended"]["trained_on"]
    lines = ["## What it learnt from", ""]
    if sources:
        lines += ["| source | humans in it | content hash |", "|---|---|---|"]
        lines += [f"| {n} | {s['humans']} | `{s['content_hash']}` |" for n, s in sources.items()]
    else:
        lines.append("Nothing: these are random weights.")
    allowed = summary["allow_real_humans"]
    real = ", ".join(name for name, source in sources.items() if source["humans"] == "real")
    lines += [
        "",
        f"Pre-training on real humans was {'allowed' if allowed else 'refused'}; "
        + (f"real humans are in: {real}." if real else "no source declares any."),
    ]
    if trial.start.path is not None:
        lines += [
            f"It started from public weights ({trial.start.weights}, `{trial.start.path}`); what "
            "those had learnt from, and whether humans were in it, is not known to this sweep.",
        ]
    if sources:
        lines += [
            "",
            "Licences of the sources apply; look those up that the catalog did not state:",
            "",
            *(f"- {name}: {summary['licences'].get(name, 'not stated')}" for name in sources),
        ]
    lines += ["", "Content hashes of all datasets of the sweep, those it was scored on included:"]
    lines += ["", *(f"- {name}: `{value}`" for name, value in summary["data"].items()), ""]
    return lines


def _made(trial: TrialConfig) -> list[str]:
    average = trial.average
    lines = ["## How it was made", ""]
    stage_1 = "none" if trial.mae is None else _mixed(trial.mae)
    lines.append(f"- stage 1, masked autoencoding: {stage_1}")
    if trial.contrastive is not None and trial.contrastive.epochs:
        lines.append(f"- then, contrastive ({trial.contrastive.loss}): {_mixed(trial.contrastive)}")
    if average.method in ("none", "wise_ft", "last_k", "ema", "posthoc_ema"):
        lines.append(f"- stage 2, alignment: {_mixed(trial.align)}")
    else:
        lines += [
            f"- stage 2, alignment, endpoint {index}: {_mixed(trial.endpoint(index))}"
            for index in range(len(average.endpoints))
        ]
    read: dict[str, str] = {
        "interpolate": f", coefficient {average.coefficient:g}",
        "wise_ft": f", coefficient {average.coefficient:g}",
        "last_k": f", of {average.last} epochs",
        "posthoc_ema": f", length {average.ema_length:g}",
        "learned": "; these weights are its uniform start, the coefficients are per dataset",
    }
    averaged = f"{average.method}{read.get(average.method, '')}" if trial.align.epochs else "none"
    return [*lines, f"- average: {averaged}", ""]


def _mixed(settings: Pretraining) -> str:
    if settings.epochs == 0:
        return "none"
    shares = settings.mixture.shares
    mixture = ", ".join(f"{name} {share}" for name, share in shares.items())
    epochs = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    return f"{epochs} of {settings.clips_per_epoch} clips; {mixture}"


def _scores(summary: Mapping[str, Any]) -> list[str]:
    best = summary["recommended"]
    (trial,) = (t for t in summary["trials"] if t["number"] == best["trial"])
    splits = {"selection": trial, "report": best["report"]}
    read = {name: scored for name, scored in splits.items() if scored is not None}
    lines = ["## Scores", "", "Top-1 in %, with 90 % bootstrap intervals of one training run.", ""]
    lines += [f"| dataset | {' | '.join(f'{name} split' for name in read)} |"]
    lines += ["|---|" + "---:|" * len(read)]
    for dataset in summary["downstream"]:
        cells = [_cell(scored, dataset) for scored in read.values()]
        lines.append(f"| {dataset} | {' | '.join(cells)} |")
    totals = [f"{100 * scored['score']:.1f}" for scored in read.values()]
    return [*lines, f"| score | {' | '.join(totals)} |", ""]


def _cell(scored: Mapping[str, Any], dataset: str) -> str:
    low, high = scored["intervals"][dataset]
    return f"{100 * scored['scores'][dataset]:.1f} ({100 * low:.1f} to {100 * high:.1f})"
