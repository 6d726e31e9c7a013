"""The learning rate, step by step, and where the part begins that depends on a run's length."""

from __future__ import annotations

import math

from trainables.training_settings import OptimizerSettings


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Of step 0 to `steps` - 1: linear from lr_start to lr_peak, then the schedule to lr_end.

    cosine: half a cosine from the end of the warm-up on; `cosine_as_released` begins it with
    lr_peak / 2: PPMA's code scales the peak by its batch size, f = 2, for the warm-up, and once
    more for the cosine.

    constant_then_decay: lr_peak until `decay_start`, then 1 - sqrt(share of the decay that is
    done), from lr_peak to lr_end. Warm-up, constant, short decay is MiniCPM's WSD (Hu et al. 2024);
    that 1 - sqrt beats a linear decay, and that a decay of a tenth to a fifth of the steps reaches
    a cosine of the same length, is found by Haegele et al. 2024, "Scaling Laws and Compute-Optimal
    Training Beyond Fixed Training Durations", section 3 and appendix.
    """
    peak, warmup = settings.lr_peak, warmup_steps(steps, settings)
    if step < warmup:
        return settings.lr_start + (peak - settings.lr_start) * step / warmup
    if settings.lr_schedule == "constant_then_decay":
        begins = decay_start(steps, settings)
        if step < begins:
            return peak
        done = (step - begins) / (steps - begins)
        return settings.lr_end + (peak - settings.lr_end) * (1 - math.sqrt(done))
    if settings.lr_schedule == "cosine_as_released":
        peak /= 2
    progress = (step - warmup) / (steps - warmup)
    return settings.lr_end + (peak - settings.lr_end) * (1 + math.cos(math.pi * progress)) / 2


def warmup_steps(steps: int, settings: OptimizerSettings) -> int:
    """A fraction of the steps, rounded; or whole batches that hold `warmup_clips`."""
    if settings.warmup_clips is not None:
        return -(-settings.warmup_clips // settings.batch_size)
    assert settings.warmup_fraction is not None
    return round(settings.warmup_fraction * steps)


def decay_start(steps: int, settings: OptimizerSettings) -> int:
    """The first step of constant_then_decay's decay: runs of any length are the same before it."""
    assert settings.decay_fraction is not None
    return steps - round(settings.decay_fraction * steps)


def check_schedule(steps: int, settings: OptimizerSettings, where: str) -> None:
    """Raises ValueError where constant_then_decay's warm-up would reach into its decay."""
    if settings.lr_schedule != "constant_then_decay":
        return
    before = decay_start(steps, settings)
    if warmup_steps(steps, settings) > before:
        raise ValueError(
            f"{where}.optimizer.warmup_clips {settings.warmup_clips} is more than the "
            f"{before * settings.batch_size} clips before the decay of a run of {steps} steps; "
            "lower it, lower decay_fraction, or train for more epochs"
        )
