from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.func import functional_call

from tests.toy import toy_execution, toy_trial
from tests.trainables.stages.test_run import FINETUNE
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.checkpoint import load_checkpoint
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.models.heads import Classifier, label_space
from trainables.models.video_vit import VideoViT
from trainables.optimization import parameter_groups
from trainables.stage import Stage
from trainables.stage_run import StageStopped
from trainables.stage_store import StageStore
from trainables.stages.average import uniform
from trainables.stages.learned_average import AveragedTrunk
from trainables.stages.run import run_stage
from trainables.training_settings import OptimizerSettings
from trainables.trial import trial_stages

EAGER = {
    **FINETUNE,
    "label_smoothing": 0.0,  # with it, a head that is too sure wants its features smaller
    "optimizer": {**FINETUNE["optimizer"], "lr_peak": 0.05},
}


def learned_trial(learned: str = "global", epochs: int = 1) -> TrialConfig:
    return toy_trial(
        mae__epochs=0,
        align__epochs=1,
        average__method="learned",
        average__learned=learned,
        augmented_probe={**EAGER, "epochs": epochs},
    )


def learned_stage(datasets: dict[str, Dataset], learned: str, epochs: int = 1) -> Stage:
    return trial_stages(learned_trial(learned, epochs), datasets).adapted["low"]


def finished(store: StageStore, stage: Stage, weights: dict[str, Tensor]) -> None:
    """Put `weights` in the store as what `stage` came to."""
    write = {"weights.safetensors": lambda file: file.write(save(weights))}
    store.publish(stage, write=write, metrics={}, cost={})


def learned_metrics(
    stage: Stage, store: StageStore, datasets: dict[str, Dataset]
) -> dict[str, float]:
    run_stage(stage, store, datasets, toy_execution(), lambda: False)
    record = store.record(stage.identity)
    assert record is not None
    return record.metrics


def trunks(count: int) -> list[VideoViT]:
    trial = toy_trial()
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(VideoViT(trial.model, trial.clip))
    return found


VIDEO = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("learned", ["global", "per_tensor"])
def test_it_starts_as_the_uniform_average_of_the_endpoints(learned: Any) -> None:
    nets = trunks(3)
    endpoints = [net.state_dict() for net in nets]
    averaged = AveragedTrunk(trunks(1)[0], endpoints, learned)
    mean = uniform(endpoints)
    torch.testing.assert_close(averaged.weights(), mean)
    expected = functional_call(trunks(1)[0].eval(), mean, (VIDEO,))
    torch.testing.assert_close(averaged(VIDEO), expected)


def test_with_one_m_a_tensor_each_tensor_follows_its_own() -> None:
    endpoints = [net.state_dict() for net in trunks(2)]
    averaged = AveragedTrunk(trunks(1)[0], endpoints, "per_tensor")
    names = [name for name, _ in trunks(1)[0].named_parameters()]
    assert averaged.m.shape == (2 * len(names),)
    with torch.no_grad():
        averaged.m[2 * names.index("norm.bias") + 1] = 50.0
        averaged.m[2 * names.index("blocks.1.mlp.fc1.weight")] = 50.0
    weights, mean = averaged.weights(), uniform(endpoints)
    for name in names:
        expected = {"norm.bias": endpoints[1], "blocks.1.mlp.fc1.weight": endpoints[0]}
        torch.testing.assert_close(weights[name], expected.get(name, mean)[name])
    expected_feature = functional_call(trunks(1)[0].eval(), weights, (VIDEO,))
    torch.testing.assert_close(averaged(VIDEO), expected_feature)


def test_the_gradient_of_m_is_the_closed_form_of_softmax_and_sum() -> None:
    endpoints = [net.state_dict() for net in trunks(2)]
    averaged = AveragedTrunk(trunks(1)[0], endpoints, "global")
    averaged(VIDEO).square().sum().backward()
    # d loss / d m_k = a_k (g_k - sum_j a_j g_j), with g_k the sum over tensors of <dW, W_k>.
    mean = {name: t.requires_grad_() for name, t in uniform(endpoints).items()}
    functional_call(trunks(1)[0].eval(), mean, (VIDEO,)).square().sum().backward()
    g = [
        sum((t.grad * end[name]).sum() for name, t in mean.items() if t.grad is not None)
        for end in endpoints
    ]
    expected = torch.stack([0.5 * (g_k - 0.5 * (g[0] + g[1])) for g_k in g])
    assert averaged.m.grad is not None
    torch.testing.assert_close(averaged.m.grad, expected, rtol=1e-3, atol=1e-3)


