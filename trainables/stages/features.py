"""A trunk's features of one split of a dataset: extracted once, read by every probe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.data.catalog import Clip
from trainables.data.loader import eval_batches
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.classification import EVALUATION_BATCH, ONE_VIEW
from trainables.stages.weights import trunk_from, writer
from trainables.training_settings import ClipSettings, ModelSettings


def run_features(run: StageRun) -> Outcome:
    """float16 features [N, D] with int64 label [N] and group [N] of the clips that can be read."""
    settings = run.stage.settings
    clip = parse(ClipSettings, settings["clip"], "clip")
    model = parse(ModelSettings, settings["model"], "model")
    trunk = trunk_from(run.input_file("weights", "weights"), model, clip).to(run.device).eval()
    dataset = run.datasets[settings["dataset"]]
    clips = dataset.split(settings["split"])
    features, read = [], []
    with torch.inference_mode():
        for batch in eval_batches(
            dataset,
            clips,
            clip,
            ONE_VIEW,
            batch_size=EVALUATION_BATCH,
            workers=run.execution.loader_workers,
            max_unreadable=settings["max_unreadable"],
        ):
            features.append(trunk(batch.video.to(run.device)).half().cpu())
            read.append(batch.clip)
    index = torch.cat(read)
    left_out = set(range(len(clips))) - set(index.tolist())
    tensors = {
        "features": torch.cat(features),
        "label": torch.tensor([clip.label for clip in clips])[index],
        "group": group_ids(clips)[index],
    }
    return Outcome(
        write={"features.safetensors": writer(tensors)},
        metrics={
            "clips": len(index),
            "left_out": [clips[place].path for place in sorted(left_out)],
        },
        clips=len(index),
    )


def group_ids(clips: Sequence[Clip]) -> Tensor:
    """int64 [N]: one number a group; a clip whose group is unknown is a group of its own."""
    names = [clip.group or f"\0{index}" for index, clip in enumerate(clips)]
    ids = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([ids[name] for name in names])
