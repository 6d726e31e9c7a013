"""Scene bias: how well a model that sees single frames tells the classes apart, over chance.

log2(accuracy x classes), in bits (SynAPT): 0 is chance, log2(classes) all. Logistic regression on
features of frames, each clip scored by a model that was fit to other groups. No report split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from trainables.bias import clips_for_bias, group_of
from trainables.bootstrap import bootstrap_interval
from trainables.data.catalog import Clip
from trainables.data.single_frames import LEAST_WINDOW, SingleFrames, window_side
from trainables.data.splits import folds_by_group
from trainables.data.video_files import ClipUnreadable
from trainables.data.views import check_unreadable
from trainables.logistic_regression import LogisticRegression, fit
from trainables.metrics import in_top
from trainables.models.image_features import image_features
from trainables.stage_run import Outcome, StageRun

BATCH = 64  # frames that go through the image model at once
Found = TypeVar("Found")
Frames = Sequence[np.ndarray]  # of one clip, each uint8 [H, W, 3]


def run_bias(run: StageRun) -> Outcome:
    """Metrics: bias and its 90 % interval over groups, in bits; accuracy; what it was made of.

    Raises:
        ValueError: too many clips (or their masks) cannot be read, or none can; people leave no
            room for a window; a feature is no finite number.
    """
    settings = run.stage.settings
    dataset, resolution = run.datasets[settings["dataset"]], settings["clip"]["resolution"]
    clips = clips_for_bias(dataset, settings["clips"])
    frames = SingleFrames(
        dataset=dataset,
        frames=settings["clip"]["frames"],
        video_reader=run.execution.video_reader,
    )
    show: Callable[[Clip], Frames | None] = partial(frames.whole, short_side=resolution)
    window = {}
    if settings["view"] == "people_masked":
        side = _side_of_windows(run, clips, frames)
        show = partial(frames.windows, side=side, resolution=resolution)
        window = {"window": side}
    kept, features = _features(run, clips, show)
    label = torch.tensor([clip.label for clip in kept]).unique(return_inverse=True)[1]
    groups = [group_of(clip) for clip in kept]
    correct = _held_out(run, features, label, groups)
    return Outcome(
        write={},
        metrics={
            **_measured(correct, label, groups),
            "left_out": len(clips) - len(kept),
            **window,
        },
        clips=len(kept),
    )


def _measured(correct: Tensor, label: Tensor, groups: Sequence[str]) -> dict[str, float]:
    count, classes = len(label), int(label.max()) + 1

    def bits(accuracy: float) -> float:  # no clip right counts as half a clip
        return math.log2(max(accuracy, 0.5 / count) * classes)

    accuracy = correct.double().mean().item()
    group = np.unique(groups, return_inverse=True)[1]
    low, high = bootstrap_interval(correct.numpy(), group)
    return {
        "bias": bits(accuracy),
        "interval_low": bits(low),
        "interval_high": bits(high),
        "most_bits": math.log2(classes),
        # What calling every clip by the name of the largest class gives; 0 where all are alike.
        "largest_class_bits": bits(label.bincount().max().item() / count),
        "accuracy": accuracy,
        "classes": classes,
        "groups": int(group.max()) + 1,
        "clips": count,
    }


def _side_of_windows(run: StageRun, clips: Sequence[Clip], frames: SingleFrames) -> float:
    """Of the frame's short side, 0 to 1."""
    resolution, dataset = run.stage.settings["clip"]["resolution"], frames.dataset.name
    read = partial(frames.free_sides, short_side=resolution)
    side = window_side([each for _, sides in _readable(run, clips, read) for each in sides])
    if side * resolution < LEAST_WINDOW:
        raise ValueError(
            f"{dataset!r}: people leave no room for a window of {LEAST_WINDOW} pixels at "
            f"resolution {resolution} in one frame of twenty, so that no scene can be seen without "
            "them; leave `masks` out of its catalog entry, or raise bias.resolution"
        )
    return side


