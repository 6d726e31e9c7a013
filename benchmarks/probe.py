"""What a linear probe costs beside one that runs the trunk in every epoch.

Three ways to probe one dataset with a grid of settings, on the same trunk and clips that lie in
memory: ours (a pass of the trunk under inference_mode, then all penalties at once); the same pass,
then one penalty after the other with torch's L-BFGS, each going on from the one before; and a
frozen trunk that runs forward in each of --epochs while one linear head for each of the grid
trains on its features by AdamW, all in one pass.

    python benchmarks/probe.py                             vit_tiny on a CPU
    python benchmarks/probe.py --model vit_base --device cuda --precision bf16 --clips 3570

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.spread import spread  # noqa: E402
from benchmarks.training_step import recipe, wait  # noqa: E402
from trainables.logistic_regression import fit  # noqa: E402
from trainables.models.video_vit import VideoViT  # noqa: E402
from trainables.stages.features import in_precision  # noqa: E402

BATCH = 64
KEPT = 256  # clips in memory, taken in turn
GRID = [1.0, 1e-1, 1e-2, 1e-3, 1e-4]  # PPMA's: sweeps/ppma.yaml
EPOCHS = 30  # of PPMA's linear probe


class Probing:
    """One dataset: a trunk, clips, labels."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device) -> None:
        trial = recipe(arguments.model, arguments.precision)
        torch.manual_seed(0)
        self.trunk = VideoViT(trial.model, trial.clip).to(device).eval().requires_grad_(False)
        clip, self.device = trial.clip, device
        shape = (KEPT, 3, clip.frames, clip.resolution, clip.resolution)
        self.videos = torch.randn(shape, device=device)
        self.count, self.classes = arguments.clips, arguments.classes
        self.label = torch.arange(self.count, device=device) % self.classes
        self.precision, self.epochs = arguments.precision, arguments.epochs

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.count, BATCH):
            label = self.label[start : start + BATCH]
            first = start % KEPT
            yield self.videos[first : first + len(label)], label

    def features(self) -> Tensor:
        """[N, D]. A part of each is its class, or nothing would be learnt from noise."""
        found = []
        with torch.inference_mode(), in_precision(self.precision, self.device):
            for video, _ in self.batches():
                found.append(self.trunk(video).half())
        features = torch.cat(found)
        draw = torch.Generator(self.device).manual_seed(0)
        noise = torch.randn(features.shape, generator=draw, device=self.device)
        centres = torch.randn(self.classes, features.shape[1], generator=draw, device=self.device)
        return (features + 0.2 * centres[self.label] + 0.5 * noise).half()

    def every_epoch(self, epochs: int) -> None:
        """A head for each of the grid, all trained on one forward pass an epoch."""
        heads = [nn.Linear(self.trunk.width, self.classes).to(self.device) for _ in GRID]
        groups = [
            {"params": list(head.parameters()), "weight_decay": decay}
            for head, decay in zip(heads, GRID, strict=True)
        ]
        optimizer = torch.optim.AdamW(groups, lr=1e-3)
        for _ in range(epochs):
            for video, label in self.batches():
                with torch.no_grad(), in_precision(self.precision, self.device):
                    features = self.trunk(video)
                losses = [F.cross_entropy(head(features.float()), label) for head in heads]
                torch.stack(losses).sum().backward()
                optimizer.step()
                optimizer.zero_grad()


def one_after_the_other(features: Tensor, label: Tensor, classes: int) -> None:
    """Each penalty from the optimum of the one before, as closely as ours."""
    values = features.double()
    values = (values - values.mean(dim=0)) / values.std(dim=0, unbiased=False)
    weight = values.new_zeros(classes, values.shape[1]).requires_grad_()
    bias = values.new_zeros(classes).requires_grad_()
    for l2 in GRID:
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=2000,
            tolerance_grad=1e6 * 1e-7,
            tolerance_change=0.0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss(l2: float = l2, solver: torch.optim.LBFGS = solver) -> float:
            solver.zero_grad()
            value = F.cross_entropy(F.linear(values, weight, bias), label)
            value = 1e6 * (value + l2 / 2 * weight.square().sum())
            value.backward()
            return value.item()

        solver.step(loss)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    wait(device)
    began = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - began


def main() -> int:
    arguments = _parser().parse_args()
    device = torch.device(arguments.device)
    probing = Probing(arguments, device)
    features = probing.features()
    label, classes = probing.label, probing.classes
    parts: dict[str, Callable[[], object]] = {
        "features": probing.features,
        "fit": lambda: fit(features, label, GRID, classes),
        "fit_one_after_the_other": lambda: one_after_the_other(features, label, classes),
        "an_epoch_with_its_pass": lambda: probing.every_epoch(1),
    }
    for part in parts.values():
        part()
    rounds = []
    for _ in range(arguments.repeats):
        rounds.append({name: seconds(part, device) for name, part in parts.items()})
        tell(arguments, rounds)  # whoever is cut short has this much
    return 0


def tell(arguments: argparse.Namespace, rounds: list[dict[str, float]]) -> None:
    """What the rounds until now come to, and last as JSON."""
    device = torch.device(arguments.device)
    ours = [row["features"] + row["fit"] for row in rounds]
    loops = [row["features"] + row["fit_one_after_the_other"] for row in rounds]
    epochs = [arguments.epochs * row["an_epoch_with_its_pass"] for row in rounds]
    result: dict[str, Any] = {
        "benchmark": "probe",
        "model": arguments.model,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "precision": arguments.precision,
        "clips": arguments.clips,
        "classes": arguments.classes,
        "epochs": arguments.epochs,
        "repeats": len(rounds),
        "seconds": {name: spread([row[name] for row in rounds]) for name in rounds[0]},
        "fit_faster_than_one_after_the_other": spread(
            [row["fit_one_after_the_other"] / row["fit"] for row in rounds]
        ),
        "faster_than_one_after_the_other": _ratio(loops, ours),
        "faster_than_a_pass_each_epoch": _ratio(epochs, ours),
        "clips_per_second": spread([arguments.clips / row["features"] for row in rounds]),
    }
    middle = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    print(f"{arguments.clips} clips, {arguments.classes} classes, {len(GRID)} penalties; seconds:")
    for name, value in middle.items():
        print(f"  {name.replace('_', ' '):26} {value:9.3f}")
    for name in ("one_after_the_other", "a_pass_each_epoch"):
        print(f"ours over {name.replace('_', ' ')}: ", end="")
        print(f"{result[f'faster_than_{name}']['median']:.1f} times faster")
    print(json.dumps(result), flush=True)


def _ratio(others: list[float], ours: list[float]) -> dict[str, float]:
    return spread([other / own for other, own in zip(others, ours, strict=True)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["vit_tiny", "vit_base"], default="vit_tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--clips", type=int, default=480, help="of training")
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="that the other one takes")
    parser.add_argument("--repeats", type=int, default=5)
    return parser


if __name__ == "__main__":
    sys.exit(main())
