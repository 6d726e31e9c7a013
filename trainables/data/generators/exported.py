"""A generative model as an exported program: a .pt2 file that torch.export wrote.

Such a file is code that runs with your rights: load those alone whose maker you trust.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trainables.data.generators.generator import Sample
from trainables.data.virtual_humans.settings import Count, Split
from trainables.settings import Settings

Z, W, CLASS = 1, 2, 3  # what a random stream is of
STILL_FRAMES = 2  # of an image, so that it is a clip
NO_CLASS = "generated"  # the label where the program takes none


class SamplingSettings(Settings):
    """What decides the clips of an exported program."""

    program: str  # hash of the file
    seed: Annotated[int, Field(ge=0)]
    clips: Count  # z's in the training split
    heldout_clips: Annotated[int, Field(ge=0)]
    classes: tuple[str, ...]  # by the number that the program takes; () where it takes none
    frames_per_second: Annotated[int, Field(ge=1, le=120)]
    crf: Annotated[int, Field(ge=0, le=51)]


@dataclass(frozen=True)
class ExportedProgram:
    """program(z float32 [1, D]), or program(z, class int64 [1]), gives a clip [1, T, H, W, 3] or
    an image [1, H, W, 3], RGB, uint8, or float from 0 to 1.

    z and w are N(0, 1) in each of D numbers, and classes are drawn evenly.
    """

    path: Path
    settings: SamplingSettings

    @property
    def frames_per_second(self) -> int:
        return self.settings.frames_per_second

    @property
    def crf(self) -> int:
        return self.settings.crf

    def check(self) -> None:
        """Raises ValueError unless it is a program that gives clips, each time of one shape."""
        _, takes_class = loaded(self.path)[1:]
        if takes_class != bool(self.settings.classes):
            raise ValueError(
                f"{self.path}: takes {'a latent and a class' if takes_class else 'a latent alone'}"
                f", and {len(self.settings.classes)} classes are named; "
                + ("name them with --classes" if takes_class else "leave --classes out")
            )
        shapes = {self.draw(sample, scale=1.0).shape for sample in self.samples()[:2]}
        if len(shapes) > 1:
            raise ValueError(f"{self.path}: gives clips of several shapes, {sorted(shapes)}")

    def samples(self) -> Sequence[Sample]:
        settings, classes = self.settings, self.settings.classes or (NO_CLASS,)
        splits: list[Split] = [
            "train" if number < settings.clips else "selection"
            for number in range(settings.clips + settings.heldout_clips)
        ]
        rng = np.random.default_rng([settings.seed, CLASS])
        labels = rng.integers(len(classes), size=len(splits))
        return [
            Sample(number, split, classes[label], f"z{number:06d}")
            for number, (split, label) in enumerate(zip(splits, labels, strict=True))
        ]

    def draw(self, sample: Sample, scale: float) -> np.ndarray:
        return self.draw_latent(sample, self.latent(sample) + scale * self._normal(W, sample))

    def draw_latent(self, sample: Sample, z: np.ndarray) -> np.ndarray:
        """G(z) with the sample's class, as `draw`."""
        program, _, takes_class = loaded(self.path)
        given = [torch.from_numpy(z).float().unsqueeze(0)]
        if takes_class:
            given.append(torch.tensor([self.settings.classes.index(sample.label)]))
        torch.set_num_threads(1)  # there is a process for each core
        with torch.inference_mode():
            try:
                made = program(*given)
            except Exception as error:  # whatever the program raises
                raise ValueError(f"{self.path}: fails on sample {sample.number}: {error}") from None
        return as_clip(made, f"{self.path}: sample {sample.number}")

    def latents(self) -> np.ndarray:
        return np.stack([self.latent(sample) for sample in self.samples()])

    def latent(self, sample: Sample) -> np.ndarray:
        """Its z, [D]."""
        return self._normal(Z, sample)

    def _normal(self, stream: int, sample: Sample) -> np.ndarray:
        rng = np.random.default_rng([self.settings.seed, stream, sample.number])
        return rng.standard_normal(loaded(self.path)[1])

    def described(self) -> dict[str, Any]:
        return {"generator": "exported program", **self.settings.model_dump(mode="json")}


def as_clip(made: Any, what: str) -> np.ndarray:
    """uint8 [T, H, W, 3] of what a program gave.

    Raises:
        ValueError: it is no tensor [1, T, H, W, 3] or [1, H, W, 3] of uint8, or of floats from 0
            to 1.
    """
    if not isinstance(made, Tensor):
        raise ValueError(f"{what} is a {type(made).__name__}; a program must give one tensor")
    shape = list(made.shape)
    if made.ndim not in (4, 5) or shape[0] != 1 or shape[-1] != 3:
        raise ValueError(
            f"{what} is of shape {shape}; it must be a clip [1, T, H, W, 3] or an image "
            "[1, H, W, 3]"
        )
    height, width = shape[-3:-1]
    if min(height, width) < 16 or height % 2 or width % 2:
        raise ValueError(
            f"{what} is {width}x{height} pixels; video takes an even width and height of 16 or more"
        )
    if made.is_floating_point():
        if not bool(made.isfinite().all()):
            raise ValueError(f"{what} holds NaN or infinite values; mend the generator")
        low, high = float(made.min()), float(made.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"{what} holds values from {low:g} to {high:g}; floats must be from 0 to 1, so let "
                "the program scale and clamp them"
            )
        made = (made * 255).round().to(torch.uint8)
    if made.dtype != torch.uint8:
        raise ValueError(f"{what} is {made.dtype}; it must be uint8, or float from 0 to 1")
    frames: np.ndarray = made[0].numpy()
    return np.stack([frames] * STILL_FRAMES) if frames.ndim == 3 else frames


def program_hash(path: Path) -> str:
    """16 hex digits of the file. Raises ValueError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; give a file that torch.export wrote") from None


@lru_cache(maxsize=1)
def loaded(path: Path) -> tuple[Callable[..., Any], int, bool]:
    """The program, the size of its latent, and whether it takes a class.

    Raises:
        ValueError: it is no exported program, or takes something else.
    """
    try:
        program = torch.export.load(path)
    except Exception as error:  # of many kinds, by what the file is instead
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path}: is no exported program ({reason}); write one with "
            "torch.export.save(torch.export.export(model, (z,)), path)"
        ) from None
    names = set(program.graph_signature.user_inputs)
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in names]
    shapes = [list(each.shape) if isinstance(each, Tensor) else [] for each in inputs]
    wanted = [torch.float32, torch.int64]
    fits = (
        len(inputs) in (1, 2)
        and all(isinstance(each, Tensor) for each in inputs)
        and [each.dtype for each in inputs] == wanted[: len(inputs)]
        and len(shapes[0]) == 2
        and isinstance(shapes[0][1], int)
        and all(shape[0] == 1 or not isinstance(shape[0], int) for shape in shapes)
    )
    if not fits:
        given = ", ".join(
            f"{getattr(each, 'dtype', each)} {shape}"
            for each, shape in zip(inputs, shapes, strict=True)
        )
        raise ValueError(
            f"{path}: takes ({given}); it must take a latent, float32 [1, D], and may take a "
            "class, int64 [1]"
        )
    return program.module(), shapes[0][1], len(inputs) == 2
