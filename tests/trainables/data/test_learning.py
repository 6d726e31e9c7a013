from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.trainables.data.videos import write_video
from trainables.data.catalog import load_catalog
from trainables.data.generators.__main__ import main
from trainables.data.generators.clip_model import LATENT
from trainables.data.generators.exported import loaded, program_hash
from trainables.data.generators.learning import Learner, LearningSettings
from trainables.settings import parse

TINY = (
    *("--frames", "2", "--seconds", "0.5", "--size", "16x16", "--workers", "1"),
    *("--autoencoder-steps", "4", "--flow-steps", "4"),
)


def write_source(folder: Path, broken: int = 0) -> Path:
    """The catalog of twelve training clips of two classes."""
    lines = ["path,label,split"]
    for number in range(12):
        path = write_video(
            folder / f"clips/{number}.mp4", width=32, height=24, count=6, seed=number
        )
        if number < broken:
            path.write_bytes(b"no video")
        lines.append(f"{number}.mp4,{('left', 'right')[number % 2]},train")
    (folder / "clips.csv").write_text("\n".join(lines))
    entry = {"clips": "clips.csv", "root": "clips", "humans": "removed", "licence": "CC0"}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"datasets": {"films": entry}}))
    return folder / "catalog.yaml"


def settings(**changes: object) -> LearningSettings:
    given = {
        "dataset": "",
        "clips": None,
        "frames": 2,
        "seconds": 0.5,
        "width": 16,
        "height": 16,
        "autoencoder_steps": 4,
        "flow_steps": 4,
        "guidance": 1.5,
        "seed": 0,
        **changes,
    }
    return parse(LearningSettings, given, "options")