def test_m_trains_at_the_head_s_rate_and_without_weight_decay() -> None:
    settings = {**EAGER["optimizer"], "layer_decay": 0.5, "weight_decay": 0.1}
    optimizer = OptimizerSettings.model_validate(settings)
    for learned in ("global", "per_tensor"):
        averaged = AveragedTrunk(trunks(1)[0], [trunks(1)[0].state_dict()] * 2, learned)
        model = Classifier(cast(VideoViT, averaged), label_space({"low": ("a", "b")}, "union"))
        groups = parameter_groups(model, 4, optimizer)
        trained = [parameter for group in groups for parameter in group["params"]]
        assert {id(p) for p in trained} == {
            id(p) for p in (averaged.m, model.head.weight, model.head.bias)
        }
        (of_m,) = [g for g in groups if any(p is averaged.m for p in g["params"])]
        assert of_m["weight_decay"] == 0
        assert {group["lr_scale"] for group in groups} == {of_m["lr_scale"]}


class ConvNet(nn.Module):
    width = 3

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm = nn.Conv3d(3, 3, 1), nn.BatchNorm3d(3)
        self.norm(torch.randn(4, 3, 4, 8, 8) * (1 + seed))  # its statistics move

    def forward(self, video: Tensor) -> Tensor:
        return self.norm(self.conv(video)).mean(dim=(2, 3, 4))


@pytest.mark.parametrize("learned", ["global", "per_tensor"])
def test_the_statistics_of_a_batch_norm_follow_the_coefficients(learned: Any) -> None:
    nets = [ConvNet(0), ConvNet(1)]
    endpoints = [net.state_dict() for net in nets]
    averaged = AveragedTrunk(ConvNet(2), endpoints, learned)
    with torch.no_grad():
        averaged.m.copy_(torch.arange(float(len(averaged.m))).square())
    share, rest = averaged.m.detach().view(-1, 2).softmax(dim=1).mean(dim=0).tolist()
    assert share != pytest.approx(rest)
    averaged.train()
    averaged(VIDEO).sum().backward()
    assert averaged.m.grad is not None
    assert averaged.m.grad.count_nonzero() > 0
    found = averaged.weights()
    for name in ("running_mean", "running_var"):
        expected = share * endpoints[0][f"norm.{name}"] + rest * endpoints[1][f"norm.{name}"]
        torch.testing.assert_close(found[f"norm.{name}"], expected)
    assert found["norm.num_batches_tracked"] == 1
    expected = functional_call(ConvNet(2).eval(), found, (VIDEO,))
    torch.testing.assert_close(averaged(VIDEO), expected)


def test_endpoints_of_another_architecture_are_refused() -> None:
    with pytest.raises(ValueError, match="endpoint w1 does not fit: patch_embed.weight is missing"):
        AveragedTrunk(trunks(1)[0], [trunks(1)[0].state_dict(), ConvNet(0).state_dict()], "global")


BLIND = {"norm.weight": torch.zeros(96), "norm.bias": torch.zeros(96)}  # one feature for all clips


@pytest.fixture(scope="module")
def tuned(
    datasets: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Tensor]:
    """A trunk that was fine-tuned on the downstream clips until it told them apart."""
    trial = toy_trial(mae__epochs=0, align__epochs=0, finetune={**FINETUNE, "epochs": 30})
    stage = trial_stages(trial, datasets).results["finetune"]["low"].inputs["model"]
    store = StageStore(tmp_path_factory.mktemp("tuned"))
    assert run_chain(stage, store, datasets).metrics["train_accuracy"] > 0.9
    model = load_file(store.file(stage.identity, "model"))
    return {n.removeprefix("trunk."): t for n, t in model.items() if n.startswith("trunk.")}


