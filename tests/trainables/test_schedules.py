from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from tests.toy import OPTIMIZER
from trainables.schedules import check_schedule, decay_start, learning_rate
from trainables.settings import parse
from trainables.training_settings import OptimizerSettings


def settings(**changes: Any) -> OptimizerSettings:
    rates = {"lr_start": 1e-6, "lr_peak": 8e-4, "lr_end": 1e-5, "warmup_fraction": 0.05}
    return parse(OptimizerSettings, {**OPTIMIZER, **rates, **changes}, "optimizer")


def horizon_free(**changes: Any) -> OptimizerSettings:
    own = {"warmup_fraction": None, "warmup_clips": 40, "decay_fraction": 0.2}
    return settings(lr_schedule="constant_then_decay", **{**own, **changes})


@pytest.mark.parametrize("schedule", ["cosine", "cosine_as_released"])
def test_the_learning_rate_is_pytorch_s_linear_warm_up_and_cosine(schedule: str) -> None:
    rates = [learning_rate(step, 200, settings(lr_schedule=schedule)) for step in range(200)]
    begins = {"cosine": 8e-4, "cosine_as_released": 4e-4}[schedule]

    def pytorch_s(rate: float, steps: int, scheduler: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
        schedule, found = scheduler(optimizer), []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    warm_up = pytorch_s(8e-4, 10, lambda o: LinearLR(o, 1e-6 / 8e-4, total_iters=10))
    cosine = pytorch_s(begins, 190, lambda o: CosineAnnealingLR(o, 190, eta_min=1e-5))
    assert rates == pytest.approx(warm_up + cosine)
    assert rates[10] == begins


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, 10, settings(warmup_fraction=0.0)) == 8e-4


def test_constant_then_decay_is_warm_up_constant_and_one_minus_the_root() -> None:
    # Haegele et al. 2024, equation 1: for the last N_decay of N steps, 1 - sqrt of the share done.
    rates = [learning_rate(step, 100, horizon_free()) for step in range(100)]
    warm_up = [1e-6 + (8e-4 - 1e-6) * step / 10 for step in range(10)]  # 40 clips in batches of 4
    decay = [1e-5 + (8e-4 - 1e-5) * (1 - math.sqrt((n - 80) / 20)) for n in range(80, 100)]
    assert rates == pytest.approx(warm_up + [8e-4] * 70 + decay)


@pytest.mark.parametrize("steps", [7, 50, 51, 1000])
def test_before_the_decay_no_rate_depends_on_the_length(steps: int) -> None:
    chosen = horizon_free(warmup_clips=6)
    longer = [learning_rate(step, 2000, chosen) for step in range(decay_start(steps, chosen))]
    assert longer == [learning_rate(step, steps, chosen) for step in range(len(longer))]
    assert len(longer) == steps - round(0.2 * steps)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"lr_schedule": "constant_then_decay"}, "warmup_fraction 0.05"),
        ({"warmup_clips": 40}, "warmup_clips 40"),
        ({"decay_fraction": 0.2}, "decay_fraction 0.2"),
        ({"warmup_fraction": None}, "warmup_fraction None"),
    ],
)
def test_each_schedule_takes_its_own_settings_only(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=f"optimizer: lr_schedule .* takes .*{found}"):
        settings(**changes)


def test_a_warm_up_ends_before_the_decay_begins() -> None:
    check_schedule(100, horizon_free(warmup_clips=4 * 80), "mae")
    with pytest.raises(ValueError, match=r"mae.optimizer.warmup_clips 321 .*320 clips"):
        check_schedule(100, horizon_free(warmup_clips=4 * 80 + 1), "mae")
