from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.config import TrialConfig
from trainables.data.catalog import Dataset
from trainables.models.timm_models import import_torchvision
from trainables.models.trunk import build_trunk
from trainables.models.videomae import TRUNK, to_videomae, videomae_config
from trainables.stage_store import StageStore
from trainables.stages.imported import from_huggingface, from_timm
from trainables.stages.weights import trunk_from
from trainables.training_settings import ModelSettings
from trainables.trial import trial_stages

VIDEO = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def imported_trial(format_: str, path: Path, **overrides: object) -> TrialConfig:
    return toy_trial(
        model__vit__tubelet="linear",
        model__vit__positions="imported" if format_ == "timm" else "sincos_1d",
        start={"weights": format_, "path": str(path)},
        mae__epochs=0,
        **overrides,
    )


TRIAL = imported_trial("huggingface", Path("x"))


def toy_tensors() -> dict[str, torch.Tensor]:
    """A toy VideoMAE's, as a file of transformers names them."""
    trunk = to_videomae(trunk_state())
    return {n if n.startswith("fc_norm") else TRUNK + n: t.clone() for n, t in trunk.items()}


def trunk_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_trunk(TRIAL.model, TRIAL.clip).state_dict()


def image_vit(**changes: object) -> nn.Module:
    import_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    size = {"embed_dim": 96, "depth": 4, "num_heads": 4, "mlp_ratio": 3.0}
    return VisionTransformer(**{"img_size": 32, "patch_size": 16, **size, **changes})


def write_folder(folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    written = {**videomae_config(TRIAL.model, TRIAL.clip), **config}
    (folder / "config.json").write_text(json.dumps(written))
    save_file(toy_tensors(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["VideoMAEForVideoClassification", "VideoMAEForPreTraining"])
def test_a_trial_starts_from_what_transformers_saved(
    kind: str, tmp_path: Path, datasets: dict[str, Dataset], store: StageStore
) -> None:
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    config = transformers.VideoMAEConfig(
        **videomae_config(TRIAL.model, TRIAL.clip),
        use_mean_pooling=kind == "VideoMAEForVideoClassification",
    )
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(tmp_path / "saved")
    trial = imported_trial("huggingface", tmp_path / "saved")
    align = trial_stages(trial, datasets).weights
    record = run_chain(align, store, datasets)
    assert record.trained_on["imported_weights"]["humans"] == "unknown"
    start = align.inputs["start"]
    assert start.kind == "import"
    trunk = trunk_from(store.file(start.identity, "weights"), trial.model, trial.clip).eval()
    with torch.inference_mode():
        expected = model.videomae(VIDEO.transpose(1, 2)).last_hidden_state
        found = trunk.encode(trunk.tubelets(VIDEO))
        if kind == "VideoMAEForPreTraining":
            found = trunk.norm(found)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_trial_starts_from_an_image_vit(
    tmp_path: Path, datasets: dict[str, Dataset], store: StageStore
) -> None:
    image = image_vit()
    save_file(image.state_dict(), tmp_path / "image.safetensors")
    align = trial_stages(imported_trial("timm", tmp_path / "image.safetensors"), datasets).weights
    run_chain(align, store, datasets)
    start, trained = weights_of(align.inputs["start"], store), weights_of(align, store)
    torch.testing.assert_close(start["blocks.3.mlp.fc2.weight"], image.blocks[3].mlp.fc2.weight)
    assert torch.equal(start["positions"], trained["positions"])
    assert not torch.equal(start["patch_embed.weight"], trained["patch_embed.weight"])


def test_pickled_weights_and_half_precision_are_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    halves = {name: tensor.half() for name, tensor in toy_tensors().items()}
    torch.save(halves, folder / "pytorch_model.bin")
    found, norm = from_huggingface(folder, TRIAL.model, TRIAL.clip)
    assert norm == "fc_norm"
    for name, tensor in trunk_state().items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-3)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin: cannot be read as weights"):
        from_huggingface(folder, TRIAL.model, TRIAL.clip)


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "saved")
    tensors = load_file(folder / "model.safetensors")
    tensors["videomae.encoder.layer.9.output.dense.bias"] = torch.zeros(96)
    del tensors["videomae.encoder.layer.0.attention.attention.key.weight"]
    tensors["videomae.encoder.layer.1.intermediate.dense.bias"] = torch.zeros(5)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError) as raised:
        from_huggingface(folder, TRIAL.model, TRIAL.clip)
    message = str(raised.value)
    assert "encoder.layer.0.attention.attention.key.weight is missing" in message
    assert "encoder.layer.9.output.dense.bias is not expected" in message
    assert "encoder.layer.1.intermediate.dense.bias is [5], not [288]" in message


def test_a_configuration_of_another_model_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "saved", hidden_size=768, num_frames=16, image_size=[64, 32])
    with pytest.raises(ValueError) as raised:
        from_huggingface(folder, TRIAL.model, TRIAL.clip)
    message = str(raised.value)
    assert "hidden_size is 768, but model.name makes it 96" in message
    assert "num_frames is 16, but clip.frames makes it 4" in message
    assert "image_size is [64, 32], but clip.resolution makes it 32" in message
    assert "patch_size" not in message
    square = write_folder(tmp_path / "square", image_size=[32, 32])
    assert from_huggingface(square, TRIAL.model, TRIAL.clip)


def test_another_kind_of_model_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "saved", model_type="bert")
    with pytest.raises(ValueError, match="model_type is 'bert'; only 'videomae' can be imported"):
        from_huggingface(folder, TRIAL.model, TRIAL.clip)


def test_a_folder_without_configuration_or_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config.json: cannot be read"):
        from_huggingface(tmp_path, TRIAL.model, TRIAL.clip)
    folder = write_folder(tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="neither model.safetensors nor pytorch_model.bin"):
        from_huggingface(folder, TRIAL.model, TRIAL.clip)


def changed_vit(**changes: object) -> ModelSettings:
    assert TRIAL.model.vit is not None
    return TRIAL.model.model_copy(update={"vit": TRIAL.model.vit.model_copy(update=changes)})


@pytest.mark.parametrize("changes", [{"tubelet": "difference"}, {"positions": "sincos_3d"}])
def test_imported_weights_need_the_tubelets_and_positions_they_were_trained_with(
    changes: dict[str, str], tmp_path: Path
) -> None:
    model = changed_vit(**changes)
    with pytest.raises(ValueError, match="need model.vit.positions 'sincos_1d' and tubelet"):
        from_huggingface(write_folder(tmp_path / "saved"), model, TRIAL.clip)
    with pytest.raises(ValueError, match="need model.vit.positions 'imported' and tubelet"):
        from_timm(tmp_path / "image.safetensors", model, TRIAL.clip)


def test_an_image_vit_that_does_not_fit_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    file = tmp_path / "image.safetensors"
    state = image_vit(patch_size=8, reg_tokens=4, no_embed_class=True).state_dict()
    del state["norm.bias"]
    save_file(state, file)
    with pytest.raises(ValueError) as raised:
        from_timm(file, changed_vit(positions="imported"), TRIAL.clip)
    assert "norm.bias is missing" in str(raised.value)
    assert "reg_token is not expected" in str(raised.value)
    assert "patch_embed.weight is [96, 384], not [96, 1536]" in str(raised.value)
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="image.safetensors: cannot be read as weights"):
        from_timm(file, changed_vit(positions="imported"), TRIAL.clip)
