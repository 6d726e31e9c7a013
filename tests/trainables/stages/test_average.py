from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.data.catalog import Dataset
from trainables.stage_store import StageStore
from trainables.stages.average import interpolate, model_stock, model_stock_ratio, uniform
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


def test_the_uniform_average_is_the_mean_of_all_endpoints() -> None:
    draw = torch.Generator().manual_seed(0)
    endpoints = [{"a": torch.randn(7, 5, generator=draw)} for _ in range(3)]
    mean = torch.stack([endpoint["a"].double() for endpoint in endpoints]).mean(dim=0)
    assert torch.equal(uniform(endpoints)["a"], mean.float())
    assert torch.equal(uniform([endpoints[0]] * 3)["a"], endpoints[0]["a"])


def test_batches_that_were_counted_are_the_first_endpoint_s() -> None:
    nets = [nn.BatchNorm3d(2) for _ in range(2)]
    for seed, net in enumerate(nets):
        for _ in range(2 + seed):
            net(torch.randn(4, 2, 2, 3, 3, generator=torch.Generator().manual_seed(seed)))
    first, second = (net.state_dict() for net in nets)
    base = nn.BatchNorm3d(2).state_dict()
    for found in (
        uniform([first, second]),
        interpolate(first, second, 0.75),
        model_stock(base, [first, second])[0],
    ):
        nn.BatchNorm3d(2).load_state_dict(found)
        assert found["num_batches_tracked"].dtype == torch.int64
        assert found["num_batches_tracked"] == 2
    assert torch.allclose(
        uniform([first, second])["running_var"], (first["running_var"] + second["running_var"]) / 2
    )


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_model_stock_is_the_point_of_the_endpoints_plane_that_is_nearest_to_their_centre(
    count: int, spread: float
) -> None:
    # The picture of Jang et al.: around a centre (here 0) endpoints lie equally far, at right
    # angles to each other and to the base. The foot of the perpendicular from the centre on the
    # plane through base and endpoints, by least squares:
    axes = torch.eye(count + 1, dtype=torch.float64)
    base, endpoints = axes[0], [spread * axis for axis in axes[1:]]
    plane = torch.stack([endpoint - base for endpoint in endpoints], dim=1)
    foot = base + plane @ torch.linalg.lstsq(plane, -base.unsqueeze(1)).solution.squeeze(1)
    weights, _ = model_stock({"a": base}, [{"a": endpoint} for endpoint in endpoints])
    torch.testing.assert_close(weights["a"], foot)


def test_model_stock_of_two_endpoints_has_the_published_ratio() -> None:
    # 60 degrees: t = 2 cos / (1 + cos) = 2/3.
    deltas = [torch.tensor([2.0, 0.0]), torch.tensor([0.5, math.sqrt(3) / 2])]
    assert model_stock_ratio([delta.double() for delta in deltas]) == pytest.approx(2 / 3)


def test_model_stock_takes_each_tensor_by_itself() -> None:
    base = {"same": torch.ones(2), "across": torch.ones(2), "mid": torch.zeros(2)}
    endpoints = [
        {"same": tensor, "across": 1 + across, "mid": mid}
        for tensor, across, mid in (
            (torch.tensor([3.0, 2.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])),
            (torch.tensor([3.0, 2.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])),
        )
    ]
    weights, ratios = model_stock(base, endpoints)
    assert ratios["same"] == pytest.approx(1)
    assert torch.equal(weights["same"], torch.tensor([3.0, 2.0]))
    assert torch.equal(weights["across"], base["across"])  # they agree in nothing: t = 0
    t = 2 * math.sqrt(0.5) / (1 + math.sqrt(0.5))
    assert ratios["mid"] == pytest.approx(t)
    assert torch.allclose(weights["mid"], t * torch.tensor([1.0, 0.5]))


def test_endpoints_that_point_away_from_each_other_leave_model_stock_at_the_base() -> None:
    base = {"a": torch.tensor([1.0, 1.0])}
    ends = [{"a": torch.tensor([2.0, 1.0])}, {"a": torch.tensor([-1.0, 1.5])}]
    weights, ratios = model_stock(base, ends)
    assert ratios == {"a": 0.0}
    assert torch.equal(weights["a"], base["a"])


def test_model_stock_of_endpoints_that_did_not_move_is_the_base() -> None:
    base = {"a": torch.tensor([0.1, 0.2])}
    assert torch.equal(model_stock(base, [base, base])[0]["a"], base["a"])
    # One that did not move agrees with nobody: of three, the other two still pull.
    moved = {"a": torch.tensor([1.1, 0.2])}
    cosine = 1 / 3
    assert model_stock(base, [moved, moved, base])[1]["a"] == pytest.approx(
        3 * cosine / (2 * cosine + 1)
    )


def test_model_stock_refuses_an_endpoint_of_another_architecture() -> None:
    other: dict[str, Tensor] = {"a": torch.zeros(2), "b": torch.zeros(1, 3)}
    with pytest.raises(ValueError, match=r"endpoint w1 does not fit the base: b is \[1, 3\]"):
        model_stock(W0, [W1, other])
    with pytest.raises(ValueError, match=r"endpoint w2 cannot be averaged with w0: b is \[1, 3\]"):
        uniform([W0, W1, other])


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
