from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sweeps.export import export, main, why_not_videomae
from sweeps.reporting.summary import WEIGHTS_FILE
from tests.toy import toy_trial
from tests.trainables.data.videos import as_seen
from trainables.config import TrialConfig
from trainables.data.augment import square_crops
from trainables.models.timm_models import import_torchvision
from trainables.models.trunk import Trunk, build_trunk

ROOT = Path(__file__).resolve().parents[2]
VIDEO = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
EXPRESSIBLE: dict[str, Any] = {"clip__normalize": "imagenet"}  # the toy's positions are 1d


def finished_sweep(folder: Path, trial: TrialConfig, **summary: Any) -> Trunk:
    """A sweep's summary and the weights it recommends, made by hand."""
    folder.mkdir(exist_ok=True)
    trunk = build_trunk(trial.model, trial.clip).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in trunk.parameters():
        parameter.data.normal_(0.0, 0.1, generator=generator)
    config = trial.model_dump(mode="json")
    scored = {"score": 0.5, "scores": {"low": 0.5}, "intervals": {"low": [0.4, 0.6]}}
    best = {
        "trial": 3,
        "name": "0.25 synthetic",
        "config": config,
        "score": 0.5,
        "scores": {"low": 0.5},
        "report": {"score": 0.25, "scores": {"low": 0.25}, "intervals": {"low": [0.1, 0.4]}},
        "weights": {"stage": "abc", "file": WEIGHTS_FILE},
        "trained_on": {
            "scenes": {"content_hash": "5ce7e5", "humans": "removed"},
            "synthetic": {"content_hash": "5e7e71c", "humans": "virtual"},
        },
    }
    content = {
        "sweep": "toy",
        "question": "Does it work?",
        "downstream": ["low"],
        "recommended": best,
        "trials": [{"number": 1}, {"number": 3, **scored}],
        "allow_real_humans": False,
        "data": {"low": "10e", "scenes": "5ce7e5", "synthetic": "5e7e71c"},
        "licences": {"scenes": "CC BY 4.0"},
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(content))
    metadata = {"stage": "abc", "config": json.dumps(config)}
    save_file(trunk.state_dict(), folder / WEIGHTS_FILE, metadata)
    return trunk


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.S)


