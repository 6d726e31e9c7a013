from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import toy_trial
from tests.trainables.toy_videos import run_chain, weights_of
from trainables.data.catalog import Dataset
from trainables.models.mae import MaskedAutoencoder
from trainables.stage import Stage
from trainables.stage_store import StageStore
from trainables.trial import trial_stages


def mae_stage(datasets: dict[str, Dataset], **overrides: Any) -> Stage:
    return trial_stages(toy_trial(align__epochs=0, **overrides), datasets).weights


def test_the_last_norm_of_the_weights_is_trained_where_it_is_kept(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    found = {}
    for final_norm in ("fresh", "kept"):
        stage, store = mae_stage(datasets, mae__final_norm=final_norm), StageStore(tmp_path)
        run_chain(stage, store, datasets)
        found[final_norm] = weights_of(stage, store)
    fresh, kept = found["fresh"], found["kept"]
    differ = {name for name in fresh if not torch.equal(fresh[name], kept[name])}
    assert differ == {"norm.weight", "norm.bias"}
    assert torch.equal(fresh["norm.weight"], torch.ones(96))


@pytest.mark.parametrize("masking", ["random", "tube"])
def test_stage_1_hides_what_its_settings_say(
    masking: str, datasets: dict[str, Dataset], store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: list[torch.Tensor] = []
    forward = MaskedAutoencoder.forward

    def remembered(self: MaskedAutoencoder, video: Any, visible: Any, masked: Any) -> Any:
        hidden.append(masked)
        return forward(self, video, visible, masked)

    monkeypatch.setattr(MaskedAutoencoder, "forward", remembered)
    run_chain(mae_stage(datasets, mae__masking=masking), store, datasets)
    first, second = (torch.cat(hidden).sort(dim=1).values % 4).chunk(2, dim=1)  # 2 times, 4 places
    assert torch.equal(first, second) == (masking == "tube")
