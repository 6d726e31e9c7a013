"""A trunk's features of one split of a dataset: extracted once, read by every probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.config import TestSettings
from trainables.data.batch import Batch
from trainables.data.catalog import Clip
from trainables.data.loader import eval_batches
from trainables.device import Arrivals
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.average import combined, endpoints_of
from trainables.stages.classification import EVALUATION_BATCH
from trainables.stages.weights import trunk_from, writer
from trainables.training_settings import ClipSettings, ModelSettings


def run_features(run: StageRun) -> Outcome:
    """float16 features [N, V, D] with int64 label [N] and group [N] of the clips that can be read.

    V views a clip. With `coefficients`, a file for each: `features_<i>` of the i-th mean of the
    endpoints w0, w1, ..., all from one decode. A coefficient is a number, for a point between two
    endpoints, or a list of one number an endpoint. Their K sets of weights are held on the device
    together (4 K bytes a parameter: 0.35 GB for each ViT-B), and the features of all in memory
    (2 K N V D bytes).
    """
    settings = run.stage.settings
    clip = parse(ClipSettings, settings["clip"], "clip")
    model = parse(ModelSettings, settings["model"], "model")
    coefficients = settings.get("coefficients")
    first = run.input_file("weights" if coefficients is None else "w0", "weights")
    trunk = trunk_from(first, model, clip).to(run.device).eval()
    if coefficients is None:
        weights, names = [trunk.state_dict()], ["features"]
    else:
        endpoints = endpoints_of(run)
        parts = [c if isinstance(c, list) else [1 - c, c] for c in coefficients]
        weights = [
            {name: tensor.to(run.device) for name, tensor in combined(endpoints, each).items()}
            for each in parts
        ]
        names = [f"features_{index}" for index in range(len(coefficients))]

    clips = split_of(run)
    precision = settings.get("precision", "fp32")
    features, index = over_views(run, features_under(trunk, weights, precision))
    read = {
        "label": torch.tensor([clip.label for clip in clips])[index],
        "group": group_ids(clips)[index],
    }
    left_out = sorted(set(range(len(clips))) - set(index.tolist()))
    return Outcome(
        write={
            f"{name}.safetensors": writer({"features": values, **read})
            for name, values in zip(names, features.unbind(dim=2), strict=True)
        },
        metrics={"clips": len(index), "left_out": [clips[place].path for place in left_out]},
        clips=features.shape[:3].numel(),  # as the model saw them: N V K
    )


def features_under(
    trunk: nn.Module, weights: Sequence[dict[str, Tensor]], precision: str
) -> Callable[[Batch], Tensor]:
    """float16 [B, K, D] of a batch, under each of K sets of weights."""

    def features_of(batch: Batch) -> Tensor:
        video = batch.video
        with in_precision(precision, video.device):
            features = [functional_call(trunk, each, (video,)) for each in weights]
        return torch.stack([each.half() for each in features], dim=1)

    return features_of


def in_precision(precision: str, device: torch.device) -> torch.autocast:
    """Inside, matrix products are in it: fp32 or bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def split_of(run: StageRun) -> tuple[Clip, ...]:
    """The clips that a stage with `dataset` and `split` in its settings reads."""
    dataset = run.datasets[run.stage.settings["dataset"]]
    return tuple(dataset.split(run.stage.settings["split"]))


def over_views(run: StageRun, outputs_of: Callable[[Batch], Tensor]) -> tuple[Tensor, Tensor]:
    """[N, V, ...] on the CPU: outputs [B, ...] of the V views of each clip that can be read.

    With int64 [N], which of `split_of(run)` they are. The views are those in the stage's settings.
    """
    settings = run.stage.settings
    views = parse(TestSettings, settings["views"], "views")
    number = views.clips * views.crops
    arrivals, outputs, index = Arrivals(), list[Tensor](), []
    with torch.inference_mode():
        for batch in eval_batches(
            run.datasets[settings["dataset"]],
            split_of(run),
            parse(ClipSettings, settings["clip"], "clip"),
            views,
            batch_size=max(1, EVALUATION_BATCH // number),
            workers=run.execution.loader_workers,
            video_reader=run.execution.video_reader,
            max_unreadable=settings["max_unreadable"],
            pin_memory=run.device.type == "cuda",
        ):
            outputs += arrivals.send(outputs_of(batch.to(run.device)))
            run.beat()
            index.append(batch.clip)
        outputs += arrivals.last()
    clips = torch.cat(index).unflatten(0, (-1, number))
    assert (clips == clips[:, :1]).all(), "the views of a clip do not stand together"
    return torch.cat(outputs).unflatten(0, (-1, number)), clips[:, 0]


def group_ids(clips: Sequence[Clip]) -> Tensor:
    """int64 [N]: one number a group; a clip whose group is unknown is a group of its own."""
    names = [clip.group or f"\0{index}" for index, clip in enumerate(clips)]
    ids = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([ids[name] for name in names])
