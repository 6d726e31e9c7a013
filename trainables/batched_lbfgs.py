"""L-BFGS on several smooth convex functions at once, each with a history and steps of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

HISTORY = 20  # pairs of steps and changes of the gradient that are remembered
HALVINGS = 40
SUFFICIENT = 1e-4  # part of the decrease that the slope promises
ROUNDING = 1e-12  # what values may be off by, of themselves

# Points [A, P] and which of the G functions they are for, int64 [A] -> values [A], gradients [A, P]
Functions = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def minima(
    functions: Functions,
    start: Tensor,
    is_optimal: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
) -> Tensor:
    """[G, P]: for each function the first point that `is_optimal`, or the last.

    Functions whose optimum is reached take no further part. `is_optimal` says of gradients [A, P]
    of the functions [A] whether they are small enough, bool [A]. Steps are as long as L-BFGS wants
    (Nocedal and Wright 2006, algorithm 7.4), and halved until the value falls by enough or, where
    rounding hides that, the slope has (Hager and Zhang 2005, the approximate Wolfe condition).
    """
    found, which = start.clone(), torch.arange(len(start), device=start.device)
    points = start
    values, gradients = functions(points, which)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=HISTORY)
    for _ in range(iterations):
        left = ~is_optimal(gradients, which)
        if not left.all():
            found[which] = points
            if not left.any():
                return found
            which, points, values, gradients = (
                tensor[left] for tensor in (which, points, values, gradients)
            )
            pairs = deque(((s[left], y[left]) for s, y in pairs), maxlen=HISTORY)
        directions = -_times_inverse_hessian(gradients, pairs)
        new, values, changed = _line_search(functions, which, points, values, gradients, directions)
        pairs.append((new - points, changed - gradients))
        points, gradients = new, changed
    found[which] = points
    return found


def _times_inverse_hessian(gradients: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> Tensor:
    """[A, P]: the two loops of L-BFGS; a pair without curvature is passed over."""
    result, parts = gradients, []
    for s, y in reversed(pairs):
        curvature = _dot(s, y)
        inverse = torch.where(curvature > 0, 1 / curvature, 0.0)
        part = inverse * _dot(s, result)
        result = result - part * y
        parts.append((inverse, part))
    if pairs:
        s, y = pairs[-1]
        curvature = _dot(s, y)
        result = torch.where(curvature > 0, curvature / _dot(y, y), 1.0) * result
    for (s, y), (inverse, part) in zip(pairs, reversed(parts), strict=True):
        result = result + (part - inverse * _dot(y, result)) * s
    return result


def _line_search(
    functions: Functions,
    which: Tensor,
    points: Tensor,
    values: Tensor,
    gradients: Tensor,
    directions: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """New points with their values and gradients."""
    slopes = _dot(gradients, directions).squeeze(1)
    steps = torch.ones_like(values)
    for _ in range(HALVINGS):
        new = points + steps.unsqueeze(1) * directions
        new_values, new_gradients = functions(new, which)
        falls = new_values <= values + SUFFICIENT * steps * slopes
        new_slopes = _dot(new_gradients, directions).squeeze(1)
        flattens = new_slopes <= (2 * SUFFICIENT - 1) * slopes
        accepted = falls | (flattens & (new_values <= values + ROUNDING * values.abs()))
        if accepted.all():
            break
        steps = torch.where(accepted, steps, steps / 2)
    return new, new_values, new_gradients


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[A, 1]."""
    return (a * b).sum(dim=1, keepdim=True)
