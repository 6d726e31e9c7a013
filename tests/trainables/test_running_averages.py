from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainables.config import KeepSettings
from trainables.posthoc_ema import LENGTHS, gamma_of
from trainables.running_averages import RunningAverages
from trainables.storage.folder import Folder

EPOCHS, STEPS_PER_EPOCH = 3, 4


def small_trunk() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def keeping(
    trunk: nn.Module, folder: Path, last: int = 0, ema: float | None = None, posthoc: bool = False
) -> RunningAverages:
    keep = KeepSettings(last=last, ema_decay=ema, posthoc_ema=posthoc)
    return RunningAverages(trunk, keep, epochs=EPOCHS, folder=Folder(str(folder)))


def step_once(trunk: nn.Module, step: int) -> None:
    """Move every weight, and the buffers as training does, by what follows from the step."""
    torch.manual_seed(step)
    trunk(torch.randn(5, 3))
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def trained(trunk: nn.Module, averages: RunningAverages, first: int = 1) -> list[dict[str, Any]]:
    """The state dict after each step from `first` on."""
    states = []
    for step in range(first, EPOCHS * STEPS_PER_EPOCH + 1):
        step_once(trunk, step)
        averages.after_step(step)
        if step % STEPS_PER_EPOCH == 0:
            averages.after_epoch(step // STEPS_PER_EPOCH)
        states.append({name: value.clone() for name, value in trunk.state_dict().items()})
    return states


def published(averages: RunningAverages, folder: Path) -> dict[str, dict[str, Tensor]]:
    """What the artifact would hold; `folder` is where the averages keep theirs."""
    found = {role: load_file(folder / name) for role, name in averages.kept().items()}
    for name, write in averages.write().items():
        content = io.BytesIO()
        write(content)
        found[name.removesuffix(".safetensors")] = load(content.getvalue())
    return found


def test_ema_is_torch_s_own_from_the_first_weights_on(tmp_path: Path) -> None:
    trunk, other = small_trunk(), small_trunk()
    reference = AveragedModel(other, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reference.update_parameters(other)  # the first update copies
    averages = keeping(trunk, tmp_path / "s", ema=0.9)
    trained(trunk, averages)
    for step in range(1, EPOCHS * STEPS_PER_EPOCH + 1):
        step_once(other, step)
        reference.update_parameters(other)
    found = published(averages, tmp_path / "s")
    assert found.keys() == {"ema"}
    for name, parameter in reference.module.named_parameters():
        torch.testing.assert_close(found["ema"][name], parameter.detach())


def test_ema_has_the_buffers_of_the_last_weights(tmp_path: Path) -> None:
    trunk = small_trunk()
    averages = keeping(trunk, tmp_path / "s", ema=0.9)
    last = trained(trunk, averages)[-1]
    found = published(averages, tmp_path / "s")["ema"]
    assert found.keys() == last.keys()
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(found[name], last[name])
    assert not torch.allclose(found["0.weight"], last["0.weight"])


@pytest.mark.parametrize("which", [0, 1])
def test_a_power_function_average_is_the_weighted_sum_over_all_steps(
    which: int, tmp_path: Path
) -> None:
    trunk = small_trunk()
    averages = keeping(trunk, tmp_path / "s", posthoc=True)
    states = trained(trunk, averages)
    found = published(averages, tmp_path / "s")
    roles = {f"power_ema_{i}_{epoch}" for i in (0, 1) for epoch in range(1, EPOCHS + 1)}
    assert found.keys() == roles
    power = gamma_of(LENGTHS[which]) + 1
    for epoch in range(1, EPOCHS + 1):
        steps = STEPS_PER_EPOCH * epoch
        # The profile's integral from s - 1 to s.
        shares = [((s + 1) / steps) ** power - (s / steps) ** power for s in range(steps)]
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            parts = zip(shares, states, strict=False)
            expected = torch.stack([share * state[name].double() for share, state in parts]).sum(0)
            torch.testing.assert_close(found[f"power_ema_{which}_{epoch}"][name], expected.float())


def test_only_the_last_epochs_are_written_and_each_as_it_was(tmp_path: Path) -> None:
    trunk = small_trunk()
    averages = keeping(trunk, tmp_path / "s", last=2)
    states = trained(trunk, averages)
    assert len(list((tmp_path / "s").iterdir())) == 2
    found = published(averages, tmp_path / "s")
    assert found.keys() == {"epoch_2", "epoch_3"}
    for epoch in (2, 3):
        state = states[STEPS_PER_EPOCH * epoch - 1]
        assert found[f"epoch_{epoch}"].keys() == state.keys()
        assert all(torch.equal(found[f"epoch_{epoch}"][name], state[name]) for name in state)


def test_what_is_kept_of_epochs_is_on_disk_and_not_in_the_checkpoint(tmp_path: Path) -> None:
    trunk = small_trunk()
    averages = keeping(trunk, tmp_path / "s", last=3, ema=0.9, posthoc=True)
    trained(trunk, averages)
    assert len(list((tmp_path / "s").iterdir())) == 3 + 2 * 3
    kept = averages.state_dict()["averages"]
    values = sum(tensor.numel() for tensors in kept.values() for tensor in tensors)
    assert values == 3 * sum(parameter.numel() for parameter in trunk.parameters())


def test_one_that_goes_on_from_a_state_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = small_trunk()
    averages = keeping(whole, tmp_path / "whole", last=3, ema=0.9, posthoc=True)
    trained(whole, averages)
    expected = published(averages, tmp_path / "whole")

    cut, middle = small_trunk(), STEPS_PER_EPOCH + 2
    first = keeping(cut, tmp_path / "cut", last=3, ema=0.9, posthoc=True)
    for step in range(1, middle + 1):
        step_once(cut, step)
        first.after_step(step)
        if step == STEPS_PER_EPOCH:
            first.after_epoch(1)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = keeping(cut, tmp_path / "cut", last=3, ema=0.9, posthoc=True)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    trained(cut, second, middle + 1)
    found = published(second, tmp_path / "cut")
    assert found.keys() == expected.keys()
    for role, tensors in expected.items():
        assert all(torch.equal(found[role][name], tensor) for name, tensor in tensors.items()), role


def test_two_that_write_to_one_folder_keep_apart(tmp_path: Path) -> None:
    one, other = small_trunk(), small_trunk()
    first, second = (keeping(trunk, tmp_path / "s", last=1) for trunk in (one, other))
    trained(one, first)
    with torch.no_grad():
        other[0].weight += 1  # type: ignore[index,operator]
    trained(other, second)
    assert torch.equal(published(first, tmp_path / "s")["epoch_3"]["0.weight"], one[0].weight)  # type: ignore[index]
    assert torch.equal(published(second, tmp_path / "s")["epoch_3"]["0.weight"], other[0].weight)  # type: ignore[index]