def _readable(
    run: StageRun, clips: Sequence[Clip], read: Callable[[Clip], Found]
) -> Iterator[tuple[Clip, Found]]:
    """What `read` gives of each clip that can be read.

    Raises:
        ValueError: too many cannot, or none can.
    """
    settings = run.stage.settings
    name, unreadable = settings["dataset"], list[tuple[str, str]]()
    for clip in clips:
        run.beat()
        try:
            found = read(clip)
        except ClipUnreadable as error:
            unreadable.append((name, str(error)))
            check_unreadable(unreadable, {name: len(clips)}, settings["max_unreadable"])
        else:
            yield clip, found
    if len(unreadable) == len(clips):
        raise ValueError(
            f"{name!r}: none of its {len(clips)} clips can be read, for example "
            f"{unreadable[0][1]}; mend them, or correct `root` and `masks` in its catalog entry"
        )


def _features(
    run: StageRun, clips: Sequence[Clip], show: Callable[[Clip], Frames | None]
) -> tuple[list[Clip], Tensor]:
    """The clips of which something can be shown, and float32 [N, F, D] on the stage's device."""
    settings = run.stage.settings
    file, resolution = run.stage.where.get("weights"), settings["clip"]["resolution"]
    model = image_features(
        settings["model"]["name"], None if file is None else Path(file), resolution, run.device
    )
    kept, waiting, found = list[Clip](), list[np.ndarray](), list[Tensor]()

    def look() -> None:
        frames = torch.from_numpy(np.stack(waiting)).to(run.device)
        with torch.inference_mode():
            found.append(model(frames.permute(0, 3, 1, 2).float() / 255))
        waiting.clear()

    for clip, frames in _readable(run, clips, show):
        if frames is None:
            continue
        kept.append(clip)
        waiting += [_square(frame, resolution) for frame in frames]
        if len(waiting) >= BATCH:
            look()
    if waiting:
        look()
    if not kept:
        raise ValueError(
            f"{settings['dataset']!r}: no clip has room for a window with nobody in it; leave "
            "`masks` out of its catalog entry, or raise bias.resolution"
        )
    features = torch.cat(found).unflatten(0, (len(kept), -1))
    if not features.isfinite().all():
        wrong = kept[int((~features.isfinite()).flatten(1).any(dim=1).nonzero()[0])].path
        raise ValueError(
            f"{settings['dataset']!r}: {settings['model']['name']} gives a feature of {wrong} that "
            "is no finite number; give bias.weights of a model that does"
        )
    return kept, features


def _square(frame: np.ndarray, resolution: int) -> np.ndarray:
    shrinks = min(frame.shape[:2]) >= resolution
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame, (resolution, resolution), interpolation=how)


def _held_out(run: StageRun, features: Tensor, label: Tensor, groups: Sequence[str]) -> Tensor:
    """bool [N]: whether each clip is told by a model that saw no clip of its group.

    One fold is scored, the next chooses the penalty, the others are fit to, in turn. How often a
    class is among these is taken out again: what is frequent there is rare where it is scored, so
    that features which say nothing would come out below chance.
    """
    settings, classes, frames = run.stage.settings, int(label.max()) + 1, features.shape[1]
    folds = settings["folds"]
    fold = torch.tensor(folds_by_group(groups, label.tolist(), folds, settings["dataset"]))
    correct = torch.zeros(len(label), dtype=torch.bool)
    for scored in range(folds):
        chooses = (scored + 1) % folds
        fit_to = (fold != scored) & (fold != chooses)
        frequency = label[fit_to].bincount(minlength=classes).clamp(min=1).double().log()
        fits = fit(
            features[fit_to].flatten(0, 1),  # each frame by itself
            label[fit_to].repeat_interleave(frames).to(features.device),
            settings["l2_grid"],
            classes,
            run.beat,
        )

        def told(probe: LogisticRegression, clips: Tensor, frequency: Tensor = frequency) -> Tensor:
            logits = probe.logits(features[clips]).mean(dim=1).cpu() - frequency
            return in_top(logits, label[clips], 1)

        best = max(fits, key=lambda probe: told(probe, fold == chooses).double().mean().item())
        correct[fold == scored] = told(best, fold == scored)
    return correct
