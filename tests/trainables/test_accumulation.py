from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.toy import toy_execution, toy_trial
from trainables.data.batch import Batch
from trainables.training_loop import _backward


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Objective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.linear(batch.video.flatten(1)).squeeze(1).square()}


@pytest.mark.parametrize("part", [1, 2, 4])
def test_processes_exchange_gradients_once_a_step_however_many_parts_it_has(
    part: int, process_group: None
) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(Objective())
    exchanged: list[Tensor] = []

    # torch compares annotations with types, which here are texts.
    def counted(_state, bucket):  # type: ignore[no-untyped-def]
        exchanged.append(bucket.buffer().clone())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    model.register_comm_hook(None, counted)
    indices = torch.arange(4)
    frames = torch.randint(256, (4, 1, 2, 2, 3), dtype=torch.uint8)
    scale, erased = torch.tensor([[[127.5] * 3, [60.0] * 3]] * 4), torch.zeros(4, 4).long()
    batch = Batch(frames, scale, erased, indices, indices, indices, indices, [], 0)
    run: Any = SimpleNamespace(
        execution=toy_execution(per_device_batch=part),
        device=torch.device("cpu"),
        beat=lambda: False,
    )
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    _backward(model, batch, run, toy_trial().align.optimizer, scaler)
    assert len(exchanged) == 1
    whole = Objective()
    whole.load_state_dict(model.module.state_dict())
    whole(batch)["loss"].mean().backward()
    found = [parameter.grad for parameter in whole.parameters()]
    gradients = torch.cat([each.flatten() for each in found if each is not None])
    torch.testing.assert_close(exchanged[0].sort().values, gradients.sort().values)
