"""Steps of stage 1 (mae), stage 2 (align) and fine-tuning beside plain PyTorch, in one run.

The recipe is PPMA's (sweeps/ppma.yaml) at the size of --model; ours is the step of our training
loop, the peer is plain_training.py with the same weights. First both are checked in float32: losses
and gradients of one batch, then the losses of a few steps. Then they take turns on a batch that
lies on the device: no loader, no copies. TFLOP/s are those that the model needs (as
trainables/models/flops.py counts them), whoever does more; their share is that of a large matrix
product in the same precision, measured in the same round. Peak memory is that of a process that
does nothing else: as torch allocates it on a GPU, the resident set on a CPU.

    python benchmarks/training_step.py                     vit_tiny on a CPU, a minute or two
    python benchmarks/training_step.py --model vit_base --device cuda --precision bf16

The last line is JSON; one with what there is so far comes after each kind of step.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.plain_training import (  # noqa: E402
    PlainTraining,
    plain_autoencoder,
    plain_classifier,
)
from benchmarks.spread import spread  # noqa: E402
from trainables.acceleration import accelerate  # noqa: E402
from trainables.config import Execution, TrialConfig  # noqa: E402
from trainables.data.augment import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from trainables.data.batch import Batch  # noqa: E402
from trainables.gpu_meter import GpuMeter  # noqa: E402
from trainables.models.flops import classification_flops, mae_flops  # noqa: E402
from trainables.models.heads import Classifier, label_space  # noqa: E402
from trainables.models.mae import MaskedAutoencoder, draw_masks  # noqa: E402
from trainables.models.video_vit import VideoViT  # noqa: E402
from trainables.optimization import build_optimizer  # noqa: E402
from trainables.settings import load_yaml, parse, with_overrides  # noqa: E402
from trainables.stage import Stage  # noqa: E402
from trainables.stage_run import StageRun  # noqa: E402
from trainables.stage_store import StageStore  # noqa: E402
from trainables.stages.classification import Classification  # noqa: E402
from trainables.stages.mae import Reconstruction  # noqa: E402
from trainables.training_loop import Steps  # noqa: E402
from trainables.training_settings import OptimizerSettings  # noqa: E402
from trainables.training_state import TrainingState  # noqa: E402

KINDS = ("mae", "align", "finetune")
CLASSES = {"align": 150, "finetune": 101}
LR, SEED = 1e-4, 0
# What each size of model sees, and clips a step: as many as the peer has room for on 80 GB.
SIZES: dict[str, dict[str, Any]] = {
    "vit_tiny": {
        "model.vit.patch_size": 8,
        "clip.frames": 8,
        "clip.resolution": 64,
        "mae.decoder": {"width": 48, "depth": 1, "heads": 4},
    },
    "vit_base": {},
}
BATCH = {
    "vit_tiny": {"mae": 32, "align": 16, "finetune": 16},
    "vit_base": {"mae": 32, "align": 16, "finetune": 16},
}
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns
CHECKED_CLIPS, CHECKED_STEPS = 4, 3
TOLERANCE = 1e-4  # of losses, and of a tensor's gradient by its norm, in float32
DRIFT = 0.02  # of losses, bf16 from float32, compiled from uncompiled


def recipe(model: str, precision: str, checked: bool = False) -> TrialConfig:
    """PPMA's at the size of `model`; `checked`: with nothing random."""
    changes = {"model.name": model, **SIZES[model]}
    for kind in KINDS:
        changes[f"{kind}.optimizer.precision"] = precision
        if checked and kind != "mae":
            changes[f"{kind}.drop_path"] = 0.0
    trial = with_overrides(load_yaml(ROOT / "sweeps" / "ppma.yaml")["trial"], changes)
    return parse(TrialConfig, trial, "")


