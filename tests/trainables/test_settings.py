from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.sweep import SweepSettings
from tests.toy import AUGMENT, OPTIMIZER, TRIAL, toy_execution, toy_sweep_data, toy_trial
from trainables.config import TrialConfig
from trainables.settings import check_setting, load_yaml, parse, with_overrides


def test_an_unknown_key_is_named_with_the_nearest_valid_one() -> None:
    with pytest.raises(ValueError, match="trial.align.epoch: unknown key; did you mean 'epochs'"):
        parse(TrialConfig, with_overrides(TRIAL, {"align.epoch": 3}), "trial")


def test_a_missing_key_is_an_error_since_nothing_has_a_hidden_default() -> None:
    without = {key: value for key, value in TRIAL.items() if key != "probe"}
    with pytest.raises(ValueError, match="probe: missing"):
        parse(TrialConfig, without, "")


def test_every_mistake_is_listed_at_once() -> None:
    with pytest.raises(ValueError) as error:
        toy_trial(align__epochs=-1, mae__mask_ratio=1.5, clip__frames="8")
    assert all(key in str(error.value) for key in ("align.epochs", "mae.mask_ratio", "clip.frames"))


FINETUNE = {
    "epochs": 1,
    "drop_path": 0.0,
    "label_smoothing": 0.0,
    "max_unreadable": 0.0,
    "augment": AUGMENT,
    "mixup": None,
    "optimizer": OPTIMIZER,
}
CONVOLUTIONAL = {"model": {"name": "s3d", "vit": None}, "mae__epochs": 0}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"clip__resolution": 33}, "multiple of model.vit.patch_size 16"),
        ({"clip__frames": 5}, "even"),
        ({"score__use": "finetune"}, "finetune is null"),
        ({"downstream": ["low", "low"]}, "twice"),
        ({"align__clips_per_epoch": 3}, "align.clips_per_epoch 3 is less than .*batch_size 4"),
        ({"mae__optimizer__batch_size": 9}, "mae.clips_per_epoch 8 is less than .*batch_size 9"),
        ({"mae__decoder__width": 33}, "mae.decoder: width 33 is not a multiple of heads 2"),
        ({"align__augment__crop_scale": [1.0, 0.5]}, r"crop_scale is \[1, 0.5\]; it must be"),
        ({"align__augment__crop_scale": [0.5, 1.5]}, "low <= high <= 1"),
        ({"align__augment__crop_ratio": [0.0, 1.0]}, r"crop_ratio is \[0, 1\]"),
        ({"align__optimizer__betas": [0.9, 1.0]}, "optimizer.betas.1: .*less than 1"),
        ({"align__drop_path": 1.0}, "align.drop_path: .*less than 1"),
        ({"probe__l2_grid": [1.0, 0.0]}, "probe.l2_grid.1: .*greater than 0"),
        ({"augmented_probe": {**FINETUNE, "drop_path": 0.1}}, "drop_path 0.1 would do nothing"),
        ({**CONVOLUTIONAL, "mae__epochs": 1}, "'s3d' cannot be a masked autoencoder"),
        (
            {**CONVOLUTIONAL, "align__optimizer__layer_decay": 0.75},
            "align.optimizer.layer_decay 0.75 has no meaning for model 's3d'",
        ),
        (
            {
                **CONVOLUTIONAL,
                "average__endpoints": [{"optimizer.layer_decay": 0.5}],
            },
            r"average.endpoints\[0\].optimizer.layer_decay 0.5 has no meaning",
        ),
        (
            {**CONVOLUTIONAL, "start": {"weights": "huggingface", "path": "x"}},
            "start.weights 'huggingface' are a ViT's",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        toy_trial(**overrides)


def test_a_contradiction_is_told_without_all_the_settings_around_it() -> None:
    with pytest.raises(ValueError) as error:
        sweep = toy_sweep_data(trial__clip__frames=5)
        parse(SweepSettings, sweep, "")
    assert str(error.value).endswith("choose an even number")


def test_a_path_to_no_setting_is_named_with_the_nearest() -> None:
    check_setting(TrialConfig, "align.mixture.shares")
    with pytest.raises(ValueError, match=r"did you mean 'align.mixture.shares'"):
        check_setting(TrialConfig, "align.mixture.share")
    with pytest.raises(ValueError, match="no settings below"):
        check_setting(TrialConfig, "seed.value")


def test_yaml_reads_1e_3_as_a_number_and_refuses_a_key_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 1e-3\nname: x1e-3\n")
    assert load_yaml(tmp_path / "a.yaml") == {"lr": 0.001, "name": "x1e-3"}
    (tmp_path / "b.yaml").write_text("lr: 1\nlr: 2\n")
    with pytest.raises(ValueError, match="'lr' stands twice"):
        load_yaml(tmp_path / "b.yaml")
    with pytest.raises(ValueError, match=r"c\.yaml: cannot be read"):
        load_yaml(tmp_path / "c.yaml")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_yaml(tmp_path / "a.yaml")


def test_a_yaml_mapping_may_merge_another_and_set_its_keys_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert load_yaml(tmp_path / "a.yaml")["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__name": "vit_bose"}, "'vit_bose' is no model; did you mean 'vit_base'"),
        ({"model": {"name": "r2plus1d_18", "vit": None}}, "cannot be a masked autoencoder"),
        ({"model__name": "r2plus1d_18"}, "takes vit: null"),
        ({"model__vit": None}, "needs its `vit` settings"),
        ({"start__path": "weights"}, "random weights take path: null"),
        ({"start__weights": "timm"}, "all others need a path"),
        ({"model__vit__positions": "imported"}, "goes with start.weights 'timm'"),
        ({"score__use": "augmented_probe"}, "augmented_probe is null"),
        ({"align__optimizer__algorithm": "sgd"}, "sgd takes momentum and betas: null"),
        ({"average__method": "interpolate", "average__endpoints": []}, "needs exactly 2 endpoints"),
        ({"average__method": "uniform", "average__endpoints": [{}]}, "needs at least 2 endpoints"),
        ({"average__endpoints": [{"epoch": 1}]}, r"endpoints\[0\].*did you mean 'epochs'"),
        ({"average__method": "learned"}, "augmented_probe is null"),
        ({"average__method": "last_k"}, "more than the 0 epochs that align.keep.last keeps"),
        ({"average__method": "ema"}, "needs align.keep.ema_decay"),
        ({"align__views_per_clip": 3}, "batch_size 4 is no multiple of align.views_per_clip 3"),
        ({"average__method": "posthoc_ema"}, "needs align.keep.posthoc_ema"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_trial(**overrides)


def test_a_model_is_compiled_or_recomputes_but_not_both() -> None:
    toy_execution(compile=True)
    toy_execution(recompute_activations=True)
    with pytest.raises(ValueError, match="set one of them to false"):
        toy_execution(compile=True, recompute_activations=True)
