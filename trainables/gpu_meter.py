"""How busy a GPU is: nvidia-smi asked every few seconds, where it is there."""

from __future__ import annotations

import subprocess
import threading
from statistics import mean

import torch

SAMPLE_SECONDS = 10.0


class GpuMeter:
    """A context manager; inside, a thread samples the utilisation of `device`.

    nvidia-smi's is the part of its last sampling period (a second at most) in which any kernel
    ran: a GPU that is 100 % busy may still be used badly.
    """

    def __init__(self, device: torch.device) -> None:
        self._samples: list[float] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if device.type == "cuda":
            # By its UUID: CUDA numbers the devices that it may see, nvidia-smi all of them.
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._thread = threading.Thread(
                target=self._run, args=(uuid,), name="gpu-meter", daemon=True
            )

    def __enter__(self) -> GpuMeter:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def since_last(self) -> float | None:
        """The mean since this was last asked, 0 to 1; None: not known."""
        samples, self._samples = self._samples, []
        return mean(samples) if samples else None

    def _run(self, uuid: str) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            sample = utilisation(uuid)
            if sample is None:  # no nvidia-smi, or it cannot say (a part of a GPU)
                return
            self._samples.append(sample)


def utilisation(uuid: str) -> float | None:
    """Of the GPU with this UUID, 0 to 1; None where nvidia-smi cannot say."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [*query, f"--id={uuid}"], capture_output=True, text=True, timeout=SAMPLE_SECONDS
        )
        return float(done.stdout) / 100
    except (OSError, subprocess.TimeoutExpired, ValueError):  # ValueError: "[N/A]", an error
        return None
