from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainables.data.mocap import write_mocap
from trainables.data.catalog import load_catalog
from trainables.data.clips import read_clip
from trainables.data.demo_world.settings import WorldSettings
from trainables.data.files import check_files
from trainables.data.generators.__main__ import main
from trainables.data.generators.exported import ExportedProgram, SamplingSettings, program_hash
from trainables.data.generators.renderers import DemoPeople
from trainables.data.generators.sampling import views_folder
from trainables.data.latent_draws import LatentDraws
from trainables.data.latents import training_latents
from trainables.data.virtual_humans import clip as virtual_clip

WORLD = WorldSettings(
    seed=0,
    clips_per_source=24,
    heldout_per_source=1,
    downstream_train=1,
    downstream_selection=1,
    downstream_report=1,
    frames=4,
    frames_per_second=8,
    height=48,
    width=64,
)
SMALL = ("--clips", "2", "--seconds", "0.3", "--size", "64x48", "--cast", "4", "--workers", "1")


class Net(nn.Module):
    """A generator whose pixels are a smooth function of the latent (and class)."""

    def __init__(self, finish: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.shape, self.finish = nn.Linear(5, int(np.prod(shape))), shape, finish

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        pixels = self.layer(z).sigmoid()
        if label is not None:
            pixels = pixels * (0.2 + 0.4 * label.unsqueeze(1))
        return self.finish(pixels.unflatten(1, self.shape))


def exported(
    path: Path,
    finish: Callable[[Tensor], Tensor] = lambda made: made,
    shape: tuple[int, ...] = (3, 16, 18, 3),
    with_class: bool = False,
) -> Path:
    given = (torch.zeros(1, 5), torch.zeros(1, dtype=torch.int64))[: 1 + with_class]
    torch.export.save(torch.export.export(Net(finish, shape), given), path)
    return path


def program(path: Path, classes: tuple[str, ...] = ()) -> ExportedProgram:
    settings = SamplingSettings(
        program=program_hash(path),
        seed=0,
        clips=40,
        heldout_clips=0,
        classes=classes,
        frames_per_second=8,
        crf=20,
    )
    return ExportedProgram(path, settings)


def files_of(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*.mp4"))
    }


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_moved_draws_have_the_distribution_of_all_others(scale: float) -> None:
    rng = LatentDraws([1], [2], scale)
    n = 4000
    assert np.isclose(rng.uniform(2, 4, n).var(), 4 / 12, atol=0.02)
    assert np.isclose(rng.normal(1, 2, n).std(), 2, atol=0.1)
    assert np.isclose(rng.beta(1.6, 2.2, n).mean(), 1.6 / 3.8, atol=0.02)
    assert np.allclose(np.bincount(rng.integers(4, size=n)) / n, 0.25, atol=0.03)
    chosen = [rng.choice(["a", "b"], p=[0.2, 0.8]) for _ in range(n)]
    assert np.isclose(chosen.count("a") / n, 0.2, atol=0.03)
    first = [int(rng.permutation(3)[0]) for _ in range(n)]
    assert np.allclose(np.bincount(first) / n, 1 / 3, atol=0.03)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_a_moved_latent_keeps_the_correlation_of_z_with_z_plus_scale_w(scale: float) -> None:
    at, moved = (LatentDraws([1], [2], each).standard_normal(20_000) for each in (0.0, scale))
    assert np.isclose(np.corrcoef(at, moved)[0, 1], 1 / np.sqrt(1 + scale**2), atol=0.02)


def test_views_are_the_farther_from_the_clip_the_larger_the_scale() -> None:
    people = DemoPeople(WORLD)

    def distance(scale: float) -> float:
        pairs = [
            (people.draw(sample, 0.0), people.draw(sample, scale))
            for sample in people.samples()[:8]
        ]
        return float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairs]))

    # Not from 0: noise is part of the latent, and 0 is the clip itself.
    near, middle, far = (distance(scale) for scale in (0.05, 0.4, 2.0))
    assert 0 < near < middle < far
    assert distance(0.0) == 0


