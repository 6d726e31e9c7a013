"""What makes a step faster or smaller without changing what it computes: `execution` says which."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from trainables.config import Execution
from trainables.models.mae import MaskedAutoencoder
from trainables.models.timm_models import transformer_block
from trainables.models.trunk import ConvolutionalTrunk
from trainables.models.video_vit import VideoViT

# Of a block: encoder's and decoder's, with drop path and without, in each size of a batch's parts.
VARIANTS = 32


def accelerate(objective: nn.Module, execution: Execution, device: torch.device) -> None:
    """Change how `objective` runs, in place: names of weights stay, results do up to rounding.

    Raises:
        ValueError: a convolutional network cannot recompute its activations, for its batch
            normalisation would count every clip twice.
    """
    if execution.recompute_activations:
        for module in objective.modules():
            if isinstance(module, ConvolutionalTrunk):
                raise ValueError(
                    "execution.*.recompute_activations is for ViTs, and this stage trains a "
                    "convolutional network; set it to false, or lower per_device_batch"
                )
            if isinstance(module, VideoViT):
                module.recomputes = True
    if execution.compile and _compiler_works(device):
        torch._dynamo.reset()  # what stages before this one on the same worker left
        torch._dynamo.config.recompile_limit = VARIANTS
        torch._inductor.config.fallback_random = True  # drop path draws what it draws uncompiled
        # Else DistributedDataParallel would cut each block into its buckets of gradients.
        torch._dynamo.config.optimize_ddp = False
        # Else a number that differs between blocks is no part of the key under which a compiled
        # one is kept on disk, and the next process takes one for another (pytorch#197889).
        torch._dynamo.config.specialize_float = True
        # Not dynamic: encoder and decoder differ in tokens, batches do not.
        for region in _regions(objective):
            region.compile(dynamic=False)
        for module, method in _between(objective):
            setattr(module, method, torch.compile(getattr(module, method), dynamic=False))


def eagerly(execution: Execution) -> AbstractContextManager[object]:
    """Inside, nothing is compiled: for evaluation, whose batches are of other sizes."""
    return torch.compiler.set_stance("force_eager") if execution.compile else nullcontext()


def _regions(objective: nn.Module) -> list[nn.Module]:
    """Parts that repeat are compiled once for all, and gradients leave each as soon as it is done,
    so that processes exchange them while the rest goes backwards."""
    regions: list[nn.Module] = []
    for module in objective.modules():
        if isinstance(module, VideoViT):
            regions += module.blocks
        elif isinstance(module, MaskedAutoencoder):
            regions += module.decoder_blocks
        elif isinstance(module, ConvolutionalTrunk):
            regions.append(module.backbone)
    return regions


def _between(objective: nn.Module) -> list[tuple[nn.Module, str]]:
    """Methods before, between and after the blocks; uncompiled, stage 1's error alone passes over
    all pixels some ten times."""
    methods: list[tuple[nn.Module, str]] = []
    for module in objective.modules():
        if isinstance(module, VideoViT):
            methods.append((module, "embedded"))
        elif isinstance(module, MaskedAutoencoder):
            methods += [(module, "decoder_tokens"), (module, "error")]
    return methods


def _compiler_works(device: torch.device) -> bool:
    """Tried on a small block, forwards and backwards; if not, one warning says why."""
    try:
        block = transformer_block(32, 2, 2.0, 0.0).to(device)
        block.compile()
        block(torch.randn(2, 8, 32, device=device)).sum().backward()
    except Exception as error:  # torch's compiler, C++'s, Triton, a driver: anything may be missing
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"torch.compile does not work here, so the model runs uncompiled: {reason}",
            stacklevel=2,
        )
        return False
    return True