def light_and_dark(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Even clips: class 1 is light."""
    labels = torch.arange(count) % 2
    greys = 40 + 130 * labels + torch.randint(40, (count,), generator=torch.Generator())
    return greys.view(-1, 1, 1, 1, 1).expand(count, 2, 16, 16, 3).to(torch.uint8), labels


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnt")
    program = folder / "out/flow.pt2"
    assert main(["train", str(write_source(folder)), "films", str(program), *TINY]) == 0
    return program


def test_samples_of_a_class_look_like_its_clips() -> None:
    learner = Learner(*light_and_dark(), 2, settings(autoencoder_steps=40, flow_steps=100))
    while not learner.finished:
        learner.advance()
    generator = learner.generator()
    greys: list[list[float]] = [[], []]
    with torch.inference_mode():
        for number in range(16):
            z = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(number))
            made = generator(z, torch.tensor([number % 2]))
            assert made.shape == (1, 2, 16, 16, 3) and 0 <= made.min() and made.max() <= 1
            greys[number % 2].append(255 * float(made.mean()))
    assert np.allclose(greys[0], 60, atol=35) and np.allclose(greys[1], 190, atol=35)


def test_a_learnt_program_knows_its_classes_rate_and_whom_it_shows(learnt: Path) -> None:
    about = loaded(learnt, program_hash(learnt)).about
    assert about is not None
    assert (about.classes, about.humans, about.licence) == (("left", "right"), "removed", "CC0")
    assert about.frames_per_second == 4 and about.learnt_from["name"] == "films"
    assert sorted(path.name for path in learnt.parent.iterdir() if path.suffix != ".lock") == [
        "flow.pt2",
        "flow.pt2.json",
    ]
    out = learnt.parent / "samples"
    options = ["--clips", "4", "--scales", "0.5", "--workers", "1"]
    assert main(["program", str(learnt), str(out), *options]) == 0
    dataset = load_catalog(out / "catalog.yaml")["generated"]
    assert (dataset.humans, dataset.licence) == ("removed", "CC0")
    assert set(dataset.classes) <= {"left", "right"} and len(dataset.clips) == 4
    told = json.loads((out / "generated.json").read_text())
    assert told["learnt_from"]["dataset"] == about.learnt_from["dataset"]
    assert told["frames_per_second"] == 4


def test_whom_a_learnt_program_shows_cannot_be_talked_away(
    learnt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["program", str(learnt), str(learnt.parent / "other"), "--workers", "1"]
    assert main([*command, "--humans", "virtual"]) == 2
    assert "humans are 'removed'; leave humans out" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "--classes", "right", "left"]) == 2
    assert "its classes are left, right" in " ".join(capsys.readouterr().out.split())


def test_gradients_go_through_a_learnt_program_so_it_can_be_steered(learnt: Path) -> None:
    program = loaded(learnt, program_hash(learnt))
    z = torch.randn(1, program.latent, generator=torch.Generator().manual_seed(0))
    program.draw(z.requires_grad_(), torch.tensor([1])).mean().backward()
    assert z.grad is not None and bool(z.grad.abs().sum() > 0)


def test_learning_that_is_stopped_in_the_middle_of_a_step_goes_on_to_the_same_program(
    learnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", str(write_source(tmp_path)), "films", str(tmp_path / "flow.pt2"), *TINY]
    advance, update, taken = Learner.advance, torch.optim.AdamW.step, list[int]()

    def noted(learner: Learner) -> float:
        taken.append(learner.step)
        return advance(learner)

    def stopped_twice(optimizer: torch.optim.AdamW) -> None:
        update(optimizer)
        if taken in ([0, 1, 2], [0, 1, 2, 2, 3, 4, 5, 6]):
            raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "advance", noted)
    monkeypatch.setattr(torch.optim.AdamW, "step", stopped_twice)
    monkeypatch.setattr("trainables.data.generators.learn_command.SAVE_SECONDS", -1.0)
    assert [main(command), main(command)] == [130, 130]
    assert not (tmp_path / "flow.pt2").exists()
    ours = (".flow.pt2.1.tmp", "..flow.pt2.state.1.tmp", ".flow.pt2.json.1.tmp")
    left = [tmp_path / name for name in ours]  # by a killed one
    theirs = tmp_path / ".flow.pt2.walk.safetensors.1.tmp"
    for each in (*left, theirs):
        each.write_bytes(b"half a file")
    assert main(command) == 0
    assert [each for each in (*left, theirs) if each.exists()] == [theirs]
    assert taken == [0, 1, 2, 2, 3, 4, 5, 6, 6, 7]
    z, label = torch.randn(1, LATENT), torch.tensor([0])
    with torch.inference_mode():
        found, wanted = (
            loaded(path, program_hash(path)).draw(z, label)
            for path in (tmp_path / "flow.pt2", learnt)
        )
    assert torch.equal(found, wanted)
    assert main(command) == 0 and len(taken) == 10  # it is there


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--size", "20x16"), "options.width: input should be a multiple of 8, got 20"),
        (("--frames", "1"), "options.frames: input should be greater than or equal to 2"),
        (("--guidance", "0.5"), "options.guidance: input should be greater"),
        (("--seconds", "0"), "options.seconds: input should be greater than 0"),
        (("--seed", "1"), "seed was 0 and is 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    learnt: Path, options: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = learnt.parents[1] / "catalog.yaml"
    assert main(["train", str(catalog), "films", str(learnt), *TINY, *options]) == 2
    assert says in " ".join(capsys.readouterr().out.split())


def test_data_that_teach_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_source(tmp_path, broken=2)
    assert main(["train", str(catalog), "films", str(tmp_path / "a.pt2"), *TINY]) == 2
    assert "2 of 12 clips cannot be read" in " ".join(capsys.readouterr().out.split())
    assert main(["train", str(catalog), "films", str(tmp_path / "a.onnx"), *TINY]) == 2
    assert "name the program with the ending .pt2" in capsys.readouterr().out
    manifest = tmp_path / "clips.csv"
    manifest.write_text(manifest.read_text().replace(",train", ",selection"))
    assert main(["train", str(catalog), "films", str(tmp_path / "b.pt2"), *TINY]) == 2
    assert "has 0 training clips to learn from" in " ".join(capsys.readouterr().out.split())