def test_views_of_virtual_humans_show_the_same_motions_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[tuple[Any, ...]] = []
    play = virtual_clip.play

    def noted(motion: Any, start: float, speed: float, times: Any) -> Any:
        played.append((id(motion), start, speed))
        return play(motion, start, speed, times)

    monkeypatch.setattr(virtual_clip, "play", noted)
    arguments = ("--people", "1", "--scales", "0.5", "4")
    out = tmp_path / "out"
    assert main(["humans", str(write_mocap(tmp_path / "mocap")), str(out), *SMALL, *arguments]) == 0
    clips = [played[start : start + 3] for start in range(0, len(played), 3)]  # a clip, its views
    assert [len(set(views)) for views in clips] == [1, 1]
    assert len(set(files_of(out).values())) == len(files_of(out)) == 6


def test_the_command_writes_a_source_with_views_resumes_and_adds_scales(tmp_path: Path) -> None:
    mocap = write_mocap(tmp_path / "mocap")

    def command(out: str, *scales: str) -> int:
        return main(["humans", str(mocap), str(tmp_path / out), *SMALL, "--scales", *scales])

    assert command("out", "0.5") == 0
    made = files_of(tmp_path / "out")
    dataset = load_catalog(tmp_path / "out/catalog.yaml")["humans_views"]
    check_files(dataset)
    assert dataset.humans == "virtual" and list(dataset.views) == [0.5]

    lost = tmp_path / "out/humans_views.views/0.5/train/000001.mp4"
    lost.unlink()
    with pytest.raises(ValueError, match="1 of 2 clips have no view of scale 0.5"):
        check_files(dataset)
    assert command("out", "0.5") == 0
    assert files_of(tmp_path / "out") == made
    assert command("out", "2") == 0
    again = files_of(tmp_path / "out")
    assert {name: again[name] for name in made} == made
    more = load_catalog(tmp_path / "out/catalog.yaml")["humans_views"]
    assert list(more.views) == [0.5, 2.0]
    assert more.content_hash == dataset.content_hash
    assert command("other", "0.5", "2") == 0
    assert files_of(tmp_path / "other") == again


def test_scales_have_folders_of_their_own_however_near_they_are() -> None:
    assert views_folder("set", 0.1234561) != views_folder("set", 0.1234562)
    assert views_folder("set", 0.5) == "set.views/0.5"
    assert views_folder("set", 2.0) == "set.views/2"


def test_other_settings_on_the_same_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["program", str(exported(tmp_path / "g.pt2")), str(tmp_path / "out")]
    assert main([*arguments, "--clips", "2", "--workers", "1"]) == 0
    assert main([*arguments, "--clips", "2", "--workers", "1", "--seed", "1"]) == 2
    assert "seed was 0 and is 1" in capsys.readouterr().out


def test_a_later_run_with_more_scales_keeps_licence_and_humans(tmp_path: Path) -> None:
    arguments = ["program", str(exported(tmp_path / "g.pt2")), str(tmp_path / "out")]
    arguments += ["--clips", "2", "--workers", "1"]
    assert main([*arguments, "--humans", "real", "--licence", "CC0"]) == 0
    assert main([*arguments, "--scales", "0.5"]) == 0
    dataset = load_catalog(tmp_path / "out/catalog.yaml")["generated"]
    assert (dataset.humans, dataset.licence, list(dataset.views)) == ("real", "CC0", [0.2, 0.5])


def test_an_exported_program_is_sampled_with_its_classes(tmp_path: Path) -> None:
    path = exported(tmp_path / "g.pt2", with_class=True)
    options = [
        "--clips",
        "6",
        "--heldout",
        "2",
        "--scales",
        "0.1",
        "--classes",
        "dark",
        "bright",
        "--crf",
        "1",
    ]
    assert main(["program", str(path), str(tmp_path / "out"), *options, "--workers", "1"]) == 0
    dataset = load_catalog(tmp_path / "out/catalog.yaml")["generated"]
    latents = training_latents(dataset)
    assert latents.shape == (6, 5) and len(np.unique(latents)) == 30
    net = Net(lambda made: made, (3, 16, 18, 3)).eval()  # the program, unexported
    for clip, z in zip(dataset.split("train"), latents, strict=True):
        label = ["dark", "bright"].index(dataset.classes[clip.label])
        frames = read_clip(
            dataset.root / clip.path,
            frames=3,
            seconds=10,
            position=0,
            short_side=16,
            frame_rate=None,
        )
        drawn = 255 * net(torch.from_numpy(z[None]), torch.tensor([label]))[0].detach().numpy()
        grey = [pixels.astype(float).mean(axis=-1).ravel() for pixels in (drawn, frames)]
        assert np.corrcoef(*grey)[0, 1] > 0.5  # chroma is halved
    assert dataset.classes == ("bright", "dark") and len(dataset.split("selection")) == 2
    brightness: dict[str, list[float]] = {"dark": [], "bright": []}
    for clip in dataset.clips:
        pair = [
            read_clip(
                root / clip.path,
                frames=3,
                seconds=10,
                position=0,
                short_side=16,
                frame_rate=None,
            ).astype(float)
            for root in (dataset.root, dataset.views[0.1])
        ]
        assert 0 < np.abs(pair[0] - pair[1]).mean() < 10
        brightness[dataset.classes[clip.label]].append(pair[0].mean())
    assert max(brightness["dark"]) < min(brightness["bright"])


