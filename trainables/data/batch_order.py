"""The order of the views in a global batch, and the part of it that each process takes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from trainables.data.mixture import Mixture, hashed

# With whom a view may be mixed; None: nothing is mixed.
Pairing = Literal[None, "within_source", "across_sources"]


def batch_order(mixture: Mixture, step: int, pairing: Pairing) -> list[int]:
    """The indices of the global batch of `step`, decided from the draws alone.

    Without pairing, as they are drawn. With it, positions 2i and 2i + 1 are partners, and views
    without one stand at the end, of every source one at most. Partners are half of their list of
    views apart, so views of one clip are partners only where that clip is alone in the list: the
    source's own, or all of the batch with its clips in random order.
    """
    start, views = step * mixture.batch_size, mixture.views_per_clip
    indices = list(range(start, start + mixture.batch_size))
    if pairing is None:
        return indices
    if pairing == "within_source":
        lists: dict[int, list[int]] = {}
        for index in indices:
            lists.setdefault(mixture.source_index(index), []).append(index)
    else:  # a period of the mixture as long as half a batch would pair a source with itself
        rng = np.random.default_rng(hashed(mixture.seed, "pairs", step))
        clips = start + views * rng.permutation(mixture.batch_size // views)
        lists = {0: [int(first) + view for first in clips for view in range(views)]}
    pairs: list[tuple[int, int]] = []
    alone: list[int] = []
    for listed in lists.values():
        half = len(listed) // 2
        pairs += zip(listed[:half], listed[half : 2 * half], strict=True)
        alone += listed[2 * half :]
    # By place in the batch, so that every part of it holds all sources, as without pairing.
    paired = [index for pair in sorted(pairs) for index in pair]
    return paired + alone


def shard(order: list[int], rank: int, world_size: int, pairing: Pairing) -> list[int]:
    """The part of one process; pairs are never cut."""
    unit = 1 if pairing is None else 2
    units = len(order) // unit
    first, last = (unit * (part * units // world_size) for part in (rank, rank + 1))
    return order[first : len(order) if rank + 1 == world_size else last]