def flops_a_clip(kind: str, trial: TrialConfig) -> float:
    described = trial.model_dump(mode="json")
    if kind == "mae":
        flops = mae_flops(described["model"], described["clip"], described["mae"])
    else:
        flops = classification_flops(described["model"], described["clip"], frozen=False)
    assert flops is not None
    return flops


def batch_of(kind: str, trial: TrialConfig, size: int, device: torch.device) -> Batch:
    draw = torch.Generator().manual_seed(SEED)
    clip = trial.clip
    shape = (size, clip.frames, clip.resolution, clip.resolution, 3)
    imagenet = torch.tensor([IMAGENET_MEAN, IMAGENET_STD]) * 255
    batch = Batch(
        frames=torch.randint(256, shape, dtype=torch.uint8, generator=draw),
        scale=imagenet.expand(size, 2, 3),
        erased=torch.zeros(size, 4, dtype=torch.int64),
        label=torch.randint(CLASSES.get(kind, 1), (size,), generator=draw),
        source=torch.zeros(size, dtype=torch.int64),
        clip=torch.arange(size),
        seed=torch.arange(size),
        unreadable=[],
        step=0,
    )
    return batch.to(device)


class Ours:
    """The step of our training loop."""

    def __init__(
        self,
        kind: str,
        trial: TrialConfig,
        batch: Batch,
        device: torch.device,
        scratch: Path,
        compiled: bool,
    ) -> None:
        self.batch = batch
        torch.manual_seed(SEED)
        self.objective = objective_of(kind, trial).to(device)
        self.settings = optimizer_of(kind, trial, len(batch))
        self.state = TrainingState(
            objective=self.objective,
            optimizer=build_optimizer(self.objective, depth_of(self.objective), self.settings),
            scaler=torch.amp.GradScaler(device.type, enabled=False),
            averages=None,
        )
        execution = Execution(
            workers=1,
            cpus_per_worker=torch.get_num_threads(),
            gpus_per_worker=int(device.type == "cuda"),
            loader_workers=0,
            video_reader="decord",
            per_device_batch=None,
            checkpoint_every_steps=1000,
            compile=compiled,
            recompute_activations=False,
        )
        self.run = StageRun(
            stage=Stage(kind=kind, settings={}),
            store=StageStore(scratch),
            datasets={},
            execution=execution,
            should_stop=lambda: False,
            beat=lambda: False,
            device=device,
            gpu=GpuMeter(device),
        )
        accelerate(self.objective, execution, device)
        self.steps = Steps(self.objective, self.state, self.run, self.settings, SEED)

    def step(self) -> None:
        step, progress = self.state.progress.step, self.state.progress
        batch = replace(self.batch, step=step)
        self.steps.take(batch, LR)
        progress.step = step + 1

    def loss(self) -> float:
        """Of one more step."""
        self.steps.wait()
        self.state.progress.sums.clear()
        self.step()
        self.steps.wait()
        return self.state.progress.sums["loss"] / len(self.batch)


class Plain:
    """The peer's, with the weights that ours starts from."""

    def __init__(self, kind: str, trial: TrialConfig, batch: Batch, device: torch.device) -> None:
        self.kind, self.batch, self.steps = kind, batch, 0
        torch.manual_seed(SEED)
        ours = objective_of(kind, trial)
        if isinstance(ours, Reconstruction):
            assert trial.mae is not None
            self.masked = mask_of(ours, batch).to(device)
            model = plain_autoencoder(ours.model, trial.model, trial.mae.decoder)
        else:
            assert isinstance(ours, Classification)
            stage = trial.align if kind == "align" else trial.finetune
            assert stage is not None
            model = plain_classifier(ours.model, trial.model, stage)
        settings = optimizer_of(kind, trial, len(batch))
        self.training = PlainTraining(model, depth_of(ours), settings, device)

    def loss_of(self, model: nn.Module) -> Tensor:
        video = replace(self.batch, step=self.steps).video  # normalised anew, as ours does
        if self.kind == "mae":
            loss: Tensor = model(video, self.masked)
        else:
            loss = model(video, self.batch.label, self.steps, SEED)
        return loss

    def loss(self) -> float:
        """Of one more step."""
        loss = self.training.step(self.loss_of, LR)
        self.steps += 1
        return loss

    def step(self) -> None:
        self.loss()


