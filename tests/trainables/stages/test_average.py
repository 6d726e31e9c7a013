from __future__ import annotations

import pytest
import torch

from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.data.catalog import Dataset
from trainables.stage_store import StageStore
from trainables.stages.average import interpolate
from trainables.trial import trial_stages

W0 = {"a": torch.tensor([1e-8, 3.0]), "b": torch.tensor([[1.0, 2.0]])}
W1 = {"a": torch.tensor([1e8, 5.0]), "b": torch.tensor([[0.0, -2.0]])}


def test_the_ends_are_the_endpoints_exactly() -> None:
    for coefficient, end in ((0.0, W0), (1.0, W1)):
        found = interpolate(W0, W1, coefficient)
        assert all(torch.equal(found[name], end[name]) for name in end)


def test_between_them_it_is_their_weighted_mean_in_the_endpoints_type() -> None:
    found = interpolate({"a": torch.tensor([1.0]).half()}, {"a": torch.tensor([3.0]).half()}, 0.25)
    assert found["a"].dtype == torch.float16
    assert found["a"].item() == 1.5


def test_it_is_summed_in_float64() -> None:
    first, second = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    exact = ((1 - 1 / 3) * first.double() + 1 / 3 * second.double()).float()
    assert torch.equal(interpolate({"a": first}, {"a": second}, 1 / 3)["a"], exact)


def test_endpoints_that_do_not_match_are_refused_by_name() -> None:
    other = {"a": torch.zeros(3), "c": torch.zeros(1)}
    with pytest.raises(ValueError) as raised:
        interpolate(W0, other, 0.5)
    message = str(raised.value)
    assert "b is missing" in message
    assert "c is not expected" in message
    assert "a is [3], not [2]" in message


def test_an_average_stage_lies_between_the_endpoints_it_was_made_of(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    trial = toy_trial(mae__epochs=0, average__method="interpolate", average__coefficient=0.25)
    average = trial_stages(trial, datasets).weights
    record = run_chain(average, store, datasets)
    w0, w1 = (weights_of(average.inputs[role], store) for role in ("w0", "w1"))
    expected = {name: torch.lerp(w0[name].double(), w1[name].double(), 0.25) for name in w0}
    found = weights_of(average, store)
    assert all(torch.allclose(found[name].double(), expected[name]) for name in expected)
    assert set(record.trained_on) == {"scenes", "synthetic"}
