"""A generative model as an exported program: a .pt2 file that torch.export wrote.

Such a file is code that runs with your rights: load those alone whose maker you trust.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trainables.data.generators.about import FILE, About, read_about
from trainables.data.generators.generator import Sample
from trainables.data.manifests import Humans
from trainables.data.virtual_humans.settings import Count, Split
from trainables.settings import Settings, parse

Z, W, CLASS = 1, 2, 3  # what a random stream is of
STILL_FRAMES = 2  # of an image, so that it is a clip
NO_CLASS = "generated"  # the label where the program takes none
RATE = 15  # frames per second, where neither the program nor the user says


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

    @property
    def loaded(self) -> Loaded:
        return loaded(self.path, self.settings.program)

    @property
    def licence(self) -> str | None:
        """Of what it learnt from, where it says."""
        return None if self.loaded.about is None else self.loaded.about.licence

    @property
    def classes(self) -> tuple[str, ...]:
        return self.settings.classes or (NO_CLASS,)

    def humans(self, given: Humans | None) -> Humans | None:
        """Whom its clips show: as it says, else as `given`. Raises ValueError if these differ."""
        about = self.loaded.about
        if about is None:
            return given
        if given not in (None, about.humans):
            raise ValueError(
                f"{self.path}: humans {given!r} is asked for, and it has learnt from clips whose "
                f"humans are {about.humans!r}; leave humans out"
            )
        return about.humans

    def check(self) -> None:
        """Raises ValueError unless it is a program that gives clips, as far as two samples tell."""
        self.check_inputs()
        for sample in self.samples()[:2]:
            self.draw(sample, scale=1.0)

    def check_inputs(self) -> None:
        """Raises ValueError where the classes are not the program's."""
        takes_class, about = self.loaded.takes_class, self.loaded.about
        if takes_class != bool(self.settings.classes):
            raise ValueError(
                f"{self.path}: takes {'a latent and a class' if takes_class else 'a latent alone'}"
                f", and {len(self.settings.classes)} classes are named; "
                + ("name them in the order of their numbers" if takes_class else "name none")
            )
        if about is not None and about.classes != self.settings.classes:
            raise ValueError(
                f"{self.path}: its classes are {', '.join(about.classes)}, and not "
                f"{', '.join(self.settings.classes)}; leave them out"
            )

    def samples(self) -> Sequence[Sample]:
        count = self.settings.clips + self.settings.heldout_clips
        rng = np.random.default_rng([self.settings.seed, CLASS])
        labels = rng.integers(len(self.classes), size=count)
        return [self.sample(number, self.classes[label]) for number, label in enumerate(labels)]

    def sample(self, number: int, label: str) -> Sample:
        split: Split = "train" if number < self.settings.clips else "selection"
        return Sample(number, split, label, f"z{number:06d}")

    def draw(self, sample: Sample, scale: float) -> np.ndarray:
        return self.draw_latent(sample, self.latent(sample) + scale * self._normal(W, sample))

    def draw_latent(self, sample: Sample, z: np.ndarray) -> np.ndarray:
        """G(z) with the sample's class, as `draw`."""
        clip = self._drawn(sample, z)
        if clip.shape != self._shape:
            raise ValueError(
                f"{self.path}: sample {sample.number} is of shape {clip.shape}, and sample 0 of "
                f"{self._shape}; all must be of one, so mend the generator"
            )
        return clip

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        first = self.samples()[0]
        return self._drawn(first, self.latent(first)).shape

    def _drawn(self, sample: Sample, z: np.ndarray) -> np.ndarray:
        program = self.loaded
        given = [torch.from_numpy(z).float().unsqueeze(0)]
        if program.takes_class:
            given.append(torch.tensor([self.settings.classes.index(sample.label)]))
        with _one_thread(), torch.inference_mode():
            try:
                made = program.draw(*given)
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
        return rng.standard_normal(self.loaded.latent)

    def described(self) -> dict[str, Any]:
        about = self.loaded.about
        return {
            "generator": "exported program",
            **self.settings.model_dump(mode="json"),
            **({} if about is None else {"learnt_from": about.learnt_from}),
        }


def program_at(
    path: Path,
    where: str,
    *,
    classes: Sequence[str],
    frames_per_second: int | None,
    **settings: int,
) -> ExportedProgram:
    """With what the program says of itself where no `classes` or no rate is given.

    `settings`: the others of `SamplingSettings`; `where`: they stand, for a message.

    Raises:
        ValueError: it is no exported program; a setting is wrong; the classes are not its own.
    """
    content = program_hash(path)
    about = loaded(path, content).about
    own, rate = ((), RATE) if about is None else (about.classes, about.frames_per_second)
    given = {
        "program": content,
        "classes": tuple(classes or own),
        "frames_per_second": frames_per_second or rate,
        **settings,
    }
    program = ExportedProgram(path, parse(SamplingSettings, given, where))
    program.check_inputs()
    return program


@contextmanager
def _one_thread() -> Iterator[None]:
    """There is a process for each core, and sums of several threads are not the same to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_clip(made: Any, what: str) -> np.ndarray:
    """uint8 [T, H, W, 3] of what a program gave.

    Raises:
        ValueError: it is no tensor [1, T, H, W, 3] or [1, H, W, 3] of uint8 or of floats in [0, 1].
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


class Loaded(NamedTuple):
    draw: Callable[..., Any]
    latent: int  # numbers
    takes_class: bool
    about: About | None  # what it says of itself


@lru_cache(maxsize=4)
def loaded(path: Path, content: str) -> Loaded:
    """`content`: the `program_hash` that the file has.

    Raises:
        ValueError: it has another by now; it is no exported program, or takes something else.
    """
    if program_hash(path) != content:
        raise ValueError(f"{path}: has changed since it was first looked at; start again with it")
    extra_files = {FILE: ""}  # an empty one torch would not fill
    try:
        program = torch.export.load(path, extra_files=extra_files)
    except Exception as error:  # of many kinds, by what the file is instead
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path}: is no exported program ({reason}); write one with "
            "torch.export.save(torch.export.export(model, (z,)), path)"
        ) from None
    names = set(program.graph_signature.user_inputs)
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in names]
    shapes = [list(each.shape) if isinstance(each, Tensor) else [] for each in inputs]
    fits = (
        len(inputs) in (1, 2)
        and all(isinstance(each, Tensor) for each in inputs)
        and [each.dtype for each in inputs] == [torch.float32, torch.int64][: len(inputs)]
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
    about = read_about(extra_files[FILE], str(path))
    return Loaded(program.module(), shapes[0][1], len(inputs) == 2, about)