def objective_of(kind: str, trial: TrialConfig) -> nn.Module:
    settings = trial.align if kind == "align" else trial.finetune
    assert settings is not None and trial.mae is not None
    if kind == "mae":
        model = MaskedAutoencoder(
            VideoViT(trial.model, trial.clip), trial.mae.decoder, trial.mae.target
        )
        return Reconstruction(model, trial.mae.mask_ratio, trial.mae.masking)
    trunk = VideoViT(trial.model, trial.clip, settings.drop_path)
    space = label_space({"clips": [f"{index:03}" for index in range(CLASSES[kind])]}, "union")
    return Classification(Classifier(trunk, space), settings, SEED)


def optimizer_of(kind: str, trial: TrialConfig, batch_size: int) -> OptimizerSettings:
    settings: OptimizerSettings = getattr(trial, kind).optimizer
    return settings.model_copy(update={"batch_size": batch_size})


def depth_of(objective: nn.Module) -> int:
    assert isinstance(objective, Reconstruction | Classification)
    return objective.model.trunk.depth


def mask_of(ours: Reconstruction, batch: Batch) -> Tensor:
    """bool [B, N] of the tokens that ours hides."""
    trunk = ours.model.trunk
    seeds = batch.seed.tolist()
    _, masked = draw_masks(seeds, trunk.grid, ours.mask_ratio, ours.masking)
    hidden = torch.zeros(len(seeds), trunk.tokens, dtype=torch.bool)
    return hidden.scatter(1, masked, True)


def disagreement(
    kind: str, trial: TrialConfig, device: torch.device, scratch: Path, compiled: bool
) -> float:
    """The largest relative difference: of losses, and of each tensor's gradient by its norm."""
    batch = batch_of(kind, trial, CHECKED_CLIPS, device)
    ours = Ours(kind, trial, batch, device, scratch, compiled)
    plain = Plain(kind, trial, batch, device)
    loss = ours.objective(batch)["loss"].mean()
    loss.backward()
    other = plain.loss_of(plain.training.model)
    other.backward()
    worst = [abs(loss.item() / other.item() - 1)]
    found = dict(plain.training.model.named_parameters())
    for name, parameter in ours.objective.named_parameters():
        twin = found[name.removeprefix("model.")]
        if parameter.requires_grad:
            assert parameter.grad is not None and twin.grad is not None
            gap = parameter.grad - twin.grad.view_as(parameter.grad)
            worst.append((gap.norm() / parameter.grad.norm()).item())
    ours.objective.zero_grad()
    plain.training.model.zero_grad()
    for _ in range(CHECKED_STEPS):
        worst.append(abs(ours.loss() / plain.loss() - 1))
    return max(worst)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Float32 is float32: by default cuDNN's convolutions, the peer's Conv3d, have 10 bits."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


def drift(kind: str, model: str, device: torch.device, scratch: Path, compiled: bool) -> float:
    """The largest relative difference between our losses in bf16 and in float32."""
    losses = []
    for precision in ("fp32", "bf16"):
        trial = recipe(model, precision, checked=True)
        batch = batch_of(kind, trial, CHECKED_CLIPS, device)
        ours = Ours(kind, trial, batch, device, scratch, compiled)
        losses.append([ours.loss() for _ in range(CHECKED_STEPS)])
    return max(abs(rounded / exact - 1) for exact, rounded in zip(*losses, strict=True))


def seconds_a_step(step: Callable[[], object], steps: int, device: torch.device) -> float:
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return (time.perf_counter() - began) / steps


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steps_for(step: Callable[[], object], seconds: float, device: torch.device) -> int:
    """So many that they take about `seconds`, once it is warm."""
    for _ in range(3):
        step()
    return max(3, math.ceil(seconds / seconds_a_step(step, 3, device)))