@pytest.mark.parametrize("tubelet", ["linear", "difference"])
def test_what_is_written_gives_our_features_in_transformers_and_here(
    tubelet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_torchvision()
    pytest.importorskip("transformers")
    trial = toy_trial(**EXPRESSIBLE, model__vit__tubelet=tubelet)
    trunk = finished_sweep(tmp_path / "toy", trial)
    assert export(tmp_path / "toy", tmp_path / "out") is None
    code = snippets((tmp_path / "out" / "README.md").read_text())
    assert ["transformers" in part for part in code] == [True, False]
    monkeypatch.chdir(tmp_path / "out")
    with torch.inference_mode():
        for part in code:  # as the model card tells its reader
            names: dict[str, Any] = {"video": VIDEO}
            exec(part, names)
            torch.testing.assert_close(names["feature"], trunk(VIDEO), rtol=1e-5, atol=1e-5)


def test_transformers_finds_every_tensor_but_the_classifier(tmp_path: Path) -> None:
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    finished_sweep(tmp_path / "toy", toy_trial(**EXPRESSIBLE))
    export(tmp_path / "toy", tmp_path / "out")
    _, found = transformers.VideoMAEForVideoClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert set(found["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not found["unexpected_keys"] and not found["mismatched_keys"]


def test_its_preprocessing_is_the_one_of_our_evaluation(tmp_path: Path) -> None:
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    finished_sweep(tmp_path / "toy", toy_trial(**EXPRESSIBLE))
    export(tmp_path / "toy", tmp_path / "out")
    processor = transformers.VideoMAEImageProcessor.from_pretrained(tmp_path / "out")
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    found = processor(list(frames), return_tensors="pt")["pixel_values"]
    expected = as_seen(square_crops(frames, 32, 1)[0], "imagenet").transpose(0, 1).unsqueeze(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({**EXPRESSIBLE, "model__vit__positions": "sincos_3d"}, "positions is 'sincos_3d'"),
        ({}, "clip.normalize is 'per_clip'"),
        (
            {**EXPRESSIBLE, "model": {"name": "tsn_test_resnet", "vit": None}, "mae__epochs": 0},
            "'tsn_test_resnet' is no ViT",
        ),
    ],
)
def test_what_transformers_cannot_express_is_written_for_this_project_and_says_why(
    overrides: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk = finished_sweep(tmp_path / "toy", toy_trial(**overrides))
    assert main([str(tmp_path / "toy"), "--out", str(tmp_path / "out")]) == 0
    assert words in capsys.readouterr().out
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"README.md", "weights.safetensors"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert words in card and len(snippets(card)) == 1
    written = load_file(tmp_path / "out" / "weights.safetensors")
    assert written.keys() == trunk.state_dict().keys()
    assert all(torch.equal(written[name], value) for name, value in trunk.state_dict().items())


def test_the_card_tells_what_it_learnt_from_how_it_was_made_and_how_well_it_did(
    tmp_path: Path,
) -> None:
    trial = toy_trial(average__method="interpolate", average__coefficient=0.25, mae__epochs=3)
    finished_sweep(tmp_path / "toy", trial)
    export(tmp_path / "toy", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        "| scenes | removed | `5ce7e5` |",
        "| synthetic | virtual | `5e7e71c` |",
        "- low: `10e`",
        "Pre-training on real humans was refused; no source declares any.",
        "- stage 1, masked autoencoding: 3 epochs of 8 clips; scenes 1",
        "- stage 2, alignment, endpoint 0: 2 epochs of 8 clips; scenes 1",
        "- stage 2, alignment, endpoint 1: 2 epochs of 8 clips; synthetic 1",
        "- average: interpolate, coefficient 0.25",
        "| dataset | selection split | report split |",
        "| low | 50.0 (40.0 to 60.0) | 25.0 (10.0 to 40.0) |",
        "| score | 50.0 | 25.0 |",
    ):
        assert line in card.splitlines(), line
    assert "- scenes: CC BY 4.0\n- synthetic: not stated\n" in card
    settings = re.search(r"```json\n(.*?)```", card, flags=re.S)
    assert settings is not None
    assert json.loads(settings[1]) == trial.model_dump(mode="json")


def test_the_card_of_imported_weights_says_that_their_data_are_not_known(tmp_path: Path) -> None:
    trial = toy_trial(
        start={"weights": "huggingface", "path": "/weights/videomae"},
        model__vit__tubelet="linear",
        **EXPRESSIBLE,
    )
    finished_sweep(tmp_path / "toy", trial, allow_real_humans=True)
    export(tmp_path / "toy", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "public weights (huggingface, `/weights/videomae`)" in card
    assert "whether humans were in it, is not known" in card
    assert "Pre-training on real humans was allowed" in card


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, out = tmp_path / "toy", tmp_path / "out"

    def refused(words: str) -> None:
        assert main([str(sweep), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err

    refused("summary.json: cannot be read")
    finished_sweep(sweep, toy_trial(), recommended=None)
    refused("recommends nothing")
    finished_sweep(sweep, toy_trial())
    weights = load_file(sweep / WEIGHTS_FILE)
    save_file(weights, sweep / WEIGHTS_FILE, {"stage": "of an earlier run"})
    refused("is of stage of an earlier run, but summary.json recommends abc")
    (sweep / WEIGHTS_FILE).write_bytes(b"torn")
    refused(f"{WEIGHTS_FILE}: cannot be read")
    assert not out.exists()
    finished_sweep(sweep, toy_trial())
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    refused("is there already")
    assert [file.name for file in out.iterdir()] == ["mine.txt"]


def test_a_plain_vit_on_imagenet_statistics_can_be_expressed() -> None:
    assert why_not_videomae(toy_trial(**EXPRESSIBLE)) is None


def test_the_command_runs_as_a_script_and_explains_itself(tmp_path: Path) -> None:
    script = str(ROOT / "sweeps" / "export.py")
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "SWEEP_FOLDER" in done.stdout and "transformers" in done.stdout
