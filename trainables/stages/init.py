"""Random weights of the trunk, from a seed."""

from __future__ import annotations

import torch

from trainables.models.trunk import build_trunk
from trainables.settings import parse
from trainables.stage_run import Outcome, StageRun
from trainables.stages.weights import writer
from trainables.training_settings import ClipSettings, ModelSettings


def run_init(run: StageRun) -> Outcome:
    settings = run.stage.settings
    model = parse(ModelSettings, settings["model"], "model")
    clip = parse(ClipSettings, settings["clip"], "clip")
    torch.manual_seed(settings["seed"])
    trunk = build_trunk(model, clip)
    return Outcome(write={"weights.safetensors": writer(trunk.state_dict())}, metrics={})