class MatrixProduct:
    """What the machine can do at the most: a large product in the same precision."""

    def __init__(self, precision: str, device: torch.device) -> None:
        size = MATRIX[device.type]
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        draw = torch.Generator().manual_seed(SEED)
        self.a, self.b = (
            torch.randn(size, size, generator=draw).to(device, dtype) for _ in range(2)
        )
        self.flops, self.device = 2.0 * size**3, device

    def step(self) -> None:
        self.a @ self.b

    def teraflops(self, steps: int) -> float:
        return self.flops / seconds_a_step(self.step, steps, self.device) / 1e12


def peak_bytes(kind: str, whose: str, arguments: argparse.Namespace) -> dict[str, int] | None:
    """Of a process that takes three steps. None: it has not enough memory."""
    command = [sys.executable, __file__, "--peak-of", f"{kind}:{whose}"]
    for name in ("model", "device", "precision"):
        command += [f"--{name}", getattr(arguments, name)]
    command += ["--compile"] if arguments.compile else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        if "OutOfMemoryError" in done.stderr:
            return None
        raise RuntimeError(done.stderr)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_peak(kind: str, whose: str, arguments: argparse.Namespace) -> None:
    device, trial = torch.device(arguments.device), recipe(arguments.model, arguments.precision)
    before = resident_peak()
    with tempfile.TemporaryDirectory() as scratch:
        batch = batch_of(kind, trial, BATCH[arguments.model][kind], device)
        side = sides(kind, trial, batch, device, Path(scratch), arguments.compile)[whose]()
        for _ in range(3):
            side.step()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_peak()
    print(json.dumps({"peak": peak, "imports": 0 if device.type == "cuda" else before}))


def resident_peak() -> int:
    """Linux's own mark; getrusage's is inherited from who started the process."""
    if match := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
        return int(match[1]) * 1024
    raise RuntimeError("/proc/self/status tells no VmHWM; this needs Linux")


def sides(
    kind: str,
    trial: TrialConfig,
    batch: Batch,
    device: torch.device,
    scratch: Path,
    compiled: bool,
) -> dict[str, Callable[[], Ours | Plain]]:
    return {
        "ours": partial(Ours, kind, trial, batch, device, scratch, compiled),
        "plain": partial(Plain, kind, trial, batch, device),
    }