def test_the_latent_of_an_exported_program_moves_by_the_scale_of_w(tmp_path: Path) -> None:
    # The program shows its latent: pixel values are 0.5 + z / 100.
    class Shown(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (0.5 + z[:, :3] / 20).view(1, 1, 1, 3).expand(1, 16, 16, 3)

    path = tmp_path / "g.pt2"
    torch.export.save(torch.export.export(Shown(), (torch.zeros(1, 3),)), path)
    generator = program(path)
    at = np.stack([generator.draw(s, 0.0)[0, 0, 0] for s in generator.samples()]).astype(float)
    assert np.isclose(at.std() * 20 / 255, 1, atol=0.2)
    for scale in (0.5, 1.0):
        moved = np.stack([generator.draw(s, scale)[0, 0, 0] for s in generator.samples()])
        assert np.isclose((moved - at).std() * 20 / 255, scale, rtol=0.2)


@pytest.mark.parametrize(
    ("finish", "shape", "says"),
    [
        (lambda made: made / (made - made), (3, 16, 16, 3), "NaN or infinite"),
        (lambda made: made, (3, 3, 16, 16), r"of shape \[1, 3, 3, 16, 16\]; it must be a clip"),
        (lambda made: made, (48,), r"of shape \[1, 48\]"),
        (lambda made: made, (3, 15, 16, 3), "16x15 pixels"),
        (lambda made: 2 * made - 1, (3, 16, 16, 3), "values from -.*must be from 0 to 1"),
        (lambda made: (255 * made).int(), (3, 16, 16, 3), "torch.int32; it must be uint8"),
        (lambda made: (made, made), (3, 16, 16, 3), "is a tuple"),
    ],
)
def test_what_is_no_clip_is_refused_at_load(
    finish: Any, shape: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        program(exported(tmp_path / "g.pt2", finish, shape)).check()


class Rare(nn.Module):
    """Gives a sample in three NaN, or a frame more; of seed 0 the fifth is the first of them."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, z: Tensor) -> Tensor:
        made, is_faulty = z[:, :3].sigmoid().view(1, 1, 1, 1, 3), z[0, 0] > 0.5
        if self.fault == "NaN":
            return torch.where(is_faulty, torch.nan, made).expand(1, 3, 16, 16, 3)
        more: Any = is_faulty.long().item()  # of which export makes a number of frames
        torch._check(more >= 0)
        torch._check(more <= 1)
        return made.expand(1, 3, 16, 16, 3).narrow(1, 0, 2 + more)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("NaN", "sample 4 holds NaN or infinite values"),
        ("shape", "sample 4 is of shape (3, 16, 16, 3), and sample 0 of (2, 16, 16, 3)"),
    ],
)
def test_a_fault_of_a_later_sample_stops_the_command_and_enters_no_catalog(
    fault: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "g.pt2", tmp_path / "out"
    torch.export.save(torch.export.export(Rare(fault), (torch.zeros(1, 3),)), path)
    assert main(["program", str(path), str(out), "--clips", "6", "--workers", "1"]) == 2
    assert says in " ".join(capsys.readouterr().out.split())
    assert len(files_of(out)) == 8 and not (out / "catalog.yaml").exists()


def test_what_takes_no_latent_and_what_is_no_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.pt2"
    path.write_bytes(b"no program")
    with pytest.raises(ValueError, match="is no exported program"):
        program(path).check()
    torch.export.save(torch.export.export(nn.Linear(3, 4), (torch.zeros(2, 3),)), path)
    with pytest.raises(
        ValueError, match=r"takes \(torch.float32 \[2, 3\]\); it must take a latent"
    ):
        program(tmp_path / "g.pt2").check()
    other = exported(tmp_path / "class.pt2", with_class=True)
    with pytest.raises(ValueError, match="a latent and a class, and 0 classes are named"):
        program(other).check()
