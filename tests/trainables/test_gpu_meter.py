"""With a stand-in for nvidia-smi, as no GPU is needed to test."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain
from trainables import gpu_meter
from trainables.data.catalog import Dataset
from trainables.gpu_meter import GpuMeter
from trainables.stage_store import StageStore
from trainables.trial import trial_stages

UUID = "6b2b5a6e-0000-4c4d-9d0c-3a2d8f0f9a11"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that knows one GPU and says what the file returned here holds."""
    says = tmp_path / "says"
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    answer = f'case "$*" in *--id=GPU-{UUID}*) cat {says};; *) echo No devices;; esac'
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    properties = SimpleNamespace(uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(gpu_meter, "SAMPLE_SECONDS", 0.05)
    return says


def wait_for_samples(meter: GpuMeter, least: int = 1) -> None:
    end = time.monotonic() + 20
    while len(meter._samples) < least:
        assert time.monotonic() < end, "no sample came"
        time.sleep(0.01)


def test_the_mean_is_over_what_was_seen_since_it_was_last_asked(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("20\n")
    with GpuMeter(torch.device("cuda", 0)) as meter:
        wait_for_samples(meter, 2)
        assert meter.since_last() == pytest.approx(0.2)
        nvidia_smi.write_text("90\n")
        time.sleep(0.5)  # one that was on its way may still be of before
        meter.since_last()
        wait_for_samples(meter)
        assert meter.since_last() == pytest.approx(0.9)


@pytest.mark.parametrize("said", ["[N/A]", "", "No devices were found"])
def test_where_nvidia_smi_cannot_say_nothing_is_claimed(nvidia_smi: Path, said: str) -> None:
    nvidia_smi.write_text(said)
    assert gpu_meter.utilisation(f"GPU-{UUID}") is None
    with GpuMeter(torch.device("cuda", 0)) as meter:
        assert meter._thread is not None
        meter._thread.join(20)
        assert not meter._thread.is_alive()
        assert meter.since_last() is None


def test_without_nvidia_smi_or_a_gpu_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_meter.utilisation(f"GPU-{UUID}") is None
    with GpuMeter(torch.device("cpu")) as meter:
        assert meter.since_last() is None


def test_each_epochs_point_says_how_busy_the_gpu_was_where_that_is_known(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = trial_stages(toy_trial(mae__epochs=0), datasets).weights
    answers = iter([0.5, None])
    monkeypatch.setattr(GpuMeter, "since_last", lambda meter: next(answers))
    store = StageStore(tmp_path)
    run_chain(stage, store, datasets)
    first, second = store.progress(stage.identity)
    assert first["gpu_utilisation"] == 0.5
    assert "gpu_utilisation" not in second