def measured(
    kind: str, trial: TrialConfig, arguments: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    """Both in turns, a matrix product before each round."""
    device, size = torch.device(arguments.device), BATCH[arguments.model][kind]
    batch, flops = batch_of(kind, trial, size, device), flops_a_clip(kind, trial)
    product = MatrixProduct(arguments.precision, device)
    product_steps = steps_for(product.step, arguments.seconds / 2, device)
    taken: dict[str, tuple[Ours | Plain, int]] = {}
    for whose, build in sides(kind, trial, batch, device, scratch, arguments.compile).items():
        try:
            side = build()
            taken[whose] = side, steps_for(side.step, arguments.seconds, device)
        except torch.OutOfMemoryError:
            print(f"{kind}: {whose} has not enough memory for a batch of {size}")
    rounds: list[dict[str, float]] = []
    for _ in range(arguments.repeats):
        row = {"matrix": product.teraflops(product_steps)}
        for whose, (side, steps) in taken.items():
            row[whose] = size / seconds_a_step(side.step, steps, device)
        rounds.append(row)
    result: dict[str, Any] = {
        "batch": size,
        "gigaflop_a_clip": round(flops / 1e9, 3),
        "matrix_teraflops": spread([row["matrix"] for row in rounds]),
    }
    for whose in taken:
        rates = [row[whose] for row in rounds]
        shares = [row[whose] * flops / row["matrix"] / 1e12 for row in rounds]
        result[whose] = {
            "clips_per_second": spread(rates),
            "teraflops": spread([rate * flops / 1e12 for rate in rates]),
            "share_of_matrix": spread(shares),
        }
    if len(taken) == 2:
        result["ratio"] = spread([row["ours"] / row["plain"] for row in rounds])
    return result


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        kind, whose = arguments.peak_of.split(":")
        print_peak(kind, whose, arguments)
        return 0
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    result: dict[str, Any] = {
        "benchmark": "training_step",
        "model": arguments.model,
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": arguments.precision,
        "compile": arguments.compile,
        "repeats": arguments.repeats,
        "disagreement": {},
        "drift": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        for kind in arguments.kinds:
            checked = recipe(arguments.model, "fp32", checked=True)
            with without_tf32():
                worst = disagreement(kind, checked, device, Path(scratch), arguments.compile)
            result["disagreement"][kind] = float(f"{worst:.2g}")
            print(f"{kind}: ours and plain PyTorch differ by {worst:.1e} in float32", flush=True)
            if not worst < TOLERANCE:
                print(f"{kind}: that is more than {TOLERANCE:g}; nothing is measured")
                return 1
        for kind in arguments.kinds if arguments.precision == "bf16" else []:
            with without_tf32():
                worst = drift(kind, arguments.model, device, Path(scratch), arguments.compile)
            result["drift"][kind] = float(f"{worst:.2g}")
            print(f"{kind}: losses in bf16 differ from float32's by {worst:.1e}", flush=True)
            if not worst < DRIFT:
                print(f"{kind}: that is more than {DRIFT:g}; nothing is measured")
                return 1
        if arguments.check:
            print(json.dumps(result))
            return 0
        trial = recipe(arguments.model, arguments.precision)
        for number, kind in enumerate(arguments.kinds, start=1):
            result[kind] = measured(kind, trial, arguments, Path(scratch))
            gc.collect()
            torch.cuda.empty_cache()  # for the processes that measure the peak
            for whose in ("ours", "plain") if arguments.peak else ():
                peak = peak_bytes(kind, whose, arguments)
                if peak is None:
                    print(f"{kind}: {whose} has not enough memory to tell its peak")
                elif whose in result[kind]:
                    result[kind][whose]["peak_mb"] = round(peak["peak"] / 2**20)
                    result[kind][whose]["imports_mb"] = round(peak["imports"] / 2**20)
            if unfinished := arguments.kinds[number:]:  # whoever is cut short has this much
                print(json.dumps({**result, "unfinished": unfinished}), flush=True)
    _print(result, arguments.kinds)
    print(json.dumps(result))
    return 0


def _print(result: dict[str, Any], kinds: list[str]) -> None:
    print(f"\n{result['model']}, {result['precision']}, {result['device']}")
    print("                 clips/s (least to most)      TFLOP/s  of a matrix product   peak MB")
    for kind in kinds:
        for whose in ("ours", "plain"):
            if (row := result[kind].get(whose)) is None:
                continue
            rate = row["clips_per_second"]
            print(
                f"{kind:9}{whose:6} {rate['median']:8.1f} ({rate['least']:.1f} to "
                f"{rate['most']:.1f})".ljust(42)
                + f"{row['teraflops']['median']:9.4g}"
                + f"{row['share_of_matrix']['median']:15.1%}"
                + f"{row.get('peak_mb', math.nan):17.0f}"
            )
        if ratio := result[kind].get("ratio"):
            print(f"{kind:9}ours / plain {ratio['median']:.2f}", end="")
            print(f" ({ratio['least']:.2f} to {ratio['most']:.2f})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SIZES, default="vit_tiny")
    parser.add_argument("--device", choices=MATRIX, default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each side in a round")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's)")
    parser.add_argument(
        "--no-peak", dest="peak", action="store_false", help="do not measure peak memory"
    )
    parser.add_argument("--check", action="store_true", help="only compare the two in float32")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