@pytest.mark.parametrize("learned", ["global", "per_tensor"])
@pytest.mark.parametrize("good", ["w0", "w1"])
def test_the_coefficient_of_the_endpoint_that_sees_more_grows(
    learned: str,
    good: str,
    tuned: dict[str, Tensor],
    datasets: dict[str, Dataset],
    store: StageStore,
) -> None:
    stage = learned_stage(datasets, learned, epochs=8)
    for role, endpoint in stage.inputs.items():
        finished(store, endpoint, tuned if role == good else tuned | BLIND)
    metrics = learned_metrics(stage, store, datasets)
    found = weights_of(stage, store)
    kept = (found["norm.weight"] / tuned["norm.weight"]).mean().item()
    assert kept > 0.58
    if learned == "global":
        assert metrics[f"coefficient/{good}"] == pytest.approx(kept)
        assert metrics["coefficient/w0"] + metrics["coefficient/w1"] == pytest.approx(1)
    else:  # in all other tensors the two are one, and nothing speaks for either
        assert metrics[f"coefficient_max/{good}"] == pytest.approx(kept, abs=0.05)
        assert metrics[f"coefficient_min/{good}"] == 0.5
        assert 0.5 < metrics[f"coefficient/{good}"] < kept
    assert all(torch.equal(found[name], tuned[name]) for name in tuned.keys() - BLIND.keys())
    points = store.progress(stage.identity)
    assert [point[f"coefficient/{good}"] for point in points][-1] == metrics[f"coefficient/{good}"]


@pytest.mark.parametrize("learned", ["global", "per_tensor"])
def test_two_equal_endpoints_stay_at_one_half_exactly(
    learned: str, datasets: dict[str, Dataset], store: StageStore
) -> None:
    sees = trunks(1)[0].state_dict()
    stage = learned_stage(datasets, learned)
    for endpoint in stage.inputs.values():
        finished(store, endpoint, sees)
    metrics = learned_metrics(stage, store, datasets)
    assert {value for name, value in metrics.items() if "coefficient" in name} == {0.5}
    found = weights_of(stage, store)
    assert all(torch.equal(found[name], sees[name]) for name in sees)


@pytest.mark.parametrize("learned", ["global", "per_tensor"])
def test_a_run_that_was_stopped_ends_with_the_same_coefficients(
    learned: str, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    stage = learned_stage(datasets, learned)
    whole, cut = StageStore(tmp_path / "whole"), StageStore(tmp_path / "cut")
    record = run_chain(stage, whole, datasets)
    with pytest.raises(StageStopped):
        run_chain(stage, cut, datasets, lambda: True, checkpoint_every_steps=1)
    state = load_checkpoint(cut.checkpoint(stage.identity))
    assert state is not None
    assert {name.rpartition(".")[2] for name in state["objective"]} == {"m", "weight", "bias"}
    assert sum(tensor.numel() for tensor in state["objective"].values()) < 1000
    assert run_chain(stage, cut, datasets).metrics == record.metrics
    found, expected = weights_of(stage, cut), weights_of(stage, whole)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_trial_whose_average_is_learned_runs_to_its_score(
    datasets: dict[str, Dataset], store: StageStore
) -> None:
    trial = learned_trial()
    parts = trial_stages(trial, datasets)
    for stage in parts.all():
        run_stage(stage, store, datasets, toy_execution(), lambda: False)
    adapted = parts.adapted["low"]
    record = store.record(adapted.identity)
    assert record is not None
    assert set(record.trained_on) == {"scenes", "synthetic", "low"}
    assert record.cost["clips"] == 8
    for kind in ("probe", "augmented_probe"):
        scored = store.record(parts.results[kind]["low"].identity)
        assert scored is not None
        assert 0 <= scored.metrics["accuracy"] <= 1
    # What is recommended is the uniform start; what is scored are the dataset's own weights.
    w0, w1 = (weights_of(adapted.inputs[role], store) for role in ("w0", "w1"))
    coefficient = record.metrics["coefficient/w1"]
    assert coefficient != 0.5
    found = weights_of(adapted, store)
    torch.testing.assert_close(
        found, {name: torch.lerp(w0[name], w1[name], coefficient) for name in w0}
    )
